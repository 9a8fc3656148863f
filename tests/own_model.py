"""A world model that is no Dreamer, with functions among its leaves."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.distributions import Categorical
from thinkslow.heads import Squared
from thinkslow.spaces import Space
from thinkslow.worldmodel import State, WorldModel

SEEN = {"numbers": np.array([0.3, -1.0], np.float32)}


@dataclasses.dataclass(frozen=True)
class Sizes:
    units: int = 5

    @classmethod
    def from_json(cls, data):
        return cls(**data)

    def build(self, observations, actions, *, key):
        return Recurrent(observations, actions, self, key=key)


class Recurrent(WorldModel):
    """A recurrent cell and three small networks, whose activations are leaves; no decoder."""

    config: Sizes
    cell: eqx.nn.GRUCell
    encoder: eqx.nn.MLP
    actions: eqx.nn.MLP
    steps: jax.Array

    def __init__(self, observations, actions, config, *, key):
        a, b, c = jr.split(key, 3)
        self.config = config
        self.cell = eqx.nn.GRUCell(5, config.units, key=a)
        self.encoder = eqx.nn.MLP(config.units + 2, 3, 4, 1, activation=jax.nn.silu, key=b)
        self.actions = eqx.nn.MLP(config.units + 3, 2, 4, 1, activation=jnp.tanh, key=c)
        self.steps = jnp.array(2**12 + 1)  # as float16 it would be another number

    @property
    def observation_spaces(self):
        return (("numbers", Space((2,), "float32")),)

    @property
    def action_spaces(self):
        return (("action", Space((), "int32", 2)),)

    def initial(self):
        return State(jnp.zeros(self.config.units), jnp.zeros((1, 3)))

    def predict(self, state, action, is_first):
        memory = jnp.where(is_first, 0.0, state.memory)
        memory = self.cell(jnp.concatenate([action, state.latent[0]]), memory)
        return memory, self.prior(memory)

    def prior(self, memory):
        return Categorical(memory[None, :3])

    def infer(self, memory, observation):
        seen = jnp.asarray(observation["numbers"])
        return Categorical(self.encoder(jnp.concatenate([memory, seen]))[None])

    def decode(self, state):
        return {}

    def policy(self, state, key):
        return jax.nn.one_hot(jr.categorical(key, self._logits(state)), 2)

    def _logits(self, state):
        return self.actions(jnp.concatenate([state.memory, state.latent[0]]))


class Valued(Recurrent):
    """The same, with all that a choice by value needs."""

    def actor(self, state):
        return {"action": Categorical(self._logits(state))}

    def value(self, state):
        return Squared(jnp.sum(state.memory))

    def reward(self, state):
        return Squared(state.latent[0, 0])

    def discount(self, state):
        return jnp.float32(0.9)


def made(kind: Any, seed: int = 0) -> Any:
    return kind({}, {}, Sizes(), key=jr.key(seed))
