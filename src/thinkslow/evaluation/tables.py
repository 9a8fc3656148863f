"""Records as tables: data frames, CSV and Parquet files. pandas is used if it is installed."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from thinkslow.storage import atomic
from thinkslow.storage.paths import expanded
from thinkslow.storage.reading import read_file

Table: TypeAlias = Literal["episodes", "comparisons"]


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A pandas DataFrame of flat records; without pandas the records themselves.

    Args:
        rows: flat records.

    >>> len(frame([{"score": 1.0}, {"score": 2.0}]))
    2
    """
    try:
        import pandas  # pyright: ignore[reportMissingImports]
    except ImportError:
        return [dict(row) for row in rows]
    return pandas.DataFrame([*rows])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write flat records as a CSV file with a header; unknown values are empty.

    Args:
        path: the file, replaced as a whole.
        rows: flat records, which need not have the same columns.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(path, text.getvalue())
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write flat records as a Parquet file; unknown values are null.

    Args:
        path: the file, replaced as a whole.
        rows: flat records, which need not have the same columns.

    **Errors:** `ModuleNotFoundError` without pyarrow, with the command that installs it.
    """
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Parquet files need the package pyarrow: pip install 'thinkslow[parquet]'."
        ) from None
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    atomic.write_bytes(path, [buffer.getvalue()])
    return path


def training(run: str | Path) -> dict[str, list[dict[str, Any]]]:
    """The log of a training run as two tables of flat records: `updates` and `episodes`.

    Args:
        run: the folder of the run.

    **Errors:** `FileNotFoundError` if it holds no metrics.jsonl.
    """
    out: dict[str, list[dict[str, Any]]] = {"updates": [], "episodes": []}
    for text in read_file(expanded(run) / "metrics.jsonl").decode().splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # a line that a kill cut off
            continue
        if "episode" in line:
            out["episodes"].append(line["episode"])
        else:
            out["updates"].append(line)
    return out
