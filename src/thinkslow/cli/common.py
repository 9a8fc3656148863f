"""Options, console and errors that all commands share."""

import dataclasses
import io
import logging
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import tyro

from thinkslow import settings
from thinkslow.cli import parsing
from thinkslow.cli.modules import load_modules
from thinkslow.cli.usage import Usage
from thinkslow.cli.wording import InFlags, in_flags
from thinkslow.registry import entries, find, nearest
from thinkslow.zoo import located

if TYPE_CHECKING:
    from rich.console import Console

    from thinkslow.saved.folder import Saved

Options = TypeVar("Options", bound="Common")
Part = TypeVar("Part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command."""

    GROUP: ClassVar = "output"

    json: bool = False
    """Print one JSON object on standard output and nothing else."""
    debug: bool = False
    """Print the traceback of an error."""

    def check(self) -> None:
        """Check the options together, before anything is loaded.

        **Errors:** `ValueError` for impossible or contradicting options.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opening(Common):
    """Options of every command that takes an agent, ours or another project's."""

    GROUP: ClassVar = "agent"

    format: Annotated[str, tyro.conf.arg(metavar="PROJECT")] = "auto"
    """Read a checkpoint of this project: dreamerv3, dreamerv3-v1, dreamerv3-torch, r2dreamer,
    sheeprl, sheeprl-3.5, or one that you registered. `auto` recognises the project."""
    classes: int | None = None
    """Read a latent with N classes, if the checkpoint has no configuration."""
    vectors: Annotated[str | None, tyro.conf.arg(metavar="A,B,...")] = None
    """Read the vector observations in this order, if the checkpoint does not store it."""
    allow_nonfinite: bool = False
    """Accept weights that are NaN or infinite."""
    imports: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="import", metavar="MODULE")
    ] = ()
    """Import this module or .py file first. It registers your terms, updates, readouts, gates,
    arms or agents. Repeat the flag for more."""

    def locate(self) -> None:
        """Find the agents on the command line, which tells a wrong name before JAX is imported.

        **Errors:** `FileNotFoundError` for a path or a name that there is not.
        """
        for name in ("agent", "agents", "source"):
            given = getattr(self, name, ())
            for one in given if isinstance(given, tuple) else (given,):
                located(one)

    def open(self, path: Path) -> "Saved":
        """The agent at a path. A description of another project's checkpoint is printed on standard
        error.

        **Errors:** those of `importers.open_agent`.
        """
        from thinkslow import importers
        from thinkslow.loading import opened

        vectors = self.vectors and tuple(name.strip() for name in self.vectors.split(","))
        path = located(path)
        saved = opened(
            path,
            format=self.format,
            classes=self.classes,
            vectors=vectors or None,
            allow_nonfinite=self.allow_nonfinite,
        )
        if "source" in saved.manifest and not importers.is_own(path):
            for line in importers.told(saved):
                say(line)
        return saved


def parse(
    options: type[Options],
    name: str,
    description: str,
    arguments: Sequence[str],
    default: Options | None = None,
) -> Options:
    """Options from the command line; the modules of `--import` are imported.

    **Errors:** `Usage` for values that the options refuse; `SystemExit` from the parser.
    """
    try:
        with parsing.READING, _unmarked():
            given = tyro.cli(
                parsing.grouped(options, default),
                prog=f"thinkslow {name}",
                description=_paragraphs(description),
                args=list(arguments),
            )
        found = options(**parsing.values(given))
        _refuse_nan(found)
        settings.check(found)
        load_modules(getattr(found, "imports", ()))
        found.check()
        project = found.format if isinstance(found, Opening) else "auto"
        if project != "auto" and find("importer", project) is None:
            known = ("auto", *entries("importer"))
            raise Usage(f"There is no format {project!r}{nearest(project, known)}")
        return found
    except ValueError as error:
        raise Usage(_as_flag(str(error), options)) from error


def beside_none(arms: str) -> list[str]:
    """The names in `--arms`, each once, after `none`, which all arms are compared with.

    >>> beside_none("sig-3, none,evidence")
    ['none', 'sig-3', 'evidence']
    """
    names = [name.strip() for name in arms.split(",") if name.strip()]
    return list(dict.fromkeys(["none", *names]))


def part(options: Any, kind: type[Part]) -> Part:
    """The options that one of their classes declares, alone."""
    names = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    return kind(**{name: getattr(options, name) for name in names})


def typed(options: Any, without: Sequence[str]) -> list[str]:
    """The flags of a command that differ from their defaults, as they would be typed.

    Args:
        options: with `imports`, which come first.
        without: names of fields that are left out, besides what only changes the output.
    """
    out = [word for name in options.imports for word in ("--import", name)]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in (*without, "json", "debug", "imports") or value == field.default:
            continue
        flag = f"--{field.name.replace('_', '-')}"
        for one in value if isinstance(value, tuple) else (value,):
            out += [flag] if one is True else [flag, str(one)]
    return out


def _as_flag(text: str, options: type) -> str:
    """The message of a value that is out of range, with the flag instead of the field."""
    found = re.match("`([a-z_]+)` must", text)
    if found is None or found[1] not in {field.name for field in dataclasses.fields(options)}:
        return text
    return f"--{found[1].replace('_', '-')}{text[found.end(1) + 1 :]}"


UNJOINED = "\u200b"
"""A space without width: tyro joins a line to the one before if it begins with a letter."""


def _paragraphs(text: str) -> str:
    """The text, wrapped to the width of a terminal. The examples keep their lines."""
    width = min(shutil.get_terminal_size().columns, 100)

    def wrapped(part: str) -> str:
        words = " ".join(part.split())
        lines = textwrap.wrap(words, width, break_on_hyphens=False, break_long_words=False)
        return f"\n{UNJOINED}".join(lines)

    return "\n\n".join(one if "\n  " in one else wrapped(one) for one in text.split("\n\n"))


@contextmanager
def _unmarked() -> Iterator[None]:
    """Leave out `UNJOINED` from help that goes to a file or a pipe."""
    if sys.stdout.isatty():
        yield
        return
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            yield
    finally:
        print(said.getvalue().replace(UNJOINED, ""), end="")


def _refuse_nan(options: Any) -> None:
    """Options made of several values check themselves.

    **Errors:** `Usage` for a NaN, which later comparisons would not find.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and math.isnan(one):
                raise Usage(f"--{field.name.replace('_', '-')} must be a number; got nan.")


def output() -> "Console":
    """Standard output: results."""
    from thinkslow.cli.plain import Plain

    return Plain()


def console() -> "Console":
    """Standard error: progress, logs, errors."""
    from thinkslow.cli.plain import Plain

    return Plain(stderr=True)


def say(text: str) -> None:
    """Print a message on standard error, with flags instead of Python arguments. Only a terminal
    breaks its lines.
    """
    console().print(in_flags(text), soft_wrap=True)


class _Printed(logging.Handler):
    """Prints a message as one line, which only a terminal breaks."""

    def __init__(self, console: "Console"):
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(self.format(record), soft_wrap=True)


@contextmanager
def log_to(console: "Console") -> Iterator[None]:
    """Print the package's log on a console, as long as the body runs."""

    logger, handler = logging.getLogger("thinkslow"), _Printed(console)
    handler.setFormatter(InFlags())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def log_to_console() -> None:
    """Send the package's log to standard error, one line for each message, with the time."""
    logger, handler = logging.getLogger("thinkslow"), _Printed(console())
    handler.setFormatter(InFlags("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.handlers = [handler]
    logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
