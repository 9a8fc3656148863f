"""Play a bundled agent that thinks before it acts, and look at what thinking did."""

import jax.numpy as jnp
import jax.random as jr

import thinkslow
from thinkslow import envs, zoo

saved = thinkslow.load(zoo.path("collect-half"))
agent = thinkslow.Agent(saved.model, thinkslow.ARMS["evidence"].thinking)
env = envs.make(**saved.environment)

observation, _ = env.reset(seed=0)
carry = agent.start(batch=1)
score = 0.0
for decision in range(25):
    images = {name: jnp.asarray(value)[None] for name, value in observation.items()}
    is_first = jnp.array([decision == 0])
    carry, action, thought = agent.act(carry, images, is_first, keys=jr.split(jr.key(decision), 1))
    choice = int(saved.model.split(action)["action"][0])
    observation, reward, *_ = env.step(choice)
    score += reward
env.close()

assert thought.refined is not None
losses = ", ".join(f"{loss:.1f}" for loss in thought.refined.loss[0])
print(f"score after {decision + 1} decisions: {score:g}")
print(f"last decision: objective {losses}; belief moved {thought.moved[0]:.2f} nats")
