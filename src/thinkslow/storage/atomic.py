"""Files and folders that are wholly there or not at all, whenever a process is killed.

**How a folder is replaced.** The new content is written to a hidden sibling `.NAME.tmp-ID` and
flushed to the disk; then NAME is renamed to `.NAME.old-ID`, the new folder to NAME, and the old
one is deleted. POSIX has no call that replaces a filled folder in one step, so a crash between
the two renames leaves no NAME: `recover`, which every read and every write calls first, then
renames the old folder back. At every instant either the new or the old content can be loaded.
One writer per folder at a time is assumed; readers may come at any time.
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
    """Yields an empty folder that takes the place of `path` if the body succeeds.

    If the body fails, the temporary folder is removed and `path` is as it was. Temporary and
    old folders that a killed process left beside `path` are removed first. Everything that the
    body wrote is flushed to the disk before the swap.

    **Errors:** `NotADirectoryError` if `path` is a file; `Full` if the disk fills up; whatever
    the body raises.
    """
    path = absolute(path)
    recover(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} must be a folder or not exist yet; it is a file.")
    for leftover in _siblings(path, "tmp") + _siblings(path, "old"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = _sibling(path, "tmp")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            _swap(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def write_bytes(path: str | Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a file that is either wholly there or as it was before, and flushes it to the disk.

    **Errors:** `Full` if the disk is full.
    """
    path = absolute(path)
    for leftover in _siblings(path, "tmp"):
        leftover.unlink(missing_ok=True)
    temporary = _sibling(path, "tmp")
    with _explained(path):
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
        _sync(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 file that is either wholly there or as it was before; see `write_bytes`."""
    write_bytes(path, [text.encode()])


def recover(path: str | Path) -> None:
    """Renames the old folder back if a process was killed between the two renames of a swap.

    Does nothing if `path` exists or if there is nothing to restore.
    """
    path = absolute(path)
    if path.exists() or not path.parent.is_dir():
        return
    # A writer or another reader may be faster, so that either end of a rename is gone: then
    # `path` is there, which is all that is wanted.
    with contextlib.suppress(FileNotFoundError, FileExistsError), _not_empty_as_exists():
        old = sorted(_siblings(path, "old"), key=lambda one: one.stat().st_ctime_ns)
        if old:
            os.rename(old[-1], path)


def _swap(temporary: Path, path: Path) -> None:
    """Puts `temporary` in the place of `path`; see the module's docstring for crashes."""
    old = _sibling(path, "old")
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)
        try:
            with _not_empty_as_exists():
                os.rename(temporary, path)
            break
        except FileExistsError:
            continue  # a reader saw no `path` and restored the old one: move it aside again
        except BaseException:
            recover(path)
            raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def absolute(path: str | Path) -> Path:
    """The path without links and dots, so that its siblings are where the content is."""
    return Path(os.path.realpath(path))


def _sibling(path: Path, role: str) -> Path:
    return path.with_name(f".{path.name}.{role}-{uuid.uuid4().hex[:8]}")


def _siblings(path: Path, role: str) -> list[Path]:
    """What `_sibling` named earlier, in this process or in one that was killed."""
    if not path.parent.is_dir():
        return []
    named = re.compile(re.escape(f".{path.name}.{role}-") + "[0-9a-f]{8}")
    return [entry for entry in path.parent.iterdir() if named.fullmatch(entry.name)]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(top: Path) -> None:
    for root, _, files in os.walk(top):
        for name in files:
            _sync(Path(root, name))
        _sync(Path(root))


@contextlib.contextmanager
def _not_empty_as_exists() -> Iterator[None]:
    """Renaming onto a filled folder fails as "not empty" or as "exists": makes it the latter."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        raise


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns "no space left" and "quota exceeded" into one line that helps."""
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
