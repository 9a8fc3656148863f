"""A killed process, simulated: from some operation on, the disk takes no change any more."""

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

OPERATIONS = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync")


class Killed(BaseException):
    """Stands for the end of the process; no handler of ordinary errors catches it."""


@contextlib.contextmanager
def killed_after(operations: int) -> Iterator[None]:
    """Lets some changes of the disk through; the next, and all after it, raise `Killed`.

    So nothing that the code does to clean up reaches the disk, as after a `kill -9`.
    """
    left = operations

    def counted(real: Callable) -> Callable:
        def operation(*arguments, **options):
            nonlocal left
            if left <= 0:
                raise Killed
            left -= 1
            return real(*arguments, **options)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, counted(getattr(os, name)))
        yield


def every_kill(action: Callable[[], object], prepare: Callable[[], object]) -> Iterator[int]:
    """Runs `prepare`, then `action` killed after 0, 1, 2, … changes, until it runs through.

    Yields the number of changes after each killed run, for the caller to look at the disk.
    """
    for operations in range(1000):
        prepare()
        try:
            with killed_after(operations):
                action()
        except Killed:
            yield operations
        else:
            assert operations > 0
            return
    raise AssertionError("The action never ran through.")
