"""Memory Maze: a first-person 3D maze in which coloured objects must be found again.

`--env-option view=top` shows the same maze from above, a twin of the task: the same level for a
seed. Each episode makes a new environment from its seed, which takes a second or two: the package
carries its random numbers over to the next episode. `--env-option good_visibility=true`
and the package's other arguments are passed on. It renders with EGL unless MUJOCO_GL is set.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from thinkslow.envs.families.family import Family, chosen, register

MAZES = ("9x9", "11x11", "13x13", "15x15")
VIEWS = ("first", "top")
SIDE = 64
"""Pixels at which it is rendered; smaller images of it have only one colour."""


class MemoryMaze(gymnasium.Env):
    """A maze of one size, in the first person or from above, with the package's actions."""

    def __init__(self, maze: str, *, view: str = "first", **given: Any):
        chosen(view=(view, VIEWS))
        self.make = getattr(_tasks(), f"memory_maze_{maze}")
        self.given = {
            "image_only_obs": True,
            "camera_resolution": SIDE,
            "top_camera": view == "top",
            **given,
        }
        self.game: Any = None
        self.observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        self.action_space = spaces.Discrete(6)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.close()
        self.game = self.make(seed=int(self.np_random.integers(2**31)), **self.given)
        return self.game.reset().observation, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        moment = self.game.step(int(action))
        terminated = bool(moment.last() and moment.discount == 0)
        truncated = bool(moment.last() and not terminated)
        return moment.observation, float(moment.reward or 0), terminated, truncated, {}

    def close(self) -> None:
        if self.game is not None:
            self.game.close()
            self.game = None


def _tasks() -> Any:
    from memory_maze import tasks  # pyright: ignore[reportMissingImports]

    return tasks


def _register() -> None:
    _tasks()
    for maze in MAZES:
        register(f"MemoryMaze-{maze}-v0", f"{__name__}:MemoryMaze", maze=maze)


FAMILY = Family(
    "Memory Maze",
    "MemoryMaze-",
    "memory_maze",
    "memory-maze gym mujoco<4",
    "MemoryMaze-9x9-v0",
    extra="memory-maze",
    draws="mujoco",
    registers=_register,
    twins=("view", "first", "top"),
)
