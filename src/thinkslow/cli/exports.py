"""Where results go besides the folder: CSV files, Weights & Biases."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from thinkslow.cli.common import Common, Usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exporting(Common):
    """Options of every command that measures something."""

    GROUP: ClassVar = "output"

    csv: bool = False
    """Write the records as CSV files too."""
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Log to this project of Weights & Biases too; needs the package wandb."""

    def check_wandb(self) -> None:
        """**Errors:** `Usage` if Weights & Biases was asked for and is not installed."""
        if self.wandb is not None:
            _wandb()


class Wandb:
    """Scalars of a training run on Weights & Biases, by decision."""

    def __init__(self, project: str, run: Path, settings: Mapping[str, Any]):
        self.run = _wandb().init(project=project, name=run.name, dir=run, config=dict(settings))

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.run.log({tag: scalar_value}, step=global_step)

    def close(self) -> None:
        self.run.finish()


def log_evaluation(project: str, result: Any) -> None:
    """An evaluation on Weights & Biases: its two tables, and every arm's means as a summary.

    Args:
        project: the project's name.
        result: an `Evaluation`.
    """
    wandb = _wandb()
    run = wandb.init(project=project, name=result.folder.name, dir=result.folder)
    for name in ("episodes", "comparisons"):
        rows = getattr(result, name)
        columns = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[row.get(column) for column in columns] for row in rows]
        run.log({name: wandb.Table(columns=columns, data=cells)})
    for arm in result.summary["arms"]:
        for measure, value in arm.items():
            mean = value.get("mean") if isinstance(value, dict) else value
            if isinstance(mean, int | float):
                run.summary[f"{arm['agent']}/{arm['arm']}/{measure}"] = mean
    run.finish()


def _wandb() -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        from thinkslow.envs.requirements import install

        raise Usage(
            f"--wandb needs the Python package wandb. Install it: {install('wandb')}"
        ) from None
    return wandb
