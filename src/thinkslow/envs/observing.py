"""Convert observations of an environment to named arrays of a known type, with checks.

Every observation is compared with its declared space: shape, type and range. A difference is an
error that shows both values. If only one meaning is possible, the observation is converted, with
one message. Non-finite numbers are counted and replaced by 0.

Images are recognised by type, range and shape, or named by the user. They become uint8 of
(size, size, channels): a grey image (height, width), channels before or after the sides, a stack of
frames, numbers in [0, 1], [-1, 1] or [0, 255], bytes of 0 and 1.
"""

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image

from thinkslow.envs.failures import Mismatch, failure
from thinkslow.envs.nested import Path, brief, check_depth, leaves, repeated
from thinkslow.envs.requirements import Unavailable
from thinkslow.plural import plural
from thinkslow.spaces import Space, masked

CHANNELS = 16
"""An axis of at most this length, next to two longer ones, holds channels or frames."""
SIDE = 16
"""Numbers other than bytes with shorter sides are not an image, unless the user says so."""
NUMBERS = 4096
"""A longer box is probably an image that was not recognised; a longer vector is too large."""
PARTS = 256
"""Each part of an observation, and each action, has layers of its own, which are compiled apart."""
CLASSES = 10_000
"""A discrete value with more classes is read as a number: one-hot, it would be too large."""
CHOICES = 16
"""Up to this many discrete values are one-hot each; more are read as numbers."""
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
"""Ranges of floats that may be pixels."""

Say = Callable[[str], None]


class Unreadable(ValueError):
    """A value that cannot become an array; the message describes it."""


def array_of(value: Any) -> np.ndarray:
    """A value of an environment as NumPy's array. The small types of JAX become float32.

    **Errors:** `Unreadable` for rows of different lengths, and for an object that does not let
    itself be read, such as a tensor with a gradient or on another device.
    """
    try:
        array = np.asarray(value)
    except Exception as error:  # of any library
        if isinstance(value, list | tuple) and isinstance(error, ValueError):
            raise Unreadable("rows of different lengths") from error
        what = failure(error, "")
        raise Unreadable(
            f"a {type(value).__name__} that cannot be read ({what.kind}: {what.message})"
        ) from error
    small = array.dtype.kind == "V" and np.can_cast(array.dtype, np.float32)
    return array.astype(np.float32) if small else array


class Sight:
    """One observed quantity: its path, its declared space, and its array for agents."""

    def __init__(self, path: Path, name: str, declared: spaces.Space, space: Space, say: Say):
        self.path, self.name, self.declared, self.space = path, name, declared, space
        self._say, self._said = say, set[str]()

    def see(self, value: Any) -> tuple[np.ndarray, bool]:
        """The agent's array for a value, and whether all its numbers were finite.

        **Errors:** `Mismatch` for a value that differs from the declared space.
        """
        raise NotImplementedError

    def shaped(self, value: Any) -> np.ndarray:
        """The value in the declared shape, if the two differ only by axes of length 1."""
        declared = self.declared.shape
        assert declared is not None
        if hidden := masked(value):
            raise self.mismatch(
                plural(hidden, "masked value"), "Fill them, as by `.filled(0)`, or show NaN."
            )
        try:
            array = array_of(value)
        except Unreadable as error:
            raise self.mismatch(str(error)) from error
        if array.dtype.kind not in "biuf":
            kind = f" of {value.dtype}" if hasattr(value, "dtype") else ""
            raise self.mismatch(f"a {type(value).__name__}{kind}")
        if array.shape == declared:
            return array
        if _long(array.shape) != _long(declared):
            raise self.mismatch(str(array.shape))
        self.once(f"shows {array.shape}, declared {declared}: read as declared")
        return array.reshape(declared)

    def mismatch(self, shown: str, hint: str = "") -> Mismatch:
        hint = hint or "Fix the environment's observation_space or its observations."
        return Mismatch(
            f"{self.named} shows {shown}, declared {self.described}. {hint} Or wrap it: "
            '`wrappers=["module:Class"]`.'
        )

    def once(self, what: str) -> None:
        """Report something about this quantity, once."""
        if what not in self._said:
            self._said.add(what)
            self._say(f"{self.named} {what}")

    @property
    def named(self) -> str:
        return f"its observation {'/'.join(self.path)}" if self.path else "its observation"

    @property
    def described(self) -> str:
        declared = self.declared
        if isinstance(declared, spaces.Box):
            low, high = _number(declared.low.min(initial=0)), _number(declared.high.max(initial=0))
            return f"{declared.shape} {declared.dtype} in [{low}, {high}]"
        return " ".join(str(declared).split())


