"""Huge pages of memory, which must be requested before a process starts."""

import contextlib
import os
import re
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
MODULE = str(Path(__file__).parents[1] / "__main__.py")
"""The program of `python -m thinkslow`."""
HUGE = "glibc.malloc.hugetlb=1"
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use() -> None:
    """Start this command again as the same process, with huge pages where it allocates memory.

    On a CPU each update of a model writes memory that the kernel has to hand out again. In pages of
    4 KiB this takes up to a quarter of the update, in pages of 2 MiB little (docs/performance.md).
    Processes that this one starts request huge pages too.

    Returns if that would change nothing: the variable `GLIBC_TUNABLES` is set, even to nothing; the
    C library is not glibc 2.35 or later; the kernel always gives huge pages, or never. It also
    returns in any other program that calls the command, since what that did would be done again,
    and if Python cannot be started.

    **Cost:** a start of Python.
    """
    program, *words = sys.argv
    named = program == MODULE or (
        Path(program).name == "thinkslow" and sys.orig_argv[-len(sys.argv)] == program
    )
    ours = named and sys.orig_argv[-len(words) :] == words
    if ours and TUNABLES not in os.environ and glibc() >= (2, 35) and by_request():
        with contextlib.suppress(OSError):
            os.execve(sys.executable, sys.orig_argv, {**os.environ, TUNABLES: HUGE})


def glibc() -> tuple[int, ...]:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # another C library
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", version))


def by_request() -> bool:
    """Whether the kernel gives huge pages to those who ask."""
    try:
        return "[madvise]" in KERNEL.read_text()
    except OSError:
        return False
