"""What several test modules share: tiny agents, small models and objectives of our own."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from gymnasium import spaces

from thinkslow.distributions import Categorical, Gaussian
from thinkslow.dreamer.config import MLPConfig, ModelConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.v1.config import ConvConfig, V1Config
from thinkslow.dreamer.v1.model import V1Dreamer
from thinkslow.heads import Bernoulli, Squared
from thinkslow.needs import Need
from thinkslow.objectives import (
    ImaginedTerm,
    PresentTerm,
)
from thinkslow.objectives.members import Members, replaced
from thinkslow.spaces import Space
from thinkslow.weights import named, with_named
from thinkslow.worldmodel import State, WorldModel

GOLDEN = (Path(__file__).parents[1] / ".." / "shared" / "golden").resolve()
"""Golden cases beside the repository; one of them is in it, in `data/golden`."""


def slow(*values: Any) -> Any:
    """Parameters of the slow tier, beside others of the fast one."""
    return pytest.param(*values, marks=pytest.mark.slow)


def nightly(*values: Any) -> Any:
    """Parameters of the nightly tier, whose rule a cheaper one holds in the others."""
    return pytest.param(*values, marks=pytest.mark.nightly)


@partial(jax.jit, static_argnums=1)
def ask(this: Any, method: str, *arguments: Any, **keywords: Any) -> Any:
    """Call a method, compiled: eagerly each of its operations would be a program of its own."""
    return getattr(this, method)(*arguments, **keywords)


def golden_case(name: str) -> Path:
    """The folder of a golden case; the test is skipped where it is not there."""
    folder = GOLDEN / name
    if not folder.exists():
        if os.environ.get("THINKSLOW_REQUIRE_GOLDEN") == "1":
            pytest.fail(f"THINKSLOW_REQUIRE_GOLDEN=1, but {folder} is not there.")
        pytest.skip(f"{folder} is not there: it comes with the project's shared folder")
    return folder


def tiny_config(**changes) -> ModelConfig:
    """Sizes like those of the golden case a, on patches: compiles in a second."""
    sizes: dict[str, Any] = {
        "deter": 32,
        "hidden": 16,
        "classes": 8,
        "stoch": 6,
        "blocks": 4,
        "depth": 4,
        "vision": "patch",
        "encoder": MLPConfig(1, 16),
        "decoder": MLPConfig(1, 16),
        "reward": MLPConfig(1, 16),
        "continuation": MLPConfig(1, 16),
        "policy": MLPConfig(1, 16),
        "value": MLPConfig(1, 16),
        "reward_bins": 41,
        "value_bins": 41,
    }
    return ModelConfig(**sizes | changes)


def smallest_config() -> ModelConfig:
    """The smallest sizes that train and play: for tests that compile an update or many agents."""
    return tiny_config(
        deter=16, classes=4, stoch=4, blocks=2, decoder_blocks=2, reward_bins=15, value_bins=15
    )


def tiny_dreamer(
    seed: int = 0, observations: Mapping | None = None, actions: Mapping | None = None, **sizes
) -> Dreamer:
    """A random agent; by default it sees a small image and takes one of three actions.

    The reward and value heads of a new DreamerV3 are zero; here every weight is random, so
    that nothing is right by vanishing.
    """
    observations = observations or {"image": Space((16, 16, 3), "uint8")}
    actions = actions or {"action": Space((), "int32", 3)}
    shape = jax.eval_shape(
        lambda: Dreamer(observations, actions, tiny_config(**sizes), key=jr.key(0))
    )
    return with_random_weights(shape, seed)


def tiny_v1_config(**changes) -> V1Config:
    """Profile `v1`: every width another, two convolutions, for images of 16."""
    sizes: dict[str, Any] = {
        "deter": 20,
        "stoch": 4,
        "classes": 5,
        "recurrent": 11,
        "prior": 12,
        "posterior": 13,
        "reward": (9, 10),
        "continuation": (8,),
        "policy": (7, 6),
        "value": (14,),
        "encoder": (15, 16),
        "decoder": (17,),
        "encoder_convs": (ConvConfig(3), ConvConfig(6)),
        "decoder_convs": (ConvConfig(4), ConvConfig(3)),
        "decoder_seed": 5,
        "reward_bins": 21,
        "value_bins": 31,
    }
    return V1Config(**sizes | changes)


def tiny_v1(
    seed: int = 0, observations: Mapping | None = None, actions: Mapping | None = None, **sizes
) -> V1Dreamer:
    """A random agent of profile `v1`; by default it sees what `tiny_dreamer` sees."""
    observations = observations or {"image": Space((16, 16, 3), "uint8")}
    actions = actions or {"action": Space((), "int32", 3)}
    shape = jax.eval_shape(
        lambda: V1Dreamer(observations, actions, tiny_v1_config(**sizes), key=jr.key(0))
    )
    return with_random_weights(shape, seed)


def with_random_weights(shape: Any, seed: int) -> Any:
    """A model of these shapes, every weight of it random."""
    rng = np.random.default_rng(seed)

    def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("kernel"):
            return rng.normal(0.0, 1 / np.sqrt(shape[-2]), shape)
        return rng.normal(float(name.endswith("scale")), 0.3, shape)

    weights = {name: weight(name, leaf.shape) for name, leaf in named(shape).items()}
    return with_named(shape, weights)


COST = jnp.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])


def linear(belief: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Expected cost: no noise, and its minimum is far away."""
    cost = jnp.sum(COST * belief.probs())
    return cost, {"cost": cost}


