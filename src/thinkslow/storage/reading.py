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

    **Errors:** `Damaged` for what is no regular file or is larger; `OSError` of the system.
    """
    # Not to wait for the other end of a pipe: the kind of file is only known for sure once open.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{path} must be a file to be {what}; it is none. Check the path.")
        data = file.read(most + 1)
    if len(data) > most:
        raise Damaged(
            f"{path} is too large to be {what}: it has over {most:,} bytes. Check the path."
        )
    return data
