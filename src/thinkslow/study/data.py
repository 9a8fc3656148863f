"""The numbers of a figure, as a table of the page and as a file to download."""

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from thinkslow.evaluation.report.arms import Cell, Row, Table
from thinkslow.storage import jsontext

Value: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Data:
    """Rows of numbers under headings; the first column names the row."""

    name: str
    """Name of the file, without its suffix."""
    headings: Sequence[str]
    rows: Sequence[Sequence[Value]]

    @property
    def table(self) -> Table:
        """The table of the page, with four significant digits."""
        return Table(
            [*self.headings],
            [
                Row(str(name), "refinement", [Cell(_shown(one)) for one in rest])
                for name, *rest in self.rows
            ],
        )

    @property
    def csv(self) -> str:
        """A CSV file with all digits, as an address that needs no server."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.headings)
        writer.writerows(["" if one is None else one for one in row] for row in self.rows)
        return address(text.getvalue(), "text/csv")


def as_json(content: Any) -> str:
    """A JSON file as an address that needs no server."""
    return address(jsontext.dumps(content, indent=1), "application/json")


def address(content: str, kind: str) -> str:
    """A file as a `data:` address.

    >>> address("a,b", "text/csv")
    'data:text/csv;charset=utf-8;base64,YSxi'
    """
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(content.encode()).decode()}"


def _shown(value: Value) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value