def noisy(belief: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A cost drawn anew for each key: what falls on one draw may rise on another."""
    return jnp.sum(jr.normal(key, COST.shape) * belief.probs()), {}


def bowl(belief: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    return jnp.sum((belief.mean - 3.0) ** 2) + jnp.sum(belief.log_scale**2), {}


def categorical(seed: int = 0, mix: float = 0.01) -> Categorical:
    raw = np.random.default_rng(seed).normal(size=(2, 3))
    return Categorical(jnp.asarray(raw, jnp.float32), mix)


def gaussian() -> Gaussian:
    return Gaussian(jnp.array([0.0, 5.0]), jnp.array([0.5, -0.5]))


def equal(first: object, second: object) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


SHARE = jnp.array([0.6, -0.4])


class Line(WorldModel):
    """A world model of one's own in a few lines: a position that actions push, seen with noise.

    Memory, latent and action are vectors of two; every belief is Gaussian.
    """

    gain: jax.Array

    def initial(self) -> State:
        return State(jnp.zeros(2, self.gain.dtype), jnp.zeros(2, self.gain.dtype))

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        memory = jnp.where(is_first, 0.0, jnp.tanh(state.memory + state.latent + action))
        return memory, self.prior(memory)

    def prior(self, memory: jax.Array) -> Gaussian:
        return Gaussian(self.gain * memory, jnp.full_like(memory, -0.5))

    def infer(self, memory: jax.Array, observation: Mapping[str, Any]) -> Gaussian:
        return Gaussian(0.5 * (memory + observation["seen"]), jnp.sin(memory) - 1.0)

    def decode(self, state: State) -> dict[str, Any]:
        return {"seen": Squared(state.latent + 0.1 * state.memory)}


class Trained(Line):
    """The same, knowing how its encoder was trained."""

    @property
    def trained_beta(self) -> float:
        return 0.7

    @property
    def trained_free_nats(self) -> float:
        return 0.2


class Blind(Line):
    """The same without a decoder."""

    def decode(self, state: State) -> dict[str, Any]:
        return {}


def push(state: State, key: jax.Array) -> jax.Array:
    """A policy with a gradient and some noise."""
    noise = jr.normal(key, state.latent.shape, state.latent.dtype)
    return jnp.tanh(SHARE.astype(noise.dtype) * state.latent) + 0.1 * noise


class Fuzzy(Line):
    """The same seen through a noise that grows with the distance."""

    def decode(self, state: State) -> dict[str, Any]:
        return {"seen": Gaussian(state.latent + 0.1 * state.memory, 0.3 * state.latent)}


class Coded(WorldModel):
    """Two factors of three classes, seen as the entry of a table: nothing else matters."""

    table: jax.Array

    def initial(self) -> State:
        return State(jnp.zeros(1), jnp.zeros((2, 3)))

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        return state.memory, Categorical(state.latent, 0.01)

    def infer(self, memory: jax.Array, observation: Mapping[str, Any]) -> Categorical:
        return Categorical(jnp.zeros((2, 3)), 0.01)

    def decode(self, state: State) -> dict[str, Any]:
        return {"seen": Squared(state.latent[0] @ self.table @ state.latent[1])}


def gains(*values: float, kind: Any = Line, dtype: Any = None) -> Members:
    """Members that disagree about how far the memory moves the latent."""
    return replaced(kind(jnp.array(0.0)), lambda m: m.gain, jnp.array(values, dtype))


class NearPlace(PresentTerm):
    """How far the expected latent is from a place, squared."""

    place: float = 0.0

    def value(self, belief: Any, present: Any, *, key: Any) -> jax.Array:
        return jnp.sum(jnp.square(belief.soft() - self.place))


class Toll(ImaginedTerm):
    """What is paid for actions."""

    def at_step(self, model: Any, step: Any, *, key: Any) -> jax.Array:
        return jnp.sum(jnp.square(step.action))

    def diagnostics(self, model: Any, step: Any) -> dict[str, jax.Array]:
        return {"steps": jnp.ones(())}


class Guided(Toll):
    """A term that asks for what no model here has."""

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("a map", _map),)


def _map(model: Any, members: Any) -> str | None:
    return None if hasattr(model, "map") or members else "it has no map. Draw one"


class Codes(WorldModel):
    """Two categorical factors of three classes, seen as bits: the smallest model with it all."""

    core: jax.Array
    head: jax.Array
    eyes: jax.Array
    view: jax.Array

    def initial(self) -> State:
        return State(jnp.zeros(4, self.core.dtype), jnp.zeros((2, 3), self.core.dtype))

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        keep = jnp.where(is_first, 0, 1).astype(state.memory.dtype)
        inputs = [state.memory, state.latent.astype(state.memory.dtype).ravel(), action]
        memory = jnp.tanh(
            keep * jnp.concatenate([x.astype(state.memory.dtype) for x in inputs]) @ self.core
        )
        return memory, self._belief(memory @ self.head)

    def infer(self, memory: jax.Array, observation: Any) -> Categorical:
        bits = observation["bits"].astype(memory.dtype)
        return self._belief(memory @ self.head + bits @ self.eyes)

    def decode(self, state: State) -> dict[str, Any]:
        inputs = jnp.concatenate([state.latent.ravel().astype(state.memory.dtype), state.memory])
        logits = inputs @ self.view
        return {"bits": Bernoulli(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))}

    def _belief(self, x: jax.Array) -> Categorical:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return Categorical(x.astype(wide).reshape(2, 3), 0.01)


def codes(seed: int = 0) -> Codes:
    rng = np.random.default_rng(seed)
    shapes = {"core": (12, 4), "head": (4, 6), "eyes": (5, 6), "view": (10, 5)}
    return Codes(**{k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()})


def steer(state: State, key: jax.Array) -> jax.Array:
    return jnp.tanh(state.latent.reshape(3, 2).sum(0))


BITS = {"bits": jnp.array([1.0, 0.0, 0.0, 1.0, 1.0])}


def nested(space: spaces.Space, levels: int) -> spaces.Space:
    """The space inside so many tuples and dictionaries, in turn; an even number."""
    for _ in range(levels // 2):
        space = spaces.Tuple([spaces.Dict({"in": space})])
    return space
