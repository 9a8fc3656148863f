"""Write files and folders so that they are complete or absent, whenever the process is killed.

A file is written under a temporary name in the same folder, flushed to the disk and renamed, which
POSIX does in one step. POSIX has no such call for a folder with content, so a folder is written
once and never replaced: a new version gets a new name, and a small file, which is replaced, says
which name is valid. Temporary names are `.NAME.tmp-ID`. What a killed process left under such a
name is removed by the next process that writes the same NAME. One writer at a time is assumed (see
`lock`).
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

GUARDS: dict[Path, Callable[[], None]] = {}
"""By folder, what is called before each write inside it. `lock.writing` adds its check."""


class Full(OSError):
    """The disk is full. What was saved before is unchanged."""


@contextlib.contextmanager
def folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` if the body succeeds.

    If the body fails or the process is killed, `path` does not exist, or holds what it held.
    Everything that the body wrote is first flushed to the disk.

    Args:
        path: the folder.
        replace: whether it may hold something, which is then deleted after the body. For an
            instant, there is then no such folder.

    **Errors:** `FileExistsError` if `path` exists and is not an empty folder; `Full` if the disk is
    full; any error of the body.
    """
    path = absolute(path)
    if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} must not exist yet, or be an empty folder; it is neither.")
    for leftover in _leftovers(path):
        shutil.rmtree(leftover, ignore_errors=True)
    guard(path)
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
            old = _temporary(path)
            if replace and path.exists():
                os.rename(path, old)
            os.rename(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)


def write_bytes(path: str | Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file and flush it to the disk. It is either completely replaced or unchanged.

    **Errors:** `Full` if the disk is full.
    """
    path = absolute(path)
    guard(path)
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
    """Write a UTF-8 file, which is either completely replaced or unchanged; see `write_bytes`.

    Parts of a path that are not UTF-8 are escaped.
    """
    write_bytes(path, [text.encode(errors="backslashreplace")])


def unshare(path: str | Path) -> None:
    """Before a file is written in place, make it one of its own if it has other names too.

    A folder that was copied by hard links (`cp -al`, a backup) would otherwise change with it.

    **Errors:** as `write_bytes`.
    """
    path = Path(path).resolve()  # a link to it stays one
    if path.is_file() and path.stat().st_nlink > 1:
        write_bytes(path, [path.read_bytes()])


def guard(path: Path) -> None:
    """Check that the folders around an absolute path are still held.

    **Errors:** those of `GUARDS`.
    """
    for folder in path.parents:
        if folder in GUARDS:
            GUARDS[folder]()


def absolute(path: str | Path) -> Path:
    """The path without links and dots, so that temporary names are in the folder of the content."""
    return Path(os.path.realpath(path))


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" into one line with a remedy, and name the file in
    other errors of writing, such as that of a disk or a limit, which name none.

    **Errors:** `Full`; `OSError` with the name of a file.
    """
    try:
        yield
    except Full:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            if error.filename is None:
                error.filename = str(path)
            raise
        free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.is_dir() else 0.0
        full = Full(
            f"Saving {path} needs more disk space than there is; {free:.1f} MiB are free. What "
            "was saved before is untouched. Free some space and run the command again."
        )
        full.errno = error.errno
        raise full from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp-{os.urandom(4).hex()}")


def _leftovers(path: Path) -> list[Path]:
    """Paths that `_temporary` named earlier, in this process or in a killed one."""
    if not path.parent.is_dir():
        return []
    named = re.compile(re.escape(f".{path.name}.tmp-") + "[0-9a-f]{8}")
    return [entry for entry in path.parent.iterdir() if named.fullmatch(entry.name)]
