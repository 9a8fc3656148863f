"""How many cores this process may use."""

import os


def cores() -> int:
    """The number of cores that this process may use, as `taskset` or a batch system limits them.

    >>> 1 <= cores() <= os.cpu_count()
    True
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
