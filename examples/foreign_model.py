"""Wrap a foreign world model, check the wrapper, and let the model think before it acts."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow import Agent, Gaussian, Gradient, State, Thinking, WorldModel
from thinkslow.objectives import Evidence
from thinkslow.readouts import Mode
from thinkslow.testing import UPDATES, check

# Somebody's tracker of (position, velocity), pushed by an action, of which a position is seen.
TRACKER = {
    "move": jnp.array([[1.0, 0.5], [0.0, 1.0]]),
    "push": jnp.array([[0.1], [0.5]]),
    "slip": jnp.array([0.6, 0.3]),
    "blur": jnp.array([0.3]),
    "gain": jnp.array([0.3]),  # its encoder corrects by too little: 0.8 would be exact
}


class Tracker(WorldModel):
    weights: dict

    def initial(self):
        return State(jnp.zeros(2), jnp.zeros(2))

    def predict(self, state, action, is_first):
        w = self.weights
        moved = w["move"] @ state.latent + w["push"] @ action
        memory = jnp.where(is_first, 0.0, moved)
        return memory, Gaussian(memory, jnp.log(w["slip"]) + jnp.zeros(2))

    def infer(self, memory, observation):
        w = self.weights
        error = observation["position"] - memory[:1]
        mean = memory + jnp.concatenate([w["gain"] * error, jnp.zeros(1)])
        return Gaussian(mean, jnp.log(w["slip"]) + jnp.zeros(2))

    def decode(self, state) -> dict[str, Any]:
        return {"position": Gaussian(state.latent[:1], jnp.log(self.weights["blur"]))}

    def policy(self, state, key):
        return -0.5 * state.latent[:1] - state.latent[1:]

    @property
    def trained_beta(self):
        return 1.0

    @property
    def trained_free_nats(self):
        return 0.0


model, seen = Tracker(TRACKER), {"position": np.array([1.5], np.float32)}
updates = {"gradient": UPDATES["gradient"]}
entries = check(
    model, seen, model.policy, action=jnp.zeros(1), terms=[Evidence(samples=2)], updates=updates
)
print(f"{sum(entry.holds is True for entry in entries)} entries of the contract hold")

thinking = Thinking({Evidence(samples=64): 1.0}, steps=16, update=Gradient(0.05), readout=Mode())
batch, first = {"position": seen["position"][None]}, np.array([True])
for name, how in {"base": Thinking(readout=Mode()), "thinking": thinking}.items():
    agent = Agent(model, how)
    _, action, thought = agent.act(agent.start(1), batch, first, keys=jr.split(jr.key(0), 1))
    assert isinstance(thought.after, Gaussian)
    mean, spread = thought.after.mean[0, 0], jnp.exp(thought.after.log_scale[0, 0])
    print(f"{name}: position {mean:.2f} +- {spread:.2f}, action {action[0, 0]:+.2f}")
share = 0.6**2 / (0.6**2 + 0.3**2)  # Kalman's gain
print(f"exact: position {share * 1.5:.2f} +- {0.6 * (1 - share) ** 0.5:.2f}")
