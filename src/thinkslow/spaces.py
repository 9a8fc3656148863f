"""The observations and actions of an agent, described without a simulator.

A `Space` is the shape, the type and, for a discrete quantity, the number of values. Manifests
store it, and networks get their sizes from it. Nothing here knows Gymnasium.
"""

import dataclasses
from typing import Any

DTYPES = (
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
)
"""NumPy's names of the allowed types."""


@dataclasses.dataclass(frozen=True)
class Space:
    """One observed quantity, or the action.

    >>> Space((64, 64, 3), "uint8")
    Space(shape=(64, 64, 3), dtype='uint8', classes=None)
    >>> Space((), "int32", classes=3).discrete
    True
    """

    shape: tuple[int, ...]
    """Sizes of the axes, without the batch."""
    dtype: str
    """NumPy's name of the type, such as `uint8`."""
    classes: int | None = None
    """A discrete quantity takes the values 0 … classes - 1; `None`: it is continuous."""

    def __post_init__(self) -> None:
        if not all(type(size) is int and size >= 0 for size in self.shape):
            raise ValueError(f"`shape` must have whole sizes of 0 or more; got {self.shape}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}; got {self.dtype!r}.")
        if self.classes is not None and (type(self.classes) is not int or self.classes < 1):
            raise ValueError(f"`classes` must be 1 or more, or None; got {self.classes}.")

    @property
    def discrete(self) -> bool:
        """Whether the values are classes rather than numbers."""
        return self.classes is not None

    @property
    def is_image(self) -> bool:
        """Whether it is an image: height, width and channels."""
        return len(self.shape) == 3

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads back.

        >>> Space.from_json(Space((4,), "float32").to_json()) == Space((4,), "float32")
        True
        """
        return {"shape": list(self.shape), "dtype": self.dtype, "classes": self.classes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Space":
        """The space that `to_json` wrote; a missing or unknown key is an error."""
        expected = {"shape", "dtype", "classes"}
        if not isinstance(data.get("shape"), list | tuple):
            raise ValueError(f"A space's shape is a list of sizes; got {data.get('shape')!r}.")
        if set(data) != expected:
            raise ValueError(f"A space has the keys {sorted(expected)}; got {sorted(data)}.")
        return cls(tuple(data["shape"]), data["dtype"], data["classes"])


def masked(value: Any) -> int:
    """How many numbers a masked array of NumPy, or a list of such arrays, leaves out.

    `np.asarray` would read whatever lies under the mask.

    >>> import numpy as np
    >>> masked(np.ma.array([1, 2, 3], mask=[False, True, False]))
    1
    """
    import numpy as np  # help texts load this module, too

    parts = value if isinstance(value, list | tuple) else [value]
    return sum(int(np.ma.count_masked(one)) for one in parts if np.ma.isMaskedArray(one))
