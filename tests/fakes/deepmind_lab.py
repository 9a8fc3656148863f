"""Stands in for the engine that nobody can install from a package: its interface, strictly.

Specs, shapes, types, call order and errors are those of google-deepmind/lab, `docs/users` and
`python/dmlab_module.c`; what is undefined there is an error here. The worlds are of no interest:
walking forward for `GOAL` frames pays 1 and ends the episode, and so does the clock.
"""

from typing import Any

import numpy as np

CLOSED, UNINITIALIZED, RUNNING, OVER = range(4)
ACTIONS = (
    ("LOOK_LEFT_RIGHT_PIXELS_PER_FRAME", -512, 512),
    ("LOOK_DOWN_UP_PIXELS_PER_FRAME", -512, 512),
    ("STRAFE_LEFT_RIGHT", -1, 1),
    ("MOVE_BACK_FORWARD", -1, 1),
    ("FIRE", 0, 1),
    ("JUMP", 0, 1),
    ("CROUCH", 0, 1),
)
LEVELS = {
    "contributed/dmlab30/rooms_collect_good_objects_train",
    "contributed/dmlab30/rooms_watermaze",
    "contributed/dmlab30/language_select_described_object",
    "tests/empty_room_test",
    "tests/old_build",
}
GOAL = 40
LENGTH = 120
"""Frames at 60 a second."""


class Lab:
    """`deepmind_lab.Lab`."""

    def __init__(
        self,
        level: str,
        observations: list[str],
        config: dict[str, str] | None = None,
        renderer: str = "software",
        level_cache: Any = None,
    ):
        if type(level) is not str:
            raise TypeError(f"argument 1 must be str, not {type(level).__name__}")
        if type(observations) is not list:
            raise TypeError(f"argument 2 must be list, not {type(observations).__name__}")
        config = {} if config is None else config
        if type(config) is not dict:
            raise TypeError(f"argument 3 must be dict, not {type(config).__name__}")
        self.status = CLOSED
        if renderer not in ("", "hardware", "software"):
            raise RuntimeError(
                f'Failed to set renderer must be "hardware" or "software" actual "{renderer}"!'
            )
        self.cache = level_cache
        if level not in LEVELS:
            raise RuntimeError(f"Invalid levelName flag '{level}' - \"no such level\"")
        for name, value in config.items():
            if type(name) is not str or type(value) is not str:
                raise TypeError("bad argument type for built-in operation")
        self.level, self.config = level, {"width": "320", "height": "240", "fps": "60"} | config
        self.width, self.height = int(self.config["width"]), int(self.config["height"])
        if self.config.get("hasAltCameras", "true") not in ("true", "false"):
            raise RuntimeError("Failed to apply setting 'hasAltCameras' - \"not a boolean\"")
        known = [spec["name"] for spec in self._specs()]
        for name in observations:
            if name not in known:
                raise ValueError(f"Unknown observation '{name}'.")
        self.names, self.episode, self.frames = list(observations), 0, 0
        self.status = UNINITIALIZED

    def reset(self, episode: int = -1, seed: Any = None) -> bool:
        self._open()
        if not isinstance(episode, int):
            raise TypeError("an integer is required")
        if episode >= 0:
            self.episode = episode
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        if not isinstance(seed, int):
            raise ValueError(f"'seed' must be int or None, was '{type(seed).__name__}'.")
        assert -(2**31) <= seed < 2**31, "does not fit a C int"
        if self.cache is not None:
            self._compile(f"{self.level}/{seed}")
        self.rng = np.random.default_rng([seed & 0xFFFFFFFF, self.episode])
        self.start = self.rng.integers(256)
        self.frames, self.walked, self.turned = 0, 0, 0
        self.episode += 1
        self.status = RUNNING
        return True

    def step(self, action: Any, num_steps: int = 1) -> float:
        if type(action) is not np.ndarray:
            raise TypeError(f"argument 1 must be numpy.ndarray, not {type(action).__name__}")
        if not isinstance(num_steps, int):
            raise TypeError("an integer is required")
        if self.status != RUNNING:
            raise RuntimeError("Environment in wrong status to advance.")
        if action.shape != (len(ACTIONS),):
            raise ValueError(f"action must have shape ({len(ACTIONS)})")
        if action.dtype != np.intc:
            raise ValueError("action must have dtype np.intc")
        for value, (name, low, high) in zip(action, ACTIONS, strict=True):
            assert low <= value <= high, f"{name} {value}: undefined"
        reward, each = 0.0, 60 / int(self.config["fps"])
        for _ in range(num_steps):
            self.frames += 1
            self.walked += int(action[3])
            self.turned += int(action[0])
            if self.walked == GOAL:
                reward += 1.0
            if self.walked == GOAL or self.frames * each >= LENGTH:
                self.status = OVER
                break
        return reward

    def observations(self) -> dict[str, Any]:
        if self.status != RUNNING:
            raise RuntimeError("Environment in wrong status for call to observations()")
        specs = {spec["name"]: spec for spec in self._specs()}
        return {name: self._seen(specs[name]) for name in self.names}

    def observation_spec(self) -> list[dict[str, Any]]:
        self._open()
        return self._specs()

    def action_spec(self) -> list[dict[str, Any]]:
        self._open()
        return [{"min": low, "max": high, "name": name} for name, low, high in ACTIONS]

    def events(self) -> list[Any]:
        if self.status not in (RUNNING, OVER):
            raise RuntimeError("Environment in wrong status for call to events()")
        return []

    def num_steps(self) -> int:
        self._open()
        return self.frames

    def fps(self) -> int:
        self._open()
        return int(self.config["fps"])

    def is_running(self) -> bool:
        return self.status == RUNNING

    def close(self) -> bool:
        was, self.status = self.status, CLOSED
        return was != CLOSED

    def _open(self) -> None:
        assert self.status != CLOSED, "only is_running may be called when it is closed"

    def _specs(self) -> list[dict[str, Any]]:
        height, width = self.height, self.width
        old = self.level == "tests/old_build"
        found: list[tuple[str, Any, tuple[int, ...]]] = [
            ("RGB_INTERLEAVED", np.uint8, (height, width, 3))
        ]
        if old:
            found.append(("DEBUG.CAMERA.TOP_DOWN", np.uint8, (3, height, width)))
        else:
            found.append(("DEBUG.CAMERA_INTERLEAVED.TOP_DOWN", np.uint8, (height, width, 3)))
            found.append(("FRAMES_REMAINING_AT_60", np.float64, (1,)))
        if "language" in self.level:
            found.append(("INSTR", str, ()))
        return [{"name": name, "dtype": kind, "shape": shape} for name, kind, shape in found]

    def _seen(self, spec: dict[str, Any]) -> Any:
        if spec["name"] == "INSTR":
            return "pick the red ball"
        if spec["name"] == "FRAMES_REMAINING_AT_60":
            return np.array([LENGTH - self.frames * 60 / int(self.config["fps"])])
        state = (int(self.start) + 3 * self.walked + self.turned) % 256
        return np.full(spec["shape"], state, np.uint8)

    def _compile(self, key: str) -> None:
        import tempfile

        with tempfile.NamedTemporaryFile(suffix=".pk3") as file:
            if not self.cache.fetch(key, file.name):
                file.write(b"a map")
                file.flush()
                self.cache.write(key, file.name)
            elif file.read() != b"a map":
                raise RuntimeError('Failed to start environment - "damaged map"')
