"""Records as JSON Lines that a killed process leaves readable: appended whole, flushed to the disk,
and continued behind the last whole line."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows behind those that are there, and flush them to the disk.

    **Errors:** `ValueError` for a number that is non-finite, before anything is written.
    """
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def whole(path: Path) -> list[bytes]:
    """The lines of a file but for a last one that was cut off; none where there is no file."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    if lines and not _is_whole(lines[-1]):
        lines.pop()
    return lines


def drop_torn(path: Path) -> None:
    """Leave whole lines alone, so that what is appended begins a line."""
    size = sum(map(len, whole(path)))
    if path.is_file() and path.stat().st_size > size:
        os.truncate(path, size)


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line) is not None
    except ValueError:
        return False
