"""What all commands share: their options, their console, their errors."""

import dataclasses
import logging
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.logging import RichHandler

Options = TypeVar("Options", bound="Common")


class Usage(ValueError):
    """A flag that cannot be meant: exit code 2."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command."""

    json: bool = False
    """Print one JSON object on standard output."""
    debug: bool = False
    """Show the traceback of an error."""


def parse(options: type[Options], name: str, description: str, arguments: Sequence[str],
          default: Options | None = None) -> Options:  # fmt: skip
    """Options from the command line.

    **Errors:** `Usage` for a value that the option itself refuses; `SystemExit` from the parser.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        return tyro.cli(
            options, prog=f"thinkslow {name}", description=description, args=list(arguments),
            **given,
        )  # fmt: skip
    except ValueError as error:
        raise Usage(str(error)) from error


def console() -> Console:
    """Standard error: progress, logs, errors."""
    return Console(stderr=True)


def log_to_console() -> None:
    """Send the package's log to standard error."""
    handler = RichHandler(console=console(), show_path=False, show_level=False)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("thinkslow")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def interactive() -> bool:
    """Whether someone watches standard error."""
    return sys.stderr.isatty()
