"""Paths as users give them."""

import os
import re
from pathlib import Path

from thinkslow.storage.faults import Missing


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path. `~` is the home folder: a shell leaves it as it is in `--out=~/runs`, and nothing
    else expands it.

    **Errors:** `ValueError` for an address such as `s3://bucket/run`, which would be a folder `s3:`
    of this machine; `Missing` if the home folder is unknown, as that of `~NAME` for a user who is
    not.
    """
    if isinstance(path, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", path):
        raise ValueError(
            f"A path must be on this machine; got the address {path!r}. Download what is there "
            "first, and copy results there afterwards."
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise Missing(
            f"A path that begins with ~ lies in a home folder; that of {str(path)!r} is unknown. "
            "Give the whole path, or begin with ./~ if this is its name."
        ) from None
