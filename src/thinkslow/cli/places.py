"""Where in a user's own code an error arose."""

import site
import sysconfig
import traceback
from pathlib import Path

OURS = Path(__file__).parents[1]


def place_of(error: BaseException, *, deepest: bool = False) -> str:
    """The innermost line of the user's code under an error, as `file.py:5, in name`; empty if there
    is none.

    Args:
        error: as it was caught.
        deepest: whether the error must have arisen in that line itself.
    """
    folders = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    not_theirs = (*folders, *site.getsitepackages(), str(OURS))  # Python's, packages' and this one
    frames = traceback.extract_tb(error.__traceback__)
    for frame in frames[-1:] if deepest else reversed(frames):
        if not frame.filename.startswith(("<", *not_theirs)):
            return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
    return ""
