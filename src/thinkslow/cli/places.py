"""Where in a user's own code an error arose."""

import site
import sysconfig
import traceback
from pathlib import Path

OURS = Path(__file__).parents[1]
NOT_THEIRS = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    str(OURS),
)
"""Folders of Python, of installed packages and of this one."""


def place_of(error: BaseException, *, deepest: bool = False) -> str:
    """The innermost line of the user's code under an error, as `file.py:5, in name`; empty if there
    is none.

    Args:
        error: as it was caught.
        deepest: whether the error must have arisen in that line itself.
    """
    frames = traceback.extract_tb(error.__traceback__)
    for frame in frames[-1:] if deepest else reversed(frames):
        if not frame.filename.startswith(("<", *NOT_THEIRS)):
            return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
    return ""
