"""Read files that others may have written: regular ones only, of bounded size, read once."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from thinkslow.storage import jsontext
from thinkslow.storage.faults import Damaged, line

LARGEST_JSON = 64 * 2**20
"""Bytes of the largest description that is read."""

CHUNK = 2**24
"""Bytes that are read at once."""


def is_there(path: Path) -> bool:
    """Whether anything has this name, including a broken link."""
    return os.path.lexists(path)


def is_file(path: Path) -> bool:
    """Whether a file is there.

    **Errors:** `Damaged` if something else has its name: a folder, a pipe, a socket, a device, a
    link to nothing. It is not absent, and reading or replacing it would be wrong.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if is_there(path):
            raise Damaged(f"{path} must be a file; it is a link to nothing. Remove it.") from None
        return False
    except PermissionError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        raise Damaged(f"{path} must be a file; it is {_kind(mode)}. Move or remove it.")
    return True


def read_file(path: Path) -> bytes:
    """The bytes of a file of any size.

    **Errors:** those of `is_file`; `OSError` of the system.
    """
    return read_bounded(path, None, "read")


def read_bounded(path: Path, most: int | None, what: str) -> bytes:
    """The bytes of a file. Devices and pipes are refused, because they could be endless.

    Args:
        path: the path of the file.
        most: largest allowed size, in bytes; None: any.
        what: what the file should be, for messages, such as `a manifest`.

    **Errors:** `Damaged` if it is not a regular file or is larger; `OSError` of the system.
    """
    # Non-blocking, so as not to wait for the other end of a pipe: the kind of file is certain only
    # once it is open.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise Damaged(
                    f"{path} must be a file to be {what}; it is {_kind(mode)}. Check the path."
                )
            data = _read(descriptor, sys.maxsize if most is None else most + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    if most is not None and len(data) > most:
        raise Damaged(
            f"{path} is too large to be {what}: it has over {most:,} bytes. Check the path."
        )
    return data


def read_json(path: Path, what: str, *, again: str = "Copy it again.") -> Any:
    """The content of a JSON file.

    Args:
        path: the path of the file.
        what: what the file should be, for messages, such as `the settings of a run`.
        again: the remedy for a damaged file, as a sentence.

    **Errors:** `Damaged` as for `read_bounded`, and for a file that is not JSON or gives a name
    twice; `OSError`.
    """
    data = read_bounded(path, LARGEST_JSON, what)
    try:
        return json.loads(data, object_pairs_hook=jsontext.once)
    except (ValueError, RecursionError) as error:  # nested beyond the interpreter's stack
        raise Damaged(f"{path} is not JSON ({line(error, 200)}). {again}") from None


def unreadable(path: Path, error: OSError) -> Damaged:
    """The error for a file that the system cannot read, such as a disk fault or a circular link."""
    return Damaged(f"{path} cannot be read: {error.strerror}. Check the path, or copy it again.")


def _read(descriptor: int, most: int) -> bytes:
    parts, size = list[bytes](), 0
    while size < most and (part := os.read(descriptor, min(most - size, CHUNK))):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")
