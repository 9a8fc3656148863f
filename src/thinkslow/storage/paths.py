"""Paths as users give them."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path. `~` is the home folder: a shell leaves it as it is in `--out=~/runs`, and nothing
    else expands it.
    """
    return Path(path).expanduser()
