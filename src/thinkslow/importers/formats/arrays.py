"""Arrays in a foreign file. Name, shape and dtype are known; the numbers are not read yet.

A checkpoint also holds its optimiser, which is often three times as large as the agent. An array is
read only on request, and is then in memory once.
"""

import dataclasses
import io
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from thinkslow.plural import plural
from thinkslow.storage.faults import Damaged
from thinkslow.storage.reading import unreadable

DTYPES = {
    name: np.dtype(kind)
    for name, kind in {
        "b1": np.bool_,
        "f2": np.float16,
        "f4": np.float32,
        "f8": np.float64,
        "i1": np.int8,
        "i2": np.int16,
        "i4": np.int32,
        "i8": np.int64,
        "u1": np.uint8,
        "u2": np.uint16,
        "u4": np.uint32,
        "u8": np.uint64,
        "bfloat16": ml_dtypes.bfloat16,
    }.items()
}
"""Number types that a foreign array may have."""
MOST_AXES = 16
"""Largest number of axes of an array; agents need five."""
SHARED = 4
"""Limit on all bytes read, as a multiple of the file size. Arrays may share bytes, so it is above
1.
"""
SLACK = 2**20
"""Bytes allowed beyond that limit."""


class Budget:
    """The bytes that may still be allocated for a file of known size.

    >>> budget = Budget(100, times=1)
    >>> budget.take(50, "arrays")
    >>> budget.take(SLACK + 51, "arrays")
    Traceback (most recent call last):
    thinkslow.storage.faults.Damaged: Its arrays are larger than the whole file.
    """

    def __init__(self, size: int, *, times: int):
        self.left = times * size + SLACK

    def take(self, count: int, what: str) -> None:
        """**Errors:** `Damaged` if the budget is used up."""
        self.left -= count
        if self.left < 0:
            raise Damaged(f"Its {what} are larger than the whole file.")


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array in a file. `fetch` reads it; `read` also checks its shape and dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fetch: Callable[[], np.ndarray] = dataclasses.field(repr=False)
    budget: Budget | None = dataclasses.field(default=None, repr=False, compare=False)
    """Budget of the file that holds it. Several arrays may share bytes."""
    columns: bool = dataclasses.field(default=False, repr=False, compare=False)
    """Whether its numbers are stored column by column, and not row by row as usual."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def read(self) -> np.ndarray:
        """The numbers as a contiguous, writable array.

        **Errors:** `Damaged` if the file changed since it was opened, or if the arrays read so far
        are together several times as large as the file.
        """
        if self.budget is not None:
            self.budget.take(self.size * self.dtype.itemsize, "arrays")
        array = self.fetch()
        assert array.shape == self.shape
        assert array.dtype == self.dtype
        return array


@dataclasses.dataclass(frozen=True)
class Span:
    """A range of bytes in a file, not read yet."""

    file: "File"
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self) -> bytearray:
        return self.file.read(self.start, self.length)


class File:
    """An open file that must not change while it is read.

    **Errors:** `FileNotFoundError` if it does not exist, `Damaged` if it is not a file. Reading
    raises `Damaged` if the file was replaced or changed in the meantime, as training does.
    """

    def __init__(self, path: Path):
        self.path = path
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"A checkpoint must be a file; {path} is not. Check the path.")
        self.size = status.st_size
        self._identity = _identity(status)

    def read(self, start: int, length: int) -> bytearray:
        if start + length > self.size:
            raise Damaged(f"{self.path} ends before its arrays do. Copy it again.")
        try:
            with self.path.open("rb") as file:
                self.check(file)
                file.seek(start)
                data = bytearray(length)
                if file.readinto(data) != length:
                    raise Damaged(f"{self.path} ends before its arrays do. Copy it again.")
                return data
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            raise unreadable(self.path, error) from error

    def check(self, file: io.BufferedIOBase) -> None:
        """Check that the open file is still the same."""
        if _identity(os.fstat(file.fileno())) != self._identity:
            raise Damaged(f"{self.path} changed while it was read. Try again.")


def checked_shape(shape: object) -> tuple[int, ...]:
    """**Errors:** `ValueError` for an impossible shape."""
    if (
        not isinstance(shape, tuple | list)
        or len(shape) > MOST_AXES
        or not all(type(side) is int and 0 <= side < 2**40 for side in shape)
    ):
        raise ValueError("an array has no possible shape")
    return tuple(shape)


def filled(
    data: bytes | bytearray | Span,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    columns: bool = False,
) -> Stored:
    """An array made from these bytes.

    **Errors:** `ValueError` if they are too few or too many.
    """
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"an array of shape {shape} and type {dtype} has {plural(len(data), 'byte')} instead "
            "of "
            f"{math.prod(shape) * dtype.itemsize}"
        )

    def fetch() -> np.ndarray:
        raw = data.read() if isinstance(data, Span) else bytearray(data)
        array = np.frombuffer(raw, dtype).reshape(shape, order="F" if columns else "C")
        return np.ascontiguousarray(array).reshape(shape)

    return Stored(shape, dtype, fetch, columns=columns)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