class Discrete(Sight):
    """A discrete quantity, counted from 0."""

    def __init__(
        self,
        path: Path,
        name: str,
        declared: spaces.Space,
        say: Say,
        *,
        start: int,
        classes: int,
        part: int | None = None,
    ):
        super().__init__(path, name, declared, Space((), "int32", classes), say)
        self.start, self.classes, self.part = start, classes, part

    def see(self, value: Any) -> tuple[np.ndarray, bool]:
        array = self.shaped(value)
        number = array.item() if self.part is None else array[self.part].item()
        if number - self.start not in range(self.classes):
            raise self.mismatch(f"{number}")
        return np.asarray(number - self.start, np.int32), True


class Vector(Sight):
    """Numbers as float32; an array with three or more axes is flattened."""

    def __init__(self, path: Path, name: str, declared: spaces.Space, say: Say):
        shape = declared.shape
        assert shape is not None
        if len(shape) > 2:
            shape = (math.prod(shape),)
            say(
                f"{'/'.join(path) or 'its observation'} of {declared.shape} is no image: read as "
                f"{plural(shape[0], 'number')}"
            )
        super().__init__(path, name, declared, Space(shape, "float32"), say)
        self._bounds = _bounds(declared)

    def see(self, value: Any) -> tuple[np.ndarray, bool]:
        array = self.shaped(value)
        if self._bounds is not None and array.dtype.kind != "b":
            low, high = self._bounds
            slack = 1e-5 * np.maximum(1.0, np.abs(array, dtype=np.float64))
            if ((array < low - slack) | (array > high + slack)).any():
                found = f"[{_number(array.min())}, {_number(array.max())}]"
                self.once(f"goes beyond its bounds, {found}, declared {self.described}")
                self._bounds = None
        with np.errstate(over="ignore"):  # found as non-finite just below
            seen = array.astype(np.float32).reshape(self.space.shape)
        if array.dtype.kind in "iu" and array.dtype.itemsize > 2:
            kept, shown = seen.ravel(), array.ravel()
            exact = shown.astype(np.float64)
            large = np.abs(exact) >= 2**53  # which float64 may have rounded as well
            if (kept != exact).any() or [*map(int, kept[large])] != shown[large].tolist():
                self.once("holds integers beyond 2^24, which float32 rounds; divide or split them")
        finite = np.isfinite(seen)
        return (seen, True) if finite.all() else (np.where(finite, seen, np.float32(0)), False)


