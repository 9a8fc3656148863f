"""Paths as users give them."""

import os
from pathlib import Path

from thinkslow.storage.faults import Missing


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path. `~` is the home folder: a shell leaves it as it is in `--out=~/runs`, and nothing
    else expands it.

    **Errors:** `Missing` if the home folder is unknown, as that of `~NAME` for a user who is not.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise Missing(
            f"A path that begins with ~ lies in a home folder; that of {str(path)!r} is unknown. "
            "Give the whole path, or begin with ./~ if this is its name."
        ) from None
