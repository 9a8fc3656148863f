"""ViZDoom: first-person tasks in the engine of Doom, drawn without a GPU.

The engine is a process of its own, which is ended with the worker that started it. With
`--repeat 4` it repeats actions itself, and draws the last frame only. It writes its settings and
makes a folder where it is started: neither is left in the working folder.
"""

import contextlib
import os
import tempfile
from typing import Any

import gymnasium

from thinkslow.envs.families.family import Family


class Elsewhere(gymnasium.Wrapper):
    """Starts the engine, which the first reset does, in the folder for temporary files."""

    started = False

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        if self.started:
            return self.env.reset(**given)
        with contextlib.chdir(tempfile.gettempdir()):
            found = self.env.reset(**given)
        self.started = True
        return found


def _without_settings(size: int) -> dict[str, Any]:
    return {"doom_config_path": os.devnull}


def _elsewhere(env: gymnasium.Env, size: int) -> gymnasium.Env:
    return Elsewhere(env)


FAMILY = Family(
    "ViZDoom", "Vizdoom", "vizdoom.gymnasium_wrapper", "vizdoom", "VizdoomHealthGathering-v1",
    extra="vizdoom", arguments=_without_settings, dress=_elsewhere,
    repeats="frame_skip", repeats_itself=True,
)  # fmt: skip
