"""The DeepMind Control Suite, as `dm_control/DOMAIN-TASK-v0`.

`--env-option show=image` (the default) shows an image of the scene, `show=vectors` positions and
velocities by their names, `show=both` both. Dreamer's own setting repeats actions twice:
`--repeat 2`. It renders with EGL unless MUJOCO_GL is set; `MUJOCO_GL=osmesa` needs no driver.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from thinkslow.envs.families.family import Family, chosen, register

SHOWS = ("image", "vectors", "both")


class Control(gymnasium.Env):
    """A task of the suite."""

    def __init__(
        self, domain: str, task: str, *, size: int = 64, camera: int = 0, show: str = "image"
    ):
        chosen(show=(show, SHOWS))
        suite = _suite()
        self.suite: Any = suite.load(domain, task)
        self.size, self.camera, self.show = size, camera, show
        found: dict[str, spaces.Space] = {}
        if show != "vectors":
            found["image"] = spaces.Box(0, 255, (size, size, 3), np.uint8)
        if show != "image":
            for name, spec in self.suite.observation_spec().items():
                found[name] = spaces.Box(-np.inf, np.inf, spec.shape, np.float32)
        self.observation_space = spaces.Dict(found)
        spec = self.suite.action_spec()
        self.action_space = spaces.Box(
            spec.minimum.astype(np.float32), spec.maximum.astype(np.float32), dtype=np.float32
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        # The suite accepts a seed when a task is loaded, and keeps its generator here.
        if seed is not None:
            self.suite.task._random = np.random.RandomState(self.np_random.integers(2**31))
        return self._see(self.suite.reset()), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        moment = self.suite.step(action)
        over = moment.last()
        terminated = bool(over and moment.discount == 0)
        return self._see(moment), float(moment.reward or 0), terminated, over and not terminated, {}

    def close(self) -> None:
        self.suite.close()

    def _see(self, moment: Any) -> dict[str, Any]:
        seen = {} if self.show == "image" else dict(moment.observation)
        if self.show != "vectors":
            seen["image"] = self.suite.physics.render(self.size, self.size, camera_id=self.camera)
        return seen


def _suite() -> Any:
    from dm_control import suite  # pyright: ignore[reportMissingImports]

    return suite


def _register() -> None:
    for domain, task in _suite().ALL_TASKS:
        register(f"dm_control/{domain}-{task}-v0", f"{__name__}:Control", domain=domain, task=task)


def _import() -> None:
    _suite()
    _register()


FAMILY = Family(
    "DeepMind Control",
    "dm_control/",
    "dm_control",
    "dm_control mujoco<4",
    "dm_control/cartpole-swingup-v0",
    extra="dm-control",
    draws="mujoco",
    arguments=lambda size: {"size": size},
    registers=_import,
)
