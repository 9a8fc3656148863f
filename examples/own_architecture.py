"""An architecture of your own: its agents are saved and loaded, and every command plays them.

python examples/own_architecture.py runs/small
thinkslow evaluate runs/small --import examples/own_architecture.py --arms none,entropy-3
"""

import dataclasses
import sys
import tempfile

import equinox as eqx
import jax
import jax.numpy as jnp

import thinkslow
from thinkslow.spaces import Space


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the manifest of an agent keeps of its architecture."""

    units: int = 16
    classes: int = 8

    @classmethod
    def from_json(cls, data):
        return cls(**data)

    def build(self, observations, actions, *, key):
        return Small(observations, actions, self, key=key)


class Small(thinkslow.WorldModel):
    """A recurrent cell with one categorical variable, for a vector and one action of classes."""

    config: Sizes
    seen: tuple[str, Space] = eqx.field(static=True)
    done: tuple[str, Space] = eqx.field(static=True)
    cell: eqx.nn.GRUCell
    foresee: eqx.nn.Linear
    encode: eqx.nn.MLP
    act: eqx.nn.Linear

    def __init__(self, observations, actions, config, *, key):
        (self.seen,), (self.done,) = observations.items(), actions.items()
        size, choices, keys = (
            self.seen[1].shape[0],
            self.done[1].classes or 1,
            jax.random.split(key, 4),
        )
        units, classes = config.units, config.classes
        self.config = config
        self.cell = eqx.nn.GRUCell(classes + choices, units, key=keys[0])
        self.foresee = eqx.nn.Linear(units, classes, key=keys[1])
        self.encode = eqx.nn.MLP(units + size, classes, units, 1, key=keys[2])
        self.act = eqx.nn.Linear(units + classes, choices, key=keys[3])

    @property
    def observation_spaces(self):
        return (self.seen,)

    @property
    def action_spaces(self):
        return (self.done,)

    def initial(self):
        return thinkslow.State(jnp.zeros(self.config.units), jnp.zeros((1, self.config.classes)))

    def predict(self, state, action, is_first):
        memory = self.cell(jnp.concatenate([action, state.latent[0]]), state.memory)
        memory = jnp.where(is_first, 0.0, memory)
        return memory, self.prior(memory)

    def prior(self, memory):
        return thinkslow.Categorical(self.foresee(memory)[None])

    def infer(self, memory, observation):
        seen = jnp.concatenate([memory, observation[self.seen[0]]])
        return thinkslow.Categorical(self.encode(seen)[None])

    def decode(self, state):
        return {}

    def policy(self, state, key):
        logits = self.act(jnp.concatenate([state.memory, state.latent[0]]))
        return jax.nn.one_hot(jax.random.categorical(key, logits), logits.size)


thinkslow.register("architecture", "small", Sizes)

if __name__ == "__main__":
    spaces = {"vector": Space((4,), "float32")}, {"action": Space((), "int32", 2)}
    model = Sizes(units=12).build(*spaces, key=jax.random.key(0))  # train it here
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp() + "/small"
    thinkslow.save(folder, model, name="small", environment={"id": "CartPole-v1"}, training={})
    agent = thinkslow.load(folder)
    print("the same model:", eqx.tree_equal(agent.model, model))
