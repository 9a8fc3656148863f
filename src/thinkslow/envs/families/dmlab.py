"""DeepMind Lab: first-person levels in the engine of Quake III.

There is no package of the engine. Users build `deepmind_lab`, by Google's instructions
(https://github.com/google-deepmind/lab/blob/master/docs/users/build.md) or by `dmlab-gym build`
(https://github.com/Achronus/dmlab-gym; Python 3.13). Whichever is installed plays:

- `dmlab/rooms_watermaze-v0` and the other levels of DMLab-30, and any level as
  `dmlab/level-v0 --env-option level=tests/empty_room_test`, by `deepmind_lab` itself;
- `dmlab_gym/…`, the ids that dmlab-gym registers.

The interface of `deepmind_lab` is taken from its documentation and from `python/dmlab_module.c`. It
was tested against a strict imitation, not against the engine.
"""

import hashlib
import importlib
import os
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from thinkslow.envs.families.family import Family, chosen, register

FORWARD, BACKWARD = (0, 0, 0, 1, 0, 0, 0), (0, 0, 0, -1, 0, 0, 0)
LEFT, RIGHT = (0, 0, -1, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0, 0)
FIRE = (0, 0, 0, 0, 1, 0, 0)


def _turns(*pixels: int) -> list[tuple[int, ...]]:
    return [(side * turn, 0, 0, 0, 0, 0, 0) for turn in pixels for side in (-1, 1)]


