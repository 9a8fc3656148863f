"""Records as JSON Lines that stay readable if the process is killed. Rows are appended whole,
flushed to the disk, and continued after the last complete line.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thinkslow.storage import atomic, reading


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file, which is either completely replaced or unchanged.

    **Errors:** as `append`.
    """
    atomic.write_text(path, _text(rows))


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows and flush them to the disk.

    **Errors:** `ValueError` for a non-finite number, before anything is written; `atomic.Full` if
    the disk is full.
    """
    text = _text(rows)
    atomic.unshare(path)
    atomic.guard(atomic.absolute(path))
    with atomic.explained(path), path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _text(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def whole(path: Path) -> list[bytes]:
    """The complete lines of a file; none if there is no file."""
    lines = reading.read_file(path).splitlines(keepends=True) if reading.is_file(path) else []
    if lines and not _is_whole(lines[-1]):
        lines.pop()
    return lines


def drop_torn(path: Path) -> None:
    """Cut off an incomplete last line, so that an appended row begins a new line."""
    size = sum(map(len, whole(path)))
    if reading.is_file(path) and path.stat().st_size > size:
        atomic.unshare(path)
        os.truncate(path, size)


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line) is not None
    except ValueError:
        return False
