"""Options of all commands that play: the environment, its arguments, its time limits."""

import ast
import contextlib
import dataclasses
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from thinkslow.cli.common import Common, Opening
from thinkslow.cli.usage import Usage
from thinkslow.settings import setting

if TYPE_CHECKING:
    from thinkslow.saved.environment import Trained

PYTHON = {"True": True, "False": False, "None": None}
THOUSANDS = re.compile(r"[+-]?\d{1,3}(_\d{3})+")
"""A number with an underscore after every three digits."""


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
    """Disturb the environment, with severity 0 to 5: noise, occlusion, occlusion-coloured, dropped,
    dropped-bursts (both also -silent), dropped-bursts-silent-coloured, dropped-bursts-silent-noise,
    delayed, delayed-random, brightness, contrast, colour, blur, textures, rooms, sticky."""

    def check(self) -> None:
        """**Errors:** those of `making`."""
        super().check()
        self.making()

    def making(self) -> dict[str, Any]:
        """The arguments of `envs.make` that the flags give.

        **Errors:** `Usage` for an option without a name, or a wrapper that is not MODULE:CLASS;
        `ValueError` for an unknown shift.
        """
        for text in self.wrapper:
            if not all(text.partition(":")):
                raise Usage(f"--wrapper must be MODULE:CLASS; got {text!r}.")
        if self.shift:
            from thinkslow.envs.shifts import kinds

            kinds(self.shift)
        given = {
            "options": options(self.env_option),
            "wrappers": list(self.wrapper),
            "image": list(self.image),
            "shift": self.shift,
        }
        return {name: value for name, value in given.items() if value}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Playing(Making):
    """Options that also limit the time of steps and resets."""

    GROUP: ClassVar = "environment"

    step_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = setting(60.0, above=0)
    """Restart an environment whose step takes longer than this."""
    reset_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = setting(300.0, above=0)
    """Restart an environment whose reset or start takes longer than this."""

    def limits(self) -> dict[str, float]:
        """The limits as `VectorEnv` takes them."""
        return {"step_limit_s": self.step_limit, "reset_limit_s": self.reset_limit}

    @contextlib.contextmanager
    def cause_first(self, environment: Mapping[str, Any]) -> Iterator[None]:
        """If the body refuses a folder because it holds something else, make the environment once.
        If it cannot be made, as with a misspelt option, this is the cause.

        Args:
            environment: the arguments of `envs.make`.

        **Errors:** those of the environment, before those of the body.
        """
        from thinkslow.storage.headers import Occupied

        try:
            yield
        except (Occupied, FileExistsError):
            from thinkslow.envs import VectorEnv, arguments

            making: dict[str, Any] = {**arguments(environment), **self.limits()}
            with VectorEnv(**making, count=1):
                pass
            raise


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlayingAgents(Opening, Playing):
    """Options of every command in which stored agents play."""

    GROUP: ClassVar = "environment"

    env: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Play this environment; by default the one that the agent was trained on."""

    def environment(self, saved: Sequence["Trained"]) -> dict[str, Any]:
        """The environment that these agents will play, as `envs.make` takes it.

        **Errors:** `Usage` if their environments differ or none is known; those of
        `environment_of`.
        """
        from thinkslow.envs.requirements import closest
        from thinkslow.saved.environment import environment_of

        first, *others = saved
        for one in others:
            if self.env is None and one.environment != first.environment:
                raise Usage(
                    f"{first.name} was trained on {first.environment} and {one.name} on "
                    f"{one.environment}. Pass --env, or give them one by one."
                )
        found = environment_of(first, self.env, self.making())
        if found["id"] is None:
            task = first.environment.get("task")
            near = closest(task) if task else []
            raise Usage(
                f"{first.name} does not say which environment of Gymnasium it plays"
                f"{f'; its task was {task}' if task else ''}. Pass --env"
                f"{f', perhaps one of {chr(44).join(near)}' if near else ''}."
            )
        return found


def options(given: tuple[str, ...]) -> Mapping[str, Any]:
    """Arguments by name. A value is read as JSON, as a number or what stands in brackets of Python,
    or as text.

    **Errors:** `Usage` for a text that is not NAME=VALUE, or for a name that is given twice.

    >>> options(("level=3", "mode=hard", "sticky=false", "fog=False"))
    {'level': 3, 'mode': 'hard', 'sticky': False, 'fog': False}
    >>> options(("range=(.7, inf)", "maps=1,2", "most=100_000", "map=4_4"))
    {'range': [0.7, inf], 'maps': '1,2', 'most': 100000, 'map': '4_4'}
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
    for read in (json.loads, _literal):
        with contextlib.suppress(ValueError, TypeError, SyntaxError, RecursionError):
            return read(text)
    return text


class _Unbounded(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(math.inf) if node.id == "inf" else node


def _literal(text: str) -> Any:
    """A number or a list of Python, as JSON gives it back, for so the agent's files will hold it.

    **Errors:** `ValueError`, `TypeError` or `SyntaxError` for a text.
    """
    with warnings.catch_warnings(action="ignore"):  # about escapes in a path, say
        value = ast.literal_eval(_Unbounded().visit(ast.parse(text, mode="eval")))
    named = "_" in text and not THOUSANDS.fullmatch(text)  # such as 2026_11_28
    if text[0] not in "([{" and (named or not isinstance(value, int | float)):
        raise ValueError(text)
    return json.loads(json.dumps(value))
