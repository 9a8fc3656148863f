"""A small environment for tests: a picture of how far the count is, three actions.

Registered under `counting:thinkslow-test/Counting-v0`: Gymnasium imports this module itself,
also in the processes of a `VectorEnv`, given its folder on PYTHONPATH.
"""

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
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = self.count = 0
        return self._see(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.count += action == 2
        done = self.time >= LENGTH
        return self._see(), float(action == 2), done and self.count > 4, done, {}

    def _see(self) -> np.ndarray:
        image = self.np_random.integers(0, 64, (16, 16, 3)).astype(np.uint8)
        image[: self.count + 1] = 200
        return image


gymnasium.register(
    "thinkslow-test/Counting-v0", f"{__name__}:{Counting.__name__}", disable_env_checker=True
)
