"""Runs of Weights & Biases and trackio, and events for TensorBoard."""

import contextlib
import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkslow.cli.usage import Usage

SHOWN = ("score", "length", "thought_share", "belief_kl", "latency_ms")
"""Columns of episodes that are logged as scalars, besides the gains of images."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """The results of an evaluation, a study or a training run."""

    folder: Path
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    """Flat records by the name of their table; `episodes` are logged one by one."""
    numbers: Mapping[str, float]
    """Means by name; names contain slashes."""


class Tracker:
    """A run of Weights & Biases or trackio, which have the same calls."""

    def __init__(self, package: str, project: str, run: Path, settings: Mapping[str, Any]):
        """Begin a run with the name of its folder.

        Args:
            package: `wandb` or `trackio`.
            project: the project's name.
            run: the folder of the run.
            settings: settings to show with the run.
        """
        self.module = imported(package, f"--{package}")
        own = {"dir": run} if package == "wandb" else {}
        with _aside():
            self.run = self.module.init(
                project=project, name=run.name, config=dict(settings), **own
            )

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        with _aside():
            self.run.log({tag: scalar_value}, step=global_step)

    def log(self, found: Findings) -> None:
        """Log the tables and the means."""
        with _aside():
            for name, rows in found.tables.items():
                columns = list(dict.fromkeys(column for row in rows for column in row))
                cells = [[row.get(column) for column in columns] for row in rows]
                if rows:
                    self.run.log({name: self.module.Table(columns=columns, data=cells)})
            self.run.log(dict(found.numbers))

    def close(self) -> None:
        with _aside():
            self.run.finish()


def imported(package: str, flag: str) -> Any:
    """Import an optional package.

    **Errors:** `Usage` if it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        from thinkslow.envs.requirements import install

        raise Usage(
            f"{flag} needs the Python package {package}. Install it: {install(package)}"
        ) from None


def write_events(found: Findings) -> Path:
    """Write TensorBoard events: a run for each arm, with its episodes by number. Returns the
    folder, which is replaced when the new one is complete.

    The means are in the tab HPARAMS.
    """
    from thinkslow.storage import atomic

    runs: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in found.tables["episodes"]:
        key = tuple(str(row[part]) for part in ("group", "setting", "agent", "arm") if part in row)
        runs.setdefault(key, []).append(row)
    with atomic.folder(found.folder / "tensorboard", replace=True) as place:
        for key, rows in runs.items():
            _write_runs(place, key, rows, found.numbers)
    return found.folder / "tensorboard"


def _write_runs(
    place: Path,
    key: tuple[str, ...],
    rows: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, float],
) -> None:
    """Write the events of one arm: its episodes as one run, and its means as another."""
    from tensorboardX.summary import hparams

    from thinkslow.evaluation.records import finite
    from thinkslow.storage.events import Events

    name = "-".join(re.sub(r"[^\w.+=-]+", "_", part) for part in key)
    with contextlib.closing(Events(place / name)) as writer:
        for row in rows:
            for column, value in row.items():
                number = finite(value)
                if number is not None and (column in SHOWN or "_gain" in column):
                    writer.add_scalar(f"episode/{column}", number, row["episode"])
    start = "/".join(key) + "/"
    means = {
        f"mean/{where.removeprefix(start)}": number
        for where, number in numbers.items()
        if where.startswith(start)
    }
    names = ("group", "setting", "agent", "arm")[-len(key) :]
    with contextlib.closing(Events(place / name / "means")) as writer:
        for summary in hparams(dict(zip(names, key, strict=True)), means):
            writer.add_summary(summary)
        for tag, number in means.items():
            writer.add_scalar(tag, number, 0)


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """Send everything that is printed to standard error, because standard output is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
