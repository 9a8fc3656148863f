"""Adapt environments with older interfaces to the present Gymnasium interface.

Before gym 0.26, `reset` took no seed and returned only the observation, and `step` returned one
`done` instead of `terminated` and `truncated`. Each adaptation is reported once.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium import spaces

from thinkslow.envs.failures import Mismatch

LARGEST_SEED = 2**31 - 1
"""The largest seed that every simulator takes: many keep it as a C integer."""

Say = Callable[[str], None]


class Adapted(gymnasium.Wrapper):
    """Any environment, with `reset` and `step` as Gymnasium defines them."""

    def __init__(self, env: gymnasium.Env, say: Say):
        super().__init__(env)
        self._say = say
        inner: Any = env.env if isinstance(env, Foreign) else env
        self._seeded = _takes(inner.reset, "seed")
        self._optioned = _takes(inner.reset, "options")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        given: dict[str, Any] = {"options": options} if self._optioned else {}
        if self._seeded:
            found: Any = self._with(seed, lambda one: self.env.reset(seed=one, **given))
        else:
            if seed is not None:
                self._seed_otherwise(seed)
            found = self.env.reset(**given)
        if self._has_info(found):
            return found[0], dict(found[1] or {})
        self._say("its `reset` returns only an observation, as before gym 0.26: adapted")
        return found, {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        found: Any = self.env.step(action)
        count = len(found) if isinstance(found, tuple | list) else None
        if count == 5:
            *played, info = found
            return *played, _mapping(info)  # pyright: ignore[reportReturnType]
        if count != 4:
            returned = type(found).__name__ if count is None else str(count)
            raise Mismatch(f"its `step` must return 5 values; this one returned {returned}.")
        self._say("its `step` returns one `done`, as before gym 0.26: adapted")
        observation, reward, done, info = found
        info = _mapping(info)
        late = bool(info.get("TimeLimit.truncated", False))
        return observation, reward, False if late else done, late, info

    def _with(self, seed: int | None, call: Callable[[int | None], Any]) -> Any:
        """The result of a call with a seed. If the environment refuses one for its size, it gets
        the seed without its highest bit.
        """
        try:
            return call(seed)
        except (OverflowError, TypeError, ValueError) as error:
            about = isinstance(error, OverflowError) or "seed" in str(error).lower()
            if seed is None or seed <= LARGEST_SEED or not about:
                raise
            try:
                found = call(seed & LARGEST_SEED)
            except Exception:
                raise error from None
        self._say("it takes no seed of 2^31 or more: those are given without their highest bit")
        return found

    def _has_info(self, found: Any) -> bool:
        """Whether a reset returned an observation and an info, and not an observation alone."""
        if not isinstance(found, tuple | list) or len(found) != 2:
            return False
        observation, info = found
        pairs = isinstance(self.env.observation_space, spaces.Tuple)
        if pairs and not isinstance(observation, tuple | list):  # `found` is the observation
            return False
        return info is None or isinstance(info, Mapping)

    def _seed_otherwise(self, seed: int) -> None:
        method = getattr(self.env.unwrapped, "seed", None)
        if callable(method):
            self._with(seed, method)
            self._say("its `reset` takes no seed: its method `seed` is called before")
        else:
            self._say(
                "its `reset` takes no seed, so episodes cannot be repeated, and those of two arms "
                "cannot be paired"
            )


def _mapping(info: Any) -> dict[str, Any]:
    """The info of a step; empty for anything but a mapping."""
    return dict(info) if isinstance(info, Mapping) else {}


class Foreign(gymnasium.Env):
    """An environment that is not a `gymnasium.Env`, such as one of the old package gym."""

    def __init__(self, env: Any):
        self.env = env
        self.observation_space = translated(env.observation_space)
        self.action_space = translated(env.action_space)

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # not set yet
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, **given: Any) -> Any:
        return self.env.reset(**given)

    def step(self, action: Any) -> Any:
        return self.env.step(action)

    def close(self) -> None:
        if hasattr(self.env, "close"):
            self.env.close()


def adapted(env: Any, say: Say) -> Adapted:
    """An environment that a constructor returned, with the present interface.

    **Errors:** `Mismatch` for an object without `reset` and `step`, for several environments in
    one, and for spaces that are none.
    """
    kind = type(env).__name__
    if hasattr(env, "single_observation_space"):
        raise Mismatch(
            f"An environment must be a single one; got several at once, {kind}. Give the one "
            "that it is made of: copies of it are made here."
        )
    if not isinstance(env, gymnasium.Env):
        for name in ("reset", "step", "observation_space", "action_space"):
            if not hasattr(env, name):
                raise Mismatch(f"An environment must have `{name}`; {kind} does not.")
        env = Foreign(env)
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, spaces.Space):
            raise Mismatch(
                f"`{name}` must be a space of Gymnasium; that of {kind} is a "
                f"{type(space).__name__}. Set it in the constructor, or wrap one agent of several "
                "in an environment of its own."
            )
    return Adapted(env, say)


def translated(space: Any) -> Any:
    """A space of the old package gym as a Gymnasium space; anything else unchanged."""
    return space if isinstance(space, spaces.Space) else made_anew(space)


def made_anew(space: Any) -> Any:
    """A space with the present numbers of another, of gym or Gymnasium; any other unchanged.

    An environment may change its space in place, and a `Box` shows the bounds it was made with.
    """
    kind = type(space).__name__
    if kind == "Box":
        return spaces.Box(space.low.copy(), space.high.copy(), space.shape, space.dtype)
    if kind == "Discrete":
        return spaces.Discrete(int(space.n), start=int(getattr(space, "start", 0)))
    if kind == "MultiDiscrete":
        start = getattr(space, "start", None)
        return spaces.MultiDiscrete(space.nvec.copy(), space.dtype, start=start)
    if kind == "MultiBinary":
        return spaces.MultiBinary(space.n)
    if kind == "Tuple":
        return spaces.Tuple([made_anew(one) for one in space.spaces])
    if kind == "Dict":
        return spaces.Dict({name: made_anew(one) for name, one in space.spaces.items()})
    return space


def _takes(function: Callable, name: str) -> bool:
    """Whether a function can be called with an argument of that name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of C, without a signature: the interface is assumed
        return True
    return name in parameters or any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()
    )