class Picture(Sight):
    """An image, as uint8 of (size, size, channels)."""

    def __init__(
        self,
        path: Path,
        name: str,
        declared: spaces.Box,
        say: Say,
        *,
        axes: tuple[int, ...],
        scale: tuple[float, float],
        size: int,
    ):
        ordered = [declared.shape[axis] for axis in axes]
        channels = math.prod(ordered[2:])
        super().__init__(path, name, declared, Space((size, size, channels), "uint8"), say)
        self.axes, self.low, self.high, self.size = axes, *scale, size
        self._sides = (ordered[0], ordered[1], channels)
        self._whole = np.issubdtype(declared.dtype, np.integer)
        if axes != tuple(range(len(axes))) or channels > 4:
            self.once(f"of {declared.shape} is read as an image of {self._sides}")
        if declared.dtype == np.uint8 and self.high == 1.0:
            self.once("is of bytes 0 and 1: read as black and white")
        self._bytes_as_floats = False
        self._dark = self.high == 255.0 and not self._whole

    def see(self, value: Any) -> tuple[np.ndarray, bool]:
        array = self.shaped(value)
        finite = True
        if array.dtype.kind == "f":
            good = np.isfinite(array)
            if not (finite := bool(good.all())):
                array = np.where(good, array, max(self.low, 0.0))
        self._compare(array)
        if (self.low, self.high) != (0.0, 255.0):
            array = (array.astype(np.float64) - self.low) * (255.0 / (self.high - self.low))
        if array.dtype != np.uint8:
            array = np.clip(np.rint(array), 0, 255).astype(np.uint8)
        image = array.transpose(self.axes).reshape(self._sides)
        if image.shape == self.space.shape:  # a copy, as the environment may reuse its array
            return np.array(image), finite
        return _resized(image, self.size), finite

    def _compare(self, array: np.ndarray) -> None:
        """**Errors:** `Mismatch` for pixels of another type or range than declared."""
        if array.dtype == np.uint8 and self.high == 255.0:
            return
        low, high = float(array.min(initial=0)), float(array.max(initial=0))
        slack = 0.01 * (self.high - self.low) if array.dtype.kind == "f" else 0.0
        shown = f"{array.dtype} in [{_number(low)}, {_number(high)}]"
        if low < self.low - slack or high > self.high + slack:
            raise self.mismatch(shown)
        hint = f"If its pixels are from 0 to 1, declare Box(0, 1, {array.shape}, float32)."
        if self._dark and high > 0:  # the first picture that is not black tells
            self._dark = False
            if high <= 1:
                self.once(f"shows {shown}, declared {self.described}: almost black. {hint}")
        whole = self._whole and self.high == 255.0
        if whole and array.dtype.kind in "fb" and not self._bytes_as_floats:
            if high > 1:
                self._bytes_as_floats = True
                self.once(f"shows {shown}, declared {self.described}: rounded")
            elif high > 0:  # an all-black image fits any range
                raise self.mismatch(shown, hint)


def sights(
    id: str, declared: spaces.Space, *, size: int, image: Collection[str], say: Say
) -> list[Sight]:
    """The parts of an environment's observation space that agents see.

    Parts of dictionaries and tuples are named by their path, `a/b`. Unsupported parts, such as
    text, are left out with a message.

    **Errors:** `Unavailable` if no part is supported, or if a part could be read in more than one
    way; `ValueError` for a name in `image` that is not observed or cannot be an image.
    """
    check_depth(id, declared)
    found: list[Sight] = []
    told, left = set(image), []
    for path, space in leaves(declared):
        name = "/".join(path)
        is_told = name in told or (not path and bool(told & {"image", "observation"}))
        told -= {name} if path else {name, "image", "observation"}
        if 0 in (space.shape or ()):
            left.append(f"{name or 'its observation'} (of no numbers)")
        elif (one := _sights(id, path, space, size=size, told=is_told, say=say)) is None:
            left.append(f"{name or 'its observation'} ({type(space).__name__})")
        else:
            found += one
    if told:
        names = ", ".join("/".join(path) for path, _ in leaves(declared) if path) or "image"
        raise ValueError(f"`image` must name observations, {names}; got {', '.join(sorted(told))}.")
    if len(found) > PARTS:
        raise Unavailable(
            f"{id} shows {plural(len(found), 'part')}; at most {PARTS} can be learnt, because each "
            'has layers of its own. Join those of a kind: `wrappers=["module:Class"]`.'
        )
    if not found:
        raise Unavailable(
            f"{id} shows {brief(declared)}, of which no agent here reads anything: boxes, discrete "
            "values, and dictionaries or tuples of them are read. Wrap it: "
            '`wrappers=["module:Class"]`.'
        )
    if twice := repeated(one.name for one in found):
        raise Unavailable(
            f"{id} shows two things as {twice}: parts are named by their path, with / between. "
            'Rename a key by a wrapper: `wrappers=["module:Class"]`.'
        )
    if left:
        say(f"left out {', '.join(left)}: no agent here reads it")
    return found


