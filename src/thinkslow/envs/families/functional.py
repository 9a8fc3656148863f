"""Environments written in JAX as pure functions, played one step at a time.

The state is a value, so an episode can be stored and restored at no cost. Random numbers are
determined by the seed and the number of the step. In the processes of a `VectorEnv`, JAX uses the
CPU unless JAX_PLATFORMS is set: the GPU is for the agent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np


class Stepped(NamedTuple):
    """The result of a step."""

    state: Any
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any


Begin = Callable[[Any], tuple[Any, Any]]
"""From a key to the first state and observation."""
Go = Callable[[Any, Any, Any], Stepped]
"""From a key, a state and an action to the next `Stepped`."""


class Functional(gymnasium.Env):
    """An environment made of two functions, both compiled once.

    **Cost:** compiling, at the first reset and the first step: seconds to a minute.
    """

    def __init__(self, begin: Begin, go: Go):
        import jax

        def first(key: Any) -> tuple[Any, Any]:
            return begin(jax.random.fold_in(key, 0))

        def after(key: Any, steps: Any, state: Any, action: Any) -> tuple[Any, Any]:
            state, *told = go(jax.random.fold_in(key, steps), state, action)
            return state, told

        self._first, self._after = jax.jit(first), jax.jit(after)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        import jax

        super().reset(seed=seed)
        self.key: Any = jax.random.key(int(self.np_random.integers(2**31)))
        self.steps = 0
        self.world, observation = self._first(self.key)
        return jax.device_get(observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        import jax

        self.steps += 1
        self.world, told = self._after(self.key, self.steps, self.world, action)
        observation, reward, terminated, truncated = jax.device_get(told)
        ends = bool(terminated)
        return observation, float(reward), ends, bool(truncated) and not ends, {}

    def state(self) -> dict[str, Any]:
        """The complete state; `restore` restores it."""
        import jax

        return {
            "world": [_plain(leaf) for leaf in jax.tree.leaves(self.world)],
            "key": np.asarray(jax.random.key_data(self.key)),
            "steps": self.steps,
            "random": self.np_random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of `state`, in an environment that was reset."""
        import jax

        leaves, structure = jax.tree.flatten(self.world)
        back = [
            jax.random.wrap_key_data(kept) if _is_key(leaf) else kept
            for leaf, kept in zip(leaves, state["world"], strict=True)
        ]
        self.world = jax.tree.unflatten(structure, back)
        self.key, self.steps = jax.random.wrap_key_data(state["key"]), state["steps"]
        self.np_random.bit_generator.state = state["random"]


def _is_key(leaf: Any) -> bool:
    import jax

    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    """A part of the state as numbers that can be pickled."""
    import jax

    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
