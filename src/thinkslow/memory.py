"""How much memory this process may use, and how it gives back what it no longer needs."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path


def allowed() -> int | None:
    """Bytes of memory that this process may use: those of the machine, or the limit of its
    container or batch job if that is less. None if the system does not say.
    """
    found = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not on Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _limits():
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
            found.append(int(path.read_text()))
    return min(found, default=None)


def _limits() -> Iterator[Path]:
    """The files with limits of the control groups that this process is in, of both versions."""
    with contextlib.suppress(OSError):  # no control groups, as outside of Linux
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            top = Path("/sys/fs/cgroup", kinds)
            inside = top / place.lstrip("/")
            for folder in (inside, *inside.parents):
                if folder.is_relative_to(top):
                    yield folder / ("memory.limit_in_bytes" if kinds else "memory.max")


def give_back() -> None:
    """Return memory that was freed to the system. Call it after compiling, before a long loop.

    A compiler frees nearly all that it took, in small pieces between those that stay. The C library
    keeps such pages until it is asked: 600 MiB of a training of the preset `tiny`
    (docs/performance.md). Does nothing where the C library is not glibc.

    **Cost:** 0.1 s for a gigabyte.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: Windows needs a name
        ctypes.CDLL(None).malloc_trim(0)
