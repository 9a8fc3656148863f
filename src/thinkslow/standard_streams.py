"""Standard input, output and error that the caller has closed, as some daemons do, or whose reader
is gone.
"""

import io
import os
import sys
from typing import Any


def reserve() -> None:
    """Open the standard streams that are closed on the null device.

    Otherwise the next file, pipe or shared memory takes the number of one of them: a worker finds
    the null device in its place, and a library that prints writes into it.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)


def tolerate() -> None:
    """Let standard error discard what cannot be written: it is progress and logs, for which a long
    command must not end when its terminal, its pipe or its disk does.
    """
    shown = sys.stderr
    if isinstance(shown, io.TextIOWrapper) and shown is sys.__stderr__:  # not one in memory
        shown.flush()
        raw = _Discarding(shown.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), shown.encoding, "backslashreplace", line_buffering=True
        )


class _Discarding(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or len(data)  # None where it would have to wait
        except OSError:
            return len(data)
