"""ViZDoom: first-person tasks in the engine of Doom, drawn without a GPU.

The engine is a separate process that ends with its worker. With `--repeat 4` it repeats actions
itself and renders only the last frame. It writes its settings and a folder where it is started;
neither is left in the working folder.
"""

import contextlib
import os
import tempfile
from typing import Any

import gymnasium

from thinkslow.envs.families.family import Family


class Doom(gymnasium.Wrapper):
    """A task of the package that separates truncation from termination.

    The first reset starts the engine in the folder for temporary files. At an end by the clock the
    package reports both termination and truncation; it counts as a truncation unless the player
    died. After the end of an episode the package shows a black frame; the last real frame is shown
    instead.
    """

    started = False

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        if self.started:
            self.last, info = self.env.reset(**given)
        else:
            with contextlib.chdir(tempfile.gettempdir()):
                self.last, info = self.env.reset(**given)
            self.started = True
        return self.last, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.env.step(action)
        if truncated:
            game: Any = self.env.unwrapped
            terminated = bool(game.game.is_player_dead())
        if not (terminated or truncated):
            self.last = seen
        return self.last, reward, terminated, truncated and not terminated, info


def _without_settings(size: int) -> dict[str, Any]:
    return {"doom_config_path": os.devnull}


def _dressed(env: gymnasium.Env, size: int) -> gymnasium.Env:
    return Doom(env)


FAMILY = Family(
    "ViZDoom",
    "Vizdoom",
    "vizdoom.gymnasium_wrapper",
    "vizdoom",
    "VizdoomHealthGathering-v1",
    extra="vizdoom",
    arguments=_without_settings,
    dress=_dressed,
    repeats="frame_skip",
    repeats_itself=True,
    counter="frame_skip",
)
