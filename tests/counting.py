"""A small environment for tests: a picture of how far the count is, three actions.

Registered under `counting:thinkslow-test/Counting-v0`: Gymnasium imports this module itself,
also in the processes of a `VectorEnv`, given its folder on PYTHONPATH.
"""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 9


class Counting(gymnasium.Env):
    """Action 2 counts on and is rewarded; the picture shows the count and some noise."""

    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = self.count = 0
        return self._see(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.count += action == 2
        done = self.time >= LENGTH
        return self._see(), float(action == 2), done and self.count > 4, done, {}

    def _see(self) -> Any:
        image = self.np_random.integers(0, 64, (16, 16, 3)).astype(np.uint8)
        image[: self.count + 1] = 200
        return image


class Names(Counting):
    """Calls what it shows like everything that a run keeps besides: each is a constant of its own.

    Also of the same width as that: three actions, one reward.
    """

    CALLED = ("action", "reward", "is_first", "is_last", "deter", "stoch", "value", "policy", "rew")
    observation_space = spaces.Dict(
        {name: spaces.Box(-100, 100, (3,), np.float32) for name in CALLED}
    )

    def _see(self) -> Any:
        return {name: np.full(3, 7 + i, np.float32) for i, name in enumerate(self.CALLED)}


class Faulty(Counting):
    """Its vector, or its reward, is non-finite at the third step of each second episode."""

    observation_space = spaces.Dict({"speed": spaces.Box(-1, 1, (3,), np.float32)})
    episode = 0

    def reset(self, **options) -> tuple[Any, dict[str, Any]]:
        self.episode += 1
        return super().reset(**options)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, ends, stops, facts = super().step(action)
        if self.time == 3 and self.episode % 2 == 0:
            what = os.environ["FAULT"]
            if what == "reward":
                reward = float("nan")
            else:
                seen["speed"][1:] = float(what)
        return seen, reward, ends, stops, facts

    def _see(self) -> Any:
        return {"speed": self.np_random.uniform(-1, 1, 3).astype(np.float32)}


class Changing(Counting):
    """Shows and takes what the process's surroundings say."""

    def __init__(self):
        self.action_space = spaces.Discrete(int(os.environ.get("ACTIONS", "3")))
        self.width = int(os.environ.get("WIDTH", "2"))
        speed = spaces.Box(-1, 1, (self.width,), np.float32)
        self.observation_space = spaces.Dict({"speed": speed})

    def _see(self) -> Any:
        return {"speed": np.zeros(self.width, np.float32)}


class Unseeded(Counting):
    """Ignores its seed."""

    def _see(self) -> Any:
        return np.frombuffer(os.urandom(16 * 16 * 3), np.uint8).reshape(16, 16, 3)


for kind in (Names, Faulty, Changing, Unseeded):
    gymnasium.register(
        f"thinkslow-test/{kind.__name__}-v0",
        f"{__name__}:{kind.__name__}",
        disable_env_checker=True,
    )
gymnasium.register(
    "thinkslow-test/Counting-v0", f"{__name__}:{Counting.__name__}", disable_env_checker=True
)
