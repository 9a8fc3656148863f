"""What the commands that play share: which environment, how it is made, how long it may take."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import tyro

from thinkslow.cli.common import Common, Usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making(Common):
    """How an environment is made: options of every command that plays one."""

    env_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An argument of the environment's constructor, NAME=VALUE; again for more."""
    wrapper: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A Gymnasium wrapper around the environment, module:Class; again for more, inside out."""
    image: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An observation to read as an image that is not recognised as one."""
    shift: str = ""
    """What differs from training: NAME:SEVERITY with 0 to 5, several joined by commas, of noise,
    occlusion, dropped, dropped-bursts (each also -silent), delayed, delayed-random, brightness,
    contrast, colour, blur, textures, rooms, sticky."""

    def making(self) -> dict[str, Any]:
        """What the flags add to the description of an environment.

        **Errors:** `Usage` for an option without a name.
        """
        given = {
            "options": options(self.env_option), "wrappers": list(self.wrapper),
            "image": list(self.image), "shift": self.shift,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Playing(Making):
    """The same, and how long it may take."""

    step_limit: float = 60.0
    """Seconds that one step of an environment may take."""
    reset_limit: float = 300.0
    """Seconds that one reset of an environment may take, or making it."""

    def limits(self) -> dict[str, float]:
        """The limits as `VectorEnv` takes them.

        **Errors:** `Usage` for a limit of no time.
        """
        for name in ("step_limit", "reset_limit"):
            if not getattr(self, name) > 0:
                flag = name.replace("_", "-")
                raise Usage(f"--{flag} must be above 0; got {getattr(self, name)}.")
        return {"step_limit_s": self.step_limit, "reset_limit_s": self.reset_limit}


def options(given: tuple[str, ...]) -> Mapping[str, Any]:
    """Arguments by name; a value is read as JSON where it is JSON, and is a text otherwise.

    **Errors:** `Usage` for what is not NAME=VALUE.

    >>> options(("level=3", "mode=hard", "sticky=false"))
    {'level': 3, 'mode': 'hard', 'sticky': False}
    """
    out = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise Usage(f"--env-option must be NAME=VALUE; got {text!r}.")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out
