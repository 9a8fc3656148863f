"""What all commands share: their options, their console, their errors."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from thinkslow.cli.numbers import WHOLE
from thinkslow.cli.wording import InFlags
from thinkslow.importers import table

if TYPE_CHECKING:
    from rich.console import Console

    from thinkslow.dreamer.saved import Saved

    Format = str
else:
    Format = tyro.extras.literal_type_from_choices(("auto", *table.names()))

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opening(Common):
    """Options of every command that takes an agent, ours or another project's."""

    format: Format = "auto"
    """Whose agent it is; it shows in the file."""
    classes: int | None = None
    """Classes of the latent, where a source wrote no configuration."""
    vectors: str | None = None
    """Names of vectors in their order, joined by commas, where a source did not store that."""
    allow_nonfinite: bool = False
    """Take weights that are not finite."""
    imports: Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE ...")] = ()
    """Modules (or .py files) of yours that register terms, updates, readouts, gates or agents."""

    def open(self, path: Path) -> "Saved":
        """The agent at a path; of another project's, what was found is said on standard error.

        **Errors:** those of `importers.open_agent`.
        """
        from thinkslow import importers
        from thinkslow.loading import located, opened

        vectors = self.vectors and tuple(name.strip() for name in self.vectors.split(","))
        path = located(path)
        saved = opened(
            path, format=self.format, classes=self.classes, vectors=vectors or None,
            allow_nonfinite=self.allow_nonfinite,
        )  # fmt: skip
        if "source" in saved.manifest and not importers.is_own(path):
            for line in importers.told(saved):
                console().print(line, markup=False, highlight=False, soft_wrap=True)
        return saved


def parse(options: type[Options], name: str, description: str, arguments: Sequence[str],
          default: Options | None = None) -> Options:  # fmt: skip
    """Options from the command line.

    **Errors:** `Usage` for a value that the option itself refuses; `SystemExit` from the parser.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with WHOLE:
            return tyro.cli(
                options, prog=f"thinkslow {name}", description=description, args=list(arguments),
                **given,
            )  # fmt: skip
    except ValueError as error:
        raise Usage(str(error)) from error


def console() -> "Console":
    """Standard error: progress, logs, errors."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def log_to(console: "Console") -> Iterator[None]:
    """Print the package's log on a console, as long as the body runs."""

    class Printed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)

    logger, handler = logging.getLogger("thinkslow"), Printed()
    handler.setFormatter(InFlags())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def log_to_console() -> None:
    """Send the package's log to standard error."""
    from rich.logging import RichHandler

    handler = RichHandler(console=console(), show_path=False, show_level=False)
    handler.setFormatter(InFlags())
    logger = logging.getLogger("thinkslow")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
