"""An evaluation on disk as an object: its records, its statistics and its page."""

import shutil
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from thinkslow.evaluation import records, tables
from thinkslow.evaluation.records import Row
from thinkslow.evaluation.summary import flat, summarise
from thinkslow.evaluation.tables import Table
from thinkslow.storage.headers import Occupied
from thinkslow.storage.lock import NAME, writing
from thinkslow.storage.paths import expanded


class Evaluation:
    """A finished or stopped evaluation: its records, its statistics and its page.

    Args:
        folder: the folder of `thinkslow.evaluate` or `thinkslow evaluate`.
        temporary: whether to delete the folder together with this object.

    **Errors:** those of `read`.
    """

    def __init__(self, folder: str | Path, *, temporary: bool = False):
        self.folder = folder = expanded(folder)
        self.records = records.read(folder)
        if temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @property
    def episodes(self) -> list[Row]:
        """Every episode as a flat record: `pandas.DataFrame(evaluation.episodes)`."""
        return self.records.rows()

    @property
    def comparisons(self) -> list[Row]:
        """Every arm against `none` and against the controls, as flat records."""
        return flat(self.summary["comparisons"])

    def frame(self, what: Table = "episodes") -> Any:
        """The records as a table: a pandas DataFrame, or a list of records without pandas.

        Args:
            what: `episodes`, one row for each episode and arm; or `comparisons`, one row for each
                arm, measure and baseline.

        **Errors:** `ValueError` for another name.
        """
        if what not in get_args(Table):
            raise ValueError(f"`what` must be one of {', '.join(get_args(Table))}; got {what!r}.")
        return tables.frame(getattr(self, what))

    def write_csv(self, out: str | Path | None = None) -> tuple[Path, Path]:
        """Write episodes.csv and comparisons.csv; returns their paths.

        Args:
            out: the folder; None: the evaluation's own.
        """
        folder = self.folder if out is None else expanded(out)
        return (
            tables.write_csv(folder / "episodes.csv", self.episodes),
            tables.write_csv(folder / "comparisons.csv", self.comparisons),
        )

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Means, comparisons and notes: the content of `summary.json`."""
        return summarise(self.records)

    @property
    def conclusion(self) -> str:
        """The verdict in words, with the cost of thinking: a line for each agent."""
        from thinkslow.evaluation.report.conclusion import conclusion

        return conclusion(self.summary)

    def report(self, out: str | Path | None = None) -> Path:
        """Write summary.json and report.html; returns the path of the page.

        Args:
            out: another folder, to which the records are copied; None: the evaluation's own.

        **Errors:** `Occupied` if the folder holds an evaluation already; `lock.Locked` while
        another process writes there.
        """
        from thinkslow.evaluation.report.page import build

        folder = self.folder if out is None else expanded(out)
        if folder.resolve() != self.folder.resolve():
            with writing(folder):
                if (folder / records.HEADER).exists():
                    raise Occupied(f"{folder} holds an evaluation already. Give another folder.")
                shutil.copytree(
                    self.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(NAME)
                )
        return build(folder, summary=self.summary)
