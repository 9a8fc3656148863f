"""Environments whose episodes end, fail or begin in ways that a careful evaluation must see.

Reached as `odd_episodes:odd-test/NAME-v0`, also from the processes of a `VectorEnv`.
"""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIZE = 16


class Lengths(gymnasium.Env):
    """An image of noise; episodes of 3, 9 or 23 decisions, as the seed has it."""

    observation_space: spaces.Space = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = spaces.Discrete(3)
    lengths: tuple[int, ...] = (3, 9, 23)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed_, self.time = seed or 0, 0
        self.length = self.lengths[self.seed_ % len(self.lengths)]
        return self.see(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.see(), self.reward(action), False, self.time >= self.length, {}

    def see(self) -> Any:
        return self.np_random.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)

    def reward(self, action: int) -> float:
        return float(action)


class Vector(Lengths):
    """Two numbers in place of the image, and always nine decisions."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    lengths = (9,)

    def see(self) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


class LineEnd(Vector):
    """The same numbers under a name of two lines."""

    observation_space = spaces.Dict({"a\nb": Vector.observation_space})

    def see(self) -> Any:
        return {"a\nb": super().see()}


class Drawn(Vector):
    """The same, with a picture for people, twice as wide as high."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((30, 60, 3), 10 * self.time, np.uint8)


class Unseeded(Vector):
    """Begins anyhow, whatever the seed."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        self._np_random = np.random.default_rng()
        return self.see(), {}


class Averages(Vector):
    """Shows numbers as its average of all so far leaves them, as wrappers that normalise do."""

    count, mean = 0, 0.0

    def see(self) -> Any:
        shown, self.count = super().see(), self.count + 1
        self.mean += (shown - self.mean) / self.count
        return shown - self.mean


class Fades(Averages):
    """The same, but the first observation tells nothing."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return np.zeros(2, np.float32), {}


class Reaches(Vector):
    """Pays as far as it may reach."""

    def __init__(self, reach: float = 1.0):
        self.reach = reach

    def reward(self, action: int) -> float:
        return min(self.reach, 5.0)


class FailsOnce(Vector):
    """Raises in one episode of three."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.seed_ % 3 == 0 and self.time == 4:
            raise LookupError("the door is gone")
        return super().step(action)


class Fails(Vector):
    """Raises in every episode, after some decisions."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.time == 4:
            raise LookupError("the door is gone")
        return super().step(action)


class NanReward(Vector):
    """One reward is NaN, in one episode of three."""

    def reward(self, action: int) -> float:
        return float("nan") if self.seed_ % 3 == 0 and self.time == 5 else float(action)


class Warms(Vector):
    """Pays more with every episode that it has begun."""

    begun = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.begun += 1
        return super().reset(**options)

    def reward(self, action: int) -> float:
        return float(self.begun)


class Dices(Vector):
    """Pays by chance, whatever its seed."""

    chance = np.random.default_rng()

    def reward(self, action: int) -> float:
        return float(self.chance.random())


class Tiny(Vector):
    """Rewards of 1e-8."""

    def reward(self, action: int) -> float:
        return 1e-8 * (action + 1)


class Endless(Vector):
    lengths = (10**9,)


class Cameras(Lengths):
    """Two images, neither of them called image."""

    observation_space = spaces.Dict(
        left=spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
        right=spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
    )

    def see(self) -> Any:
        return {"left": super().see(), "right": super().see()}


class Pixels(Lengths):
    """The same image as of `Lengths`, called pixels."""

    observation_space = spaces.Dict(pixels=Lengths.observation_space)

    def see(self) -> Any:
        return {"pixels": super().see()}


for _class in (
    Lengths,
    Vector,
    Unseeded,
    Dices,
    Averages,
    Fades,
    Reaches,
    FailsOnce,
    Fails,
    NanReward,
    Warms,
    Tiny,
    Endless,
    Cameras,
    Pixels,
    LineEnd,
):
    gymnasium.register(f"odd-test/{_class.__name__}-v0", f"odd_episodes:{_class.__name__}")


def id_of(name: str) -> str:
    return f"odd_episodes:odd-test/{name}-v0"


def importable() -> str:
    """PYTHONPATH under which environment processes find this module."""
    here = os.path.dirname(__file__)
    return os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])


class Everything(Lengths):
    """Two images, grey and coloured, a vector and a class; it steers and shifts gears."""

    observation_space = spaces.Dict(
        front=spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8),
        map=spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
        speed=spaces.Box(-9, 9, (30,), np.float32),
        lamp=spaces.Discrete(3),
    )
    action_space = spaces.Dict(gear=spaces.Discrete(4), steer=spaces.Box(-1, 1, (2,), np.float32))
    lengths = (7,)

    def see(self) -> Any:
        return {
            "front": self.np_random.integers(0, 256, (SIZE, SIZE, 1)).astype(np.uint8),
            "map": super().see(),
            "speed": self.np_random.normal(size=30).astype(np.float32),
            "lamp": int(self.np_random.integers(3)),
        }

    def reward(self, action: Any) -> float:
        return float(action["gear"])
