"""A world model of your own: a linear tracker of CartPole that balances the pole.

It is not a Dreamer: nothing was trained, its encoder corrects too little, and it has a spread.
"""

import jax
import jax.numpy as jnp

import thinkslow
from thinkslow.objectives import Evidence
from thinkslow.readouts import Mode
from thinkslow.spaces import Space

MOVE = jnp.eye(4) + 0.02 * jnp.array([[0, 1, 0, 0], [0, 0, -0.7, 0], [0, 0, 0, 1], [0, 0, 15.8, 0]])
PUSH = 0.02 * jnp.array([[0, 9.8, 0, -14.6]])
SLIP, BLUR, GAIN = jnp.full(4, 0.05), jnp.full(4, 0.02), 0.3


class Tracker(thinkslow.WorldModel):
    """Memory: the predicted mean; latent: position, speed, angle, turn."""

    @property
    def observation_spaces(self):
        return (("vector", Space((4,), "float32")),)

    @property
    def action_spaces(self):
        return (("action", Space((), "int32", 2)),)

    def initial(self):
        return thinkslow.State(jnp.zeros(4), jnp.zeros(4))

    def predict(self, state, action, is_first):
        force = 2 * action[1:] - action.sum()
        memory = jnp.where(is_first, 0.0, MOVE @ state.latent + force @ PUSH)
        return memory, self.prior(memory)

    def prior(self, memory):
        return thinkslow.Gaussian(memory, jnp.log(SLIP))

    def infer(self, memory, observation):
        mean = memory + GAIN * (observation["vector"] - memory)
        return thinkslow.Gaussian(mean, jnp.log(SLIP))

    def decode(self, state):
        return {"vector": thinkslow.Gaussian(state.latent, jnp.log(BLUR))}

    def policy(self, state, key):
        return jax.nn.one_hot((jnp.array([0.2, 0.4, 6.0, 1.0]) @ state.latent > 0).astype(int), 2)


if __name__ == "__main__":
    agent = thinkslow.Agent(Tracker(), thinkslow.Thinking(readout=Mode()))
    slow = thinkslow.Thinking(
        {Evidence(beta=1.0, free_nats=0.0, samples=4): 1.0}, steps=5, readout=Mode()
    )
    arms = {"none": agent, "evidence": agent.thinking(slow)}
    result = thinkslow.evaluate(arms, "CartPole-v1", episodes=8, seed=0, batch=4)
    for episode in result.episodes[:3]:
        print(episode["arm"], episode["score"], episode["latency_ms"])
    print(result.comparisons[0])