def _ahead(turns: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [(turn[0], 0, 0, 1, 0, 0, 0) for turn in turns]


ACTIONS = {
    "impala": (FORWARD, BACKWARD, LEFT, RIGHT, *_turns(20), *_ahead(_turns(20)), FIRE),
    "popart": (
        FORWARD,
        BACKWARD,
        LEFT,
        RIGHT,
        *_turns(10, 60),
        (0, 10, 0, 0, 0, 0, 0),
        (0, -10, 0, 0, 0, 0, 0),
        *_ahead(_turns(10, 60)),
        FIRE,
    ),
}
"""Actions by name, each in the engine's form: look right and down in pixels per frame, strafe
right, move forward, fire, jump, crouch. 9 actions of IMPALA (arXiv 1802.01561, and the DreamerV3 of
2023), 15 of PopArt (arXiv 1809.04474, and the present DreamerV3).
"""

VIEWS = {
    "first": ("RGB_INTERLEAVED",),
    "top": ("DEBUG.CAMERA_INTERLEAVED.TOP_DOWN", "DEBUG.CAMERA.TOP_DOWN"),
}
"""Observations to request from the engine; builds differ in the second."""
LEFT_FRAMES = "FRAMES_REMAINING_AT_60"
INSTRUCTION = "INSTR"
EPISODE = 1
"""The number of every episode. With increasing numbers, an episode would not be determined by its
seed.
"""

THIRTY = """
explore_goal_locations_large explore_goal_locations_small explore_object_locations_large
explore_object_locations_small explore_object_rewards_few explore_object_rewards_many
explore_obstructed_goals_large explore_obstructed_goals_small language_answer_quantitative_question
language_execute_random_task language_select_described_object language_select_located_object
lasertag_one_opponent_large lasertag_one_opponent_small lasertag_three_opponents_large
lasertag_three_opponents_small natlab_fixed_large_map natlab_varying_map_randomized
natlab_varying_map_regrowth psychlab_arbitrary_visuomotor_mapping psychlab_continuous_recognition
psychlab_sequential_comparison psychlab_visual_search rooms_collect_good_objects_test
rooms_collect_good_objects_train rooms_exploit_deferred_effects_test
rooms_exploit_deferred_effects_train rooms_keys_doors_puzzle rooms_select_nonmatching_object
rooms_watermaze skymaze_irreversible_path_hard skymaze_irreversible_path_varied
""".split()  # noqa: SIM905
"""Levels of DMLab-30; two have a version for training and one for tests."""


class Lab(gymnasium.Env):
    """One level.

    Args:
        level: the engine's name of a level, or a name from DMLab-30.
        size: side of the image, pixels.
        repeat: frames of a decision.
        actions: `popart` or `impala`.
        view: `first` person, or `top` for the whole level from above, which is a twin.
        episodic: whether every end is a termination, as in DreamerV3. Otherwise an end by the clock
            is a truncation, if the engine reports the remaining time.
        renderer: `software` or `hardware`.
        cache: a folder for compiled levels; without it, each level takes some seconds to compile
            again.
        settings: passed to the level, as text.

    **Errors:** `ValueError` for an unknown choice; the engine's own for an unknown level.
    """

    def __init__(
        self,
        level: str,
        *,
        size: int = 64,
        repeat: int = 4,
        actions: str = "popart",
        view: str = "first",
        episodic: bool = False,
        renderer: str = "software",
        cache: str = "",
        fps: int = 60,
        **settings: Any,
    ):
        chosen(actions=(actions, ACTIONS), view=(view, VIEWS))
        self.repeat, self.episodic = repeat, episodic
        self.frames = repeat * 60 / fps
        """Frames of a decision, of 60 per second."""
        self.acts = np.array(ACTIONS[actions], np.intc)
        given = {"width": size, "height": size, "fps": fps, "logLevel": "WARN"}
        if view == "top":
            given["hasAltCameras"] = True  # also renders what is far from the agent
        config = {name: _text(value) for name, value in (given | settings).items()}
        path = f"contributed/dmlab30/{level}" if level in THIRTY else level
        told = [INSTRUCTION] if level.startswith("language_") else []
        self.lab, self.names = _engine(
            path,
            [[name, *told, *more] for name in VIEWS[view] for more in ([LEFT_FRAMES], [])],
            config=config,
            renderer=renderer,
            level_cache=Cache(cache) if cache else None,
        )
        specs = {spec["name"]: spec for spec in self.lab.observation_spec()}
        picture = spaces.Box(0, 255, tuple(specs[self.names[0]]["shape"]), np.uint8)
        instruction = {INSTRUCTION.lower(): spaces.Text(10_000, charset=CHARACTERS)}
        self.observation_space = spaces.Dict({"image": picture, **instruction}) if told else picture
        self.told = bool(told)
        self.action_space = spaces.Discrete(len(self.acts))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.lab.reset(episode=EPISODE, seed=int(self.np_random.integers(2**31)))
        self._look()
        return self._seen(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = self.lab.step(self.acts[action], num_steps=self.repeat)
        over = not self.lab.is_running()
        timed = self.left is not None and self.left <= self.frames
        if not over:  # a finished episode shows nothing
            self._look()
        truncated = over and timed and not self.episodic
        return self._seen(), float(reward), over and not truncated, truncated, {}

    def close(self) -> None:
        self.lab.close()

    def _look(self) -> None:
        self.last = self.lab.observations()
        left = self.last.get(LEFT_FRAMES)
        self.left = None if left is None else float(np.ravel(left)[0])

    def _seen(self) -> Any:
        image = self.last[self.names[0]]
        if not self.told:
            return image
        return {"image": image, INSTRUCTION.lower(): self.last[INSTRUCTION]}


class Cache:
    """Stores compiled levels in a folder, for the engine; several processes may share it."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def fetch(self, key: str, pk3_path: str) -> bool:
        try:
            shutil.copyfile(self._path(key), pk3_path)
        except FileNotFoundError:
            return False
        return True

    def write(self, key: str, pk3_path: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{os.getpid()}.part"
        shutil.copyfile(pk3_path, part)
        part.replace(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.pk3"


class Chosen(gymnasium.ActionWrapper):
    """A level of dmlab-gym, with one of the two action sets."""

    def __init__(self, env: gymnasium.Env, actions: str):
        super().__init__(env)
        self.acts = np.array(ACTIONS[actions], np.intc)
        self.action_space = spaces.Discrete(len(self.acts))

    def action(self, action: int) -> np.ndarray:
        return self.acts[action]


CHARACTERS = "".join(map(chr, range(32, 127)))


def _engine(path: str, wanted: list[list[str]], **given: Any) -> tuple[Any, list[str]]:
    """The engine with the first of these lists of observations that it supports completely.

    It checks them only when it is made, and raises `ValueError`.
    """
    deepmind_lab = importlib.import_module("deepmind_lab")  # not from a package
    for names in wanted[:-1]:
        try:
            return deepmind_lab.Lab(path, names, **given), names
        except ValueError as error:
            if "Unknown observation" not in str(error):
                raise
    return deepmind_lab.Lab(path, wanted[-1], **given), wanted[-1]


def _text(value: Any) -> str:
    """A setting in the engine's form."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _dressed(env: gymnasium.Env, size: int, *, actions: str) -> gymnasium.Env:
    """**Errors:** `ValueError` for an unknown set of actions."""
    chosen(actions=(actions, ACTIONS))
    return Chosen(env, actions)


def _register() -> None:
    for level in THIRTY:
        register(f"dmlab/{level}-v0", f"{__name__}:Lab", level=level)
    register("dmlab/level-v0", f"{__name__}:Lab")


BUILD = (
    "; then build the engine: dmlab-gym build (Python 3.13, with Docker or Podman), or as "
    "https://github.com/google-deepmind/lab/blob/master/docs/users/build.md says"
)
FAMILY = Family(
    "DeepMind Lab",
    "dmlab/",
    "deepmind_lab",
    "dmlab-gym",
    "dmlab/rooms_collect_good_objects_train-v0",
    extra="dmlab",
    then=BUILD,
    arguments=lambda size: {"size": size},
    registers=_register,
    repeats="repeat",
    repeats_itself=True,
    twins=("view", "first", "top"),
)
GYM = Family(
    "DeepMind Lab by dmlab-gym",
    "dmlab_gym/",
    "dmlab_gym",
    "dmlab-gym",
    "dmlab_gym/rooms_collect_good_objects_train-v0",
    extra="dmlab",
    then=BUILD,
    needs=("deepmind_lab",),
    arguments=lambda size: {"width": size, "height": size},
    options={"actions": "popart"},
    dress=_dressed,
)
