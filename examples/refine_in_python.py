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
for decision in range(25):
    batch = {name: jnp.asarray(value)[None] for name, value in observation.items()}
    is_first = jnp.array([decision == 0])
    carry, action, thought = agent.act(carry, batch, is_first, keys=jr.split(jr.key(decision), 1))
    choice = int(saved.model.split(action)["action"][0])
    observation, reward, *_ = env.step(choice)
    assert thought.refined is not None  # it is None only without steps
    loss, moved = thought.refined.loss[0], thought.moved[0]
    print(f"objective {loss[0]:.0f} -> {loss[-1]:.0f}, moved {moved:.1f} nats, reward {reward:+g}")
env.close()
