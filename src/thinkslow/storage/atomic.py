"""Files and folders that are wholly there or not at all, whenever a process is killed.

A file is written beside its place, flushed to the disk and renamed onto it, which POSIX does in
one step. For a filled folder POSIX has no such call, so that a folder is written once and never
replaced: what changes gets a new name, and a file that is replaced says which name holds.
Temporary names are `.NAME.tmp-ID`; what a killed process left of them is removed by the next
that writes the same NAME. One writer at a time is assumed (see `lock`).
"""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path


class Full(OSError):
    """There was no room on the disk; what was saved before is untouched."""


@contextlib.contextmanager
def folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` if the body succeeds.

    If the body fails or the process is killed, there is no `path`. Everything that the body
    wrote is flushed to the disk first.

    **Errors:** `FileExistsError` if `path` is there and not an empty folder; `Full` if the disk
    fills up; whatever the body raises.
    """
    path = absolute(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} must not exist yet, or be an empty folder; it is neither.")
    for leftover in _leftovers(path):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = _temporary(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            yield temporary
            for root, _, files in os.walk(temporary):
                for name in files:
                    sync(Path(root, name))
                sync(Path(root))
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)


def write_bytes(path: str | Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a file that is either wholly there or as it was before, and flushes it to the disk.

    **Errors:** `Full` if the disk is full.
    """
    path = absolute(path)
    for leftover in _leftovers(path):
        leftover.unlink(missing_ok=True)
    temporary = _temporary(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 file that is either wholly there or as it was before; see `write_bytes`."""
    write_bytes(path, [text.encode()])


def absolute(path: str | Path) -> Path:
    """The path without links and dots, so that its siblings are where the content is."""
    return Path(os.path.realpath(path))


def sync(path: Path) -> None:
    """Flushes a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns "no space left" and "quota exceeded" into one line that helps.

    **Errors:** `Full`.
    """
    try:
        yield
    except Full:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.is_dir() else 0.0
        full = Full(
            f"Saving {path} needs more disk space than there is; {free:.1f} MiB are free. What "
            "was saved before is untouched. Free some space and save again."
        )
        full.errno = error.errno
        raise full from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")


def _leftovers(path: Path) -> list[Path]:
    """What `_temporary` named earlier, in this process or in one that was killed."""
    if not path.parent.is_dir():
        return []
    named = re.compile(re.escape(f".{path.name}.tmp-") + "[0-9a-f]{8}")
    return [entry for entry in path.parent.iterdir() if named.fullmatch(entry.name)]
