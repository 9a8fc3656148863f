"""Decisions of tiny agents on random frames, for the modules that test them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent.agent import Agent
from thinkslow.agent.decision import Thought
from thinkslow.agent.inputs import Carry
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Gaussian
from thinkslow.objectives import Evidence
from thinkslow.readouts import Soft
from thinkslow.spaces import Space
from thinkslow.worldmodel import State, WorldModel

BATCH = 3


EVIDENCE = Thinking({Evidence(): 1.0}, steps=2, latent=Soft(), max_kl=2.0)


def losses(thought: Thought) -> np.ndarray:
    """Of every iterate, `[batch, steps + 1]`."""
    assert thought.refined is not None
    return np.asarray(thought.refined.loss)


def play(agent: Agent, stream: list, seed: int = 0) -> list[tuple[Carry, Any, Thought]]:
    carry, out = agent.start(BATCH), []
    for time, (observation, first) in enumerate(stream):
        keys = jr.split(jr.fold_in(jr.key(seed), time), BATCH)
        carry, action, thought = agent.act(carry, observation, first, keys=keys)
        out.append((carry, action, thought))
    return out


class Notes(WorldModel):
    """An ordinary Equinox model, whose layers keep their activation as a leaf."""

    core: eqx.nn.MLP
    reader: eqx.nn.MLP

    @property
    def observation_spaces(self):
        return (("seen", Space((3,), "float32")),)

    @property
    def action_spaces(self):
        return (("action", Space((), "int32", 2)),)

    def initial(self):
        return State(jnp.zeros(4), jnp.zeros(2))

    def predict(self, state, action, is_first):
        given = jnp.concatenate([state.memory, state.latent, action])
        memory = self.core(jnp.where(is_first, 0.0, given))
        return memory, Gaussian(memory[:2], memory[2:])

    def infer(self, memory, observation):
        out = self.reader(jnp.concatenate([memory, observation["seen"]]))
        return Gaussian(out[:2], out[2:])

    def decode(self, state):
        return {"seen": Gaussian(jnp.tile(state.latent[:1], 3), jnp.zeros(3))}

    def policy(self, state, key):
        return jax.nn.one_hot(jnp.argmax(state.latent), 2)


def notes() -> Notes:
    make = eqx.filter_jit(lambda inputs, key: eqx.nn.MLP(inputs, 4, 8, 1, key=key))
    return Notes(make(8, jr.key(0)), make(7, jr.key(1)))
