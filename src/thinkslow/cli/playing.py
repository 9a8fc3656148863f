"""Options of all commands that play: the environment, its arguments, its time limits."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import tyro

from thinkslow.cli.common import Common, Usage

PYTHON = {"True": True, "False": False, "None": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making(Common):
    """Options that say how an environment is made."""

    GROUP: ClassVar = "environment"

    env_option: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")
    ] = ()
    """Pass this argument to the constructor of the environment. Repeat the flag for more."""
    wrapper: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MODULE:CLASS")
    ] = ()
    """Wrap the environment in this Gymnasium wrapper. Repeat the flag for more, the innermost
    first."""
    image: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY")] = ()
    """Read this observation as an image, if it is not recognised as one. Repeat the flag for
    more."""
    shift: Annotated[str, tyro.conf.arg(metavar="NAME:SEVERITY,...")] = ""
    """Disturb the environment, with severity 0 to 5: noise, occlusion, dropped, dropped-bursts
    (each also -silent), delayed, delayed-random, brightness, contrast, colour, blur, textures,
    rooms, sticky."""

    def making(self) -> dict[str, Any]:
        """The arguments of `envs.make` that the flags give.

        **Errors:** `Usage` for an option without a name, a wrapper that is not MODULE:CLASS, or
        an unknown shift.
        """
        for text in self.wrapper:
            if not all(text.partition(":")):
                raise Usage(f"--wrapper must be MODULE:CLASS; got {text!r}.")
        if self.shift:
            from thinkslow.envs.shifts import kinds

            try:
                kinds(self.shift)
            except ValueError as error:
                raise Usage(str(error)) from None
        given = {
            "options": options(self.env_option), "wrappers": list(self.wrapper),
            "image": list(self.image), "shift": self.shift,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Playing(Making):
    """Options that also limit the time of steps and resets."""

    GROUP: ClassVar = "environment"

    step_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 60.0
    """Restart an environment whose step takes longer than this."""
    reset_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 300.0
    """Restart an environment whose reset or start takes longer than this."""

    def limits(self) -> dict[str, float]:
        """The limits as `VectorEnv` takes them.

        **Errors:** `Usage` for a limit that is not above 0.
        """
        for name in ("step_limit", "reset_limit"):
            if not getattr(self, name) > 0:
                flag = name.replace("_", "-")
                raise Usage(f"--{flag} must be above 0; got {getattr(self, name)}.")
        return {"step_limit_s": self.step_limit, "reset_limit_s": self.reset_limit}


def options(given: tuple[str, ...]) -> Mapping[str, Any]:
    """Arguments by name. A value is read as JSON, as True, False or None of Python, or as text.

    **Errors:** `Usage` for a text that is not NAME=VALUE, or for a name that is given twice.

    >>> options(("level=3", "mode=hard", "sticky=false", "fog=False"))
    {'level': 3, 'mode': 'hard', 'sticky': False, 'fog': False}
    """
    out = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise Usage(f"--env-option must be NAME=VALUE; got {text!r}.")
        if name in out:
            raise Usage(f"--env-option {name} was given twice. Give it once.")
        out[name] = _value(value)
    return out


def _value(text: str) -> Any:
    if text in PYTHON:
        return PYTHON[text]
    try:
        return json.loads(text)
    except ValueError:
        return text
