"""Reading pickled arrays without running what a pickle asks for.

A pickle is a program. This unpickler knows the few globals that NumPy arrays need and refuses
every other by name, before anything is imported or called.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]

ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    ALLOWED[module, "_reconstruct"] = _RECONSTRUCT
    ALLOWED[module, "scalar"] = _SCALAR


class Refused(ValueError):
    """A pickle that asks for something other than arrays."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise Refused(
                f"A checkpoint may hold arrays only; this one asks for {module}.{name}. "
                f"Nothing was run. Do not open it with other tools."
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise Refused(
            f"A checkpoint may hold arrays only; this one asks for persistent id {pid!r}."
        )


def load(path: Path) -> Any:
    """What the file holds: arrays, numbers, strings, lists and dictionaries.

    **Errors:** `Refused` for anything else; `ValueError` for a damaged file.
    """
    try:
        return _Unpickler(io.BytesIO(path.read_bytes())).load()
    except Refused:
        raise
    except Exception as error:
        # A pickle program can fail in any way its opcodes can: all of them mean damage.
        raise ValueError(f"{path} is not a readable checkpoint: {error}.") from error
