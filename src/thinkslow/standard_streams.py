"""Standard input, output and error that the caller has closed, as some daemons do."""

import os


def reserve() -> None:
    """Open the standard streams that are closed on the null device.

    Otherwise the next file, pipe or shared memory takes the number of one of them: a worker finds
    the null device in its place, and a library that prints writes into it.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
