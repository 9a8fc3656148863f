"""Our own objects for the classes and functions that a pickle names.

A name stays a name. `CALLS` has our own functions for the few that arrays need. `STUBS` lists
classes whose objects are not needed here. Every other name is refused.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from thinkslow.importers.formats.arrays import DTYPES, Span, Stored, checked_shape, filled
from thinkslow.storage.faults import line


class Refused(ValueError):
    """The file contains something other than arrays."""

    def __init__(self, message: str):
        super().__init__(line(message))


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of a class or function. Nothing is imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(frozen=True)
class Stub:
    """Replaces an object that is not needed here, such as an optimiser's state."""

    type: Global


@dataclasses.dataclass(frozen=True)
class Type:
    """A NumPy dtype."""

    dtype: np.dtype


class Array:
    """An incomplete array, whose content comes later."""

    stored: Stored | None = None


def _dtype(kind: Any, *_: Any) -> Type:
    if kind not in DTYPES or kind == "bfloat16":
        what = "Python objects" if kind in ("O", "O8") else f"values of type {short(kind)}"
        raise Refused(f"a checkpoint may hold arrays of numbers only, and this one holds {what}.")
    return Type(DTYPES[kind])


def check_type(state: Any) -> None:
    """Check the rest of a dtype's description: weights are little-endian and not records.

    A big-endian mark differs from a little-endian one by one bit, and no training code writes it.
    """
    if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", "|", "="):
        raise ValueError("its numbers are not little-endian")
    if state[2:5] != (None, None, None):
        raise Refused("a checkpoint may hold arrays of numbers only, and this one holds records.")


def array_of(shape: Any, kind: Any, fortran: Any, data: Any) -> Stored:
    if not isinstance(kind, Type) or not isinstance(data, bytes | Span):
        raise ValueError("an array has no numbers")
    return filled(data, checked_shape(shape), kind.dtype, columns=bool(fortran))


def _scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, Type) or not isinstance(data, bytes):
        raise ValueError("a number has no value")
    return filled(data, (), kind.dtype).read()[()].item()


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any, *_: Any) -> Array:
    array = Array()
    array.stored = array_of(shape, kind, order == "F", data)
    return array


def _reconstruct(kind: Any, shape: Any = (0,), code: Any = b"b", *_: Any) -> Array:
    """An empty array, as NumPy always writes it first. Anything else was altered."""
    if str(kind) != "numpy.ndarray" or shape != (0,) or code not in (b"b", "b"):
        raise ValueError("an array does not begin empty")
    return Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes in the form of protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("it spells bytes in an unknown way")
    return text.encode("latin1")


CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): lambda *_: Array(),
    ("numpy", "dtype"): _dtype,
    ("collections", "OrderedDict"): lambda: {},
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",
}
"""Our own functions for the global names that checkpoints need."""
for _core in ("numpy.core", "numpy._core"):
    CALLS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    CALLS[f"{_core}.multiarray", "scalar"] = _scalar
    CALLS[f"{_core}.numeric", "_frombuffer"] = _frombuffer

STUBS = {
    "sheeprl.utils.fs": ("BufferFiles",),
    "sheeprl.utils.memmap": ("MemmapArray",),
    "sheeprl.data.buffers": (
        "ReplayBuffer",
        "SequentialReplayBuffer",
        "EnvIndependentReplayBuffer",
        "EpisodeBuffer",
    ),
    "numpy.random._pickle": ("__generator_ctor", "__bit_generator_ctor"),
    "numpy.random._pcg64": ("PCG64",),
    "numpy.random.bit_generator": ("SeedSequence", "__pyx_unpickle_SeedSequence"),
}
"""Names of classes whose objects are not needed and become `Stub`, besides all of optax."""


def stubbed(module: str, name: str) -> bool:
    return module == "optax" or module.startswith("optax.") or name in STUBS.get(module, ())


def short(value: Any) -> str:
    """A text from a file for a message: shortened, and without escape codes."""
    return line(value if isinstance(value, str | Global) else type(value).__name__, 200)
