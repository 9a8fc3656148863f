"""Further outputs of results: tables as files, TensorBoard, Weights & Biases, trackio."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from thinkslow.cli.common import Common, say
from thinkslow.cli.trackers import Findings, Tracker, imported, write_events


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exporting(Common):
    """Options of every command that measures something."""

    GROUP: ClassVar = "output"

    csv: bool = False
    """Write the records as CSV files too."""
    parquet: bool = False
    """Write the records as Parquet files too; needs the package pyarrow."""
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Log to this project of Weights & Biases too; needs the package wandb."""
    trackio: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Log to this project of trackio too; needs the package trackio."""

    @property
    def projects(self) -> dict[str, str]:
        """The project name by package."""
        asked = {"wandb": self.wandb, "trackio": self.trackio}
        return {package: project for package, project in asked.items() if project is not None}

    def check_exports(self) -> None:
        """**Errors:** `Usage` if a requested package is not installed."""
        for package in self.projects:
            imported(package, f"--{package}")
        if self.parquet:
            imported("pyarrow", "--parquet")

    def trackers(self, run: Path, settings: Mapping[str, Any]) -> list[Tracker]:
        """A run of each requested tracker."""
        return [
            Tracker(package, project, run, settings) for package, project in self.projects.items()
        ]

    def write(self, found: Findings) -> None:
        """Write the tables in the requested formats."""
        from thinkslow.evaluation import tables

        for ending, asked, write in (
            ("csv", self.csv, tables.write_csv),
            ("parquet", self.parquet, tables.write_parquet),
        ):
            for name, rows in found.tables.items() if asked else ():
                path = write(found.folder / f"{name}.{ending}", rows)
                say(f"Wrote {path}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Showing(Exporting):
    """Options of every command that plays episodes."""

    tensorboard: bool = False
    """Write TensorBoard events too, to tensorboard/ in the folder."""

    def export(self, found: Findings) -> None:
        """Write all requested outputs."""
        self.write(found)
        if self.tensorboard:
            path = write_events(found)
            say(f"Wrote {path}")
        for tracker in self.trackers(found.folder, {}):
            tracker.log(found)
            tracker.close()


def of_evaluation(result: Any) -> Findings:
    """The results of an `Evaluation`."""
    numbers = {
        f"{arm['agent']}/{arm['arm']}/{measure}": mean
        for arm in result.summary["arms"]
        for measure, value in arm.items()
        if (mean := _number(value)) is not None
    }
    tables = {"episodes": result.episodes, "comparisons": result.comparisons}
    return Findings(result.folder, tables, numbers)


def of_study(result: Mapping[str, Any], folder: Path) -> Findings:
    """The results of a study.

    Args:
        result: from `finish`.
        folder: the folder of the study.
    """
    import json

    from thinkslow.evaluation.summary import flat

    lines = (folder / "episodes.jsonl").read_text().splitlines()
    numbers = {
        f"{cell['group']}/{cell['setting']}/{arm['agent']}/{arm['arm']}/{measure}": mean
        for cell in result["cells"]
        for arm in cell["arms"]
        for measure, value in arm.items()
        if (mean := _number(value)) is not None
    }
    tables = {
        "episodes": [json.loads(line) for line in lines],
        "comparisons": [
            {"group": cell["group"], "setting": cell["setting"], **row}
            for cell in result["cells"]
            for row in flat(cell["comparisons"])
        ],
        "hypotheses": flat(result["hypotheses"]),
    }
    return Findings(folder, tables, numbers)


def _number(value: Any) -> float | None:
    """The mean of a measure, or another number as it is."""
    found = value.get("mean") if isinstance(value, dict) else value
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found)
