"""Crafter as a Gymnasium environment: the minimum that your own environment needs.

    pip install crafter
    PYTHONPATH=examples thinkslow evaluate LOGDIR --env crafter_env:thinkslow-example/Crafter-v0

Importing this module registers the id. An agent that danijar/dreamerv3 trained with
`--configs crafter` has its spaces: a 64x64 image, 17 actions.
"""

from typing import Any

import crafter  # pyright: ignore[reportMissingImports]
import gymnasium
import numpy as np
from gymnasium import spaces


class Crafter(gymnasium.Env):
    """Crafter's own environment, made again for each seed: only its constructor takes one."""

    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = spaces.Discrete(17)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.game = crafter.Env(seed=int(self.np_random.integers(2**31)))
        return self.game.reset(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        image, reward, done, info = self.game.step(int(action))
        died = info["discount"] == 0
        return image, float(reward), bool(done and died), bool(done and not died), {}


gymnasium.register("thinkslow-example/Crafter-v0", "crafter_env:Crafter")

if __name__ == "__main__":
    env = Crafter()
    env.reset(seed=0)
    print(f"reward of ten decisions to do nothing: {sum(env.step(0)[1] for _ in range(10)):+g}")
