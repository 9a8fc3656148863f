"""Take arrays out of a foreign checkpoint by name, each once, so that none is left over
unnoticed.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from thinkslow.importers.formats.arrays import Stored
from thinkslow.plural import plural
from thinkslow.storage.store import Misfit


class Taken:
    """The arrays of a checkpoint. They are taken one by one, renamed and reordered.

    Each taken array goes to `out` under its new name, as float32.
    """

    def __init__(self, arrays: Mapping[str, Any], file: object):
        self.left = {name: array for name, array in arrays.items() if isinstance(array, Stored)}
        self.file = file
        self.out: dict[str, np.ndarray] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def count(self, pattern: str) -> int:
        """How many names match, with 0, 1, 2, ... for `{}` in the pattern."""
        index = 0
        while pattern.format(index) in self.left:
            index += 1
        return index

    def count_by(self, pattern: str, stride: int, first: int = 0) -> int:
        """As `count`, with the numbers `first`, `first + stride`, ..."""
        index = 0
        while pattern.format(first + stride * index) in self.left:
            index += 1
        return index

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of an array with this many axes.

        **Errors:** `Misfit` if it is missing, or has another number of axes.
        """
        if name not in self.left:
            raise Misfit(f"{self.file} does not hold a whole agent: {name} is missing.")
        found = self.left[name].shape
        if len(found) != axes:
            raise Misfit(
                f"{self.file}: {name} is {found}, expected {plural(axes, 'axis', 'axes')}."
            )
        return found

    def take(self, name: str, axes: int) -> np.ndarray:
        """The array with this name. **Errors:** those of `shape`, and `Damaged`."""
        self.shape(name, axes)
        return self.left.pop(name).read().astype(np.float32, copy=False)

    def move(self, new: str, name: str, axes: int = 1, order: Iterable[int] | None = None) -> None:
        """Move an array to its new name, with its axes in a new order."""
        array = self.take(name, axes)
        self.out[new] = np.asarray(array.transpose(*order) if order else array, order="C")

    def linear(self, new: str, name: str) -> None:
        """Weight (out, in) and bias of a dense layer."""
        self.move(f"{new}/kernel", f"{name}.weight", 2, (1, 0))
        self.move(f"{new}/bias", f"{name}.bias")

    def conv(self, new: str, name: str) -> None:
        """Weight (out, in, height, width) and bias of a convolution."""
        self.move(f"{new}/kernel", f"{name}.weight", 4, (2, 3, 1, 0))
        self.move(f"{new}/bias", f"{name}.bias")

    def dense(self, new: str, name: str, norm: str, new_norm: str | None = None) -> None:
        """A dense layer and the norm after it."""
        self.linear(new, name)
        self.move(f"{new_norm or f'{new}norm'}/scale", f"{norm}.weight")

    def rows(self, name: str, parts: Iterable[tuple[int, tuple[int, ...]]]) -> None:
        """Reorder the rows of a kernel that was moved. `parts` has the first row and the shape of
        each part, in the new order. A shape (c, h, w) becomes (h, w, c); (n,) stays.

        **Errors:** `Misfit` if the parts do not cover every row exactly once.
        """
        order = []
        for first, shape in parts:
            here = np.arange(first, first + int(np.prod(shape)))
            grid = here.reshape(shape)
            order.append(grid.transpose(1, 2, 0).ravel() if grid.ndim == 3 else here)
        index = np.concatenate(order)
        kernel = self.out[name]
        if sorted(index) != list(range(len(kernel))):
            raise Misfit(
                f"{self.file}: the layer that becomes {name} has "
                f"{plural(len(kernel), 'input')}, "
                f"expected {len(index)}."
            )
        self.out[name] = kernel[index]

    def finish(self, ignored: str) -> None:
        """**Errors:** `Misfit` if an array is left over whose name does not match `ignored`."""
        left = [name for name in self.left if not re.fullmatch(ignored, name)]
        if left:
            raise Misfit(
                f"{self.file} holds {plural(len(left), 'array')} that this kind of agent does "
                "not have, "
                f"first {left[0]}."
            )


def stripped(arrays: Mapping[str, Any], *wrappers: str) -> dict[str, Any]:
    """Remove the prefixes of wrapped modules, such as `_orig_mod.`, from the names.

    **Errors:** `Misfit` if two names become the same.
    """
    out: dict[str, Any] = {}
    for name, array in arrays.items():
        short = name
        for wrapper in wrappers:
            short = short.replace(wrapper, "")
        if short in out:
            raise Misfit(f"Two arrays of one checkpoint are named {short}.")
        out[short] = array
    return out
