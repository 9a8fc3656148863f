"""Small text files that others may have written: regular, bounded, read once."""

import os
import stat
from pathlib import Path

from thinkslow.storage.faults import Damaged


def is_there(path: Path) -> bool:
    """Whether anything has this name: a broken link too."""
    return os.path.lexists(path)


def read_bounded(path: Path, most: int, what: str) -> bytes:
    """The bytes of a file; never those of a device or a pipe, which could be endless.

    Args:
        path: The file.
        most: Largest size, in bytes.
        what: What it should be, for the message: `a manifest`.

    **Errors:** `Damaged` if it is not a regular file or is larger; `OSError` of the system.
    """
    # Not to wait for the other end of a pipe: the kind of file is only known for sure once open.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Damaged(f"{path} must be a file to be {what}; it is not. Check the path.")
            data = _read(descriptor, most + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    if len(data) > most:
        raise Damaged(
            f"{path} is too large to be {what}: it has over {most:,} bytes. Check the path."
        )
    return data


def unreadable(path: Path, error: OSError) -> Damaged:
    """What to say of a file that the system cannot read: a disk at fault, links in a circle."""
    return Damaged(f"{path} cannot be read: {error.strerror}. Check the path, or copy it again.")


def _read(descriptor: int, most: int) -> bytes:
    out = b""
    while len(out) < most and (part := os.read(descriptor, most - len(out))):
        out += part
    return out
