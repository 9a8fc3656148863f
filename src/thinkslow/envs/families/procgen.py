"""Procgen by EnvPool: sixteen games with procedurally generated levels, 64 by 64 pixels, 15
actions.

`procgen/CoinrunEasy-v0`, and with `Hard`, `Extreme`, `Memory` and `Exploration` where the game has
them. Easy and Memory are not twins, because their levels differ. `--env-option num_levels=200` and
`start_level` choose levels, as EnvPool's other arguments do what they do there. EnvPool takes a
seed when it is made, so each episode with a seed makes a new one (1 ms).
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from thinkslow.envs.families.family import Family, register


class Procgen(gymnasium.Env):
    """One game."""

    def __init__(self, task: str, **given: Any):
        self.task, self.given = task, given
        self.pool: Any = self._pool(0)
        self.action_space = spaces.Discrete(int(self.pool.action_space.n))
        depth, height, width = self.pool.observation_space.shape
        self.observation_space = spaces.Box(0, 255, (height, width, depth), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.pool = self._pool(int(self.np_random.integers(2**31)))
        return self._image(self.pool.reset()[0]), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, _ = self.pool.step(np.array([action], np.int32))
        return self._image(seen), float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def _pool(self, seed: int) -> Any:
        import envpool  # pyright: ignore[reportMissingImports]

        return envpool.make_gymnasium(self.task, num_envs=1, seed=seed, **self.given)

    @staticmethod
    def _image(seen: np.ndarray) -> np.ndarray:
        return seen[0].transpose(1, 2, 0).copy()


def _register() -> None:
    from envpool.procgen import registration  # pyright: ignore[reportMissingImports]

    for game, _, kinds in registration.procgen_game_config:
        for kind in kinds:
            task = f"{game.capitalize()}{registration.distribution[kind]}-v0"
            register(f"procgen/{task}", f"{__name__}:Procgen", task=task)


FAMILY = Family(
    "Procgen",
    "procgen/",
    "envpool",
    "envpool",
    "procgen/CoinrunEasy-v0",
    extra="procgen",
    registers=_register,
    libraries={"libQt5Gui.so.5": "libqt5gui5", "libQt5Core.so.5": "libqt5core5a"},
)