def _sights(
    id: str, path: Path, space: spaces.Space, *, size: int, told: bool, say: Say
) -> list[Sight] | None:
    """One space in the form for agents; None if it is not supported."""
    name = "/".join(path)
    if told and not isinstance(space, spaces.Box):
        raise ValueError(f"`image` must name boxes; {name or 'the observation'} is {brief(space)}.")
    vector = partial(Vector, path, name or "vector", space, say)
    if isinstance(space, spaces.Discrete):
        start, classes = int(space.start), int(space.n)
        if classes > CLASSES:
            say(f"{name or 'its observation'} of {classes:,} values is read as a number")
            return [vector()]
        return [Discrete(path, name or "vector", space, say, start=start, classes=classes)]
    if (
        isinstance(space, spaces.MultiDiscrete)
        and len(space.shape) == 1
        and (space.shape[0] <= CHOICES)
    ):
        return [
            Discrete(
                path,
                f"{name or 'vector'}/{part}",
                space,
                say,
                start=int(start),
                classes=int(n),
                part=part,
            )
            for part, (n, start) in enumerate(zip(space.nvec, space.start, strict=True))
        ]
    boxed = isinstance(space, spaces.Box)
    if boxed and (how := as_image(space, told=told)) is not None:
        axes, scale = how
        return [Picture(path, name or "image", space, say, axes=axes, scale=scale, size=size)]
    if told:
        raise ValueError(
            f"{name or 'the observation'} of {id} cannot be an image: it is {brief(space)}. An "
            "image has two sides, channels or frames at most, and bounds."
        )
    if not boxed and not isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return None
    if (count := math.prod(space.shape)) > NUMBERS:
        hint = (
            " and no image that is recognised. If it is an image, name it: "
            f'`image=["{name or "image"}"]`. Otherwise wrap it'
        )
        raise Unavailable(
            f"{id} shows {name or 'its observation'} as {brief(space)}: {plural(count, 'number')},"
            f"{hint if boxed else f' more than {NUMBERS:,}. Wrap it'}: "
            '`wrappers=["module:Class"]`.'
        )
    return [vector()]


def as_image(
    space: spaces.Box, *, told: bool = False
) -> tuple[tuple[int, ...], tuple[float, float]] | None:
    """The order of axes that makes a box (height, width, channels…), and the range of its
    pixels; None if it is not certainly an image.

    >>> as_image(spaces.Box(0, 255, (4, 84, 84), np.uint8))
    ((1, 2, 0), (0.0, 255.0))
    >>> as_image(spaces.Box(-np.inf, np.inf, (64, 64, 3), np.float32))
    """
    if (axes := _axes(space.shape)) is None or not space.shape:
        return None
    low, high = float(space.low.min()), float(space.high.max())
    sides = [space.shape[axis] for axis in axes[:2]]
    channels = math.prod(space.shape[axis] for axis in axes[2:])
    if space.dtype == np.uint8 and (told or (low, high) == (0.0, 255.0) or len(axes) > 2):
        if len(axes) == 2 and min(sides) < SIDE and not told:
            return None
        return axes, (0.0, 1.0 if high <= 1 else 255.0)
    if told:
        return (axes, (low, high)) if np.isfinite([low, high]).all() and low < high else None
    whole = np.issubdtype(space.dtype, np.integer)
    ranges = ((0.0, 255.0),) if whole else RANGES
    pixels = channels in (1, 3, 4) or channels % 3 == 0 or len(axes) == 2
    if (low, high) in ranges and min(sides) >= SIDE and pixels:
        return axes, (low, high)
    return None


def _axes(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of axes that gives height, width, then frames and channels; None if it is
    ambiguous.
    """
    rank = len(shape)
    if rank == 2:
        return (0, 1)
    few = [size <= CHANNELS for size in shape]
    if rank == 3:
        if shape[2] <= 4 or (few[2] and shape[2] < min(shape[:2])):
            return (0, 1, 2)
        if few[0] and shape[0] < min(shape[1:]):
            return (1, 2, 0)
    if rank == 4 and few[0]:  # a stack of frames
        if shape[3] <= 4 and shape[3] < min(shape[1:3]):
            return (1, 2, 0, 3)
        if shape[1] <= 4 and shape[1] < min(shape[2:]):
            return (2, 3, 0, 1)
    return None


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """The image resized to a square by area averaging, as for the official agents."""
    channels = [
        np.asarray(Image.fromarray(image[..., index]).resize((size, size), Image.Resampling.BOX))
        for index in range(image.shape[-1])
    ]
    return np.stack(channels, -1)


def _bounds(space: spaces.Space) -> tuple[Any, Any]:
    """The smallest and the largest numbers of a space."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    assert isinstance(space, spaces.Discrete)
    return space.start, space.start + space.n - 1


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _number(value: Any) -> str:
    return f"{float(value):.4g}"
