"""Memory that this process no longer uses, given back to the system."""

import contextlib
import ctypes


def give_back() -> None:
    """Return memory that was freed to the system. Call it after compiling, before a long loop.

    A compiler frees nearly all that it took, in small pieces between those that stay. The C library
    keeps such pages until it is asked: 600 MiB of a training of the preset `tiny`
    (docs/performance.md). Does nothing where the C library is not glibc.

    **Cost:** 0.1 s for a gigabyte.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: Windows needs a name
        ctypes.CDLL(None).malloc_trim(0)
