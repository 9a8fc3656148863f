"""Read a safetensors file into memory that JAX uses without a copy.

JAX on a CPU uses a NumPy array in place if it starts at a multiple of 64 bytes, and copies it
otherwise. A memory-mapped file counts a second time while its pages are in use. Therefore each
array is read into its own aligned memory, and the weights of an agent are never in memory twice.
"""

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import safe_open

ALIGNMENT = 64
"""Alignment in bytes."""

_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}


def load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file, writable, in the order of the file.

    **Errors:** `SafetensorError` for a file of another format; `KeyError` for a dtype that NumPy
    does not have.
    """
    with safe_open(path, framework="numpy"):
        pass  # opening checks the header: names, shapes, dtypes, and that the offsets fit
    out = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, _ = entry["data_offsets"]
            file.seek(8 + length + begin)
            array = _aligned(entry["shape"], np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<"))
            file.readinto(array.reshape(-1).view(np.uint8).data)
            out[name] = array
    return out


def _aligned(shape: list[int], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
