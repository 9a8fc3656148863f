"""Convert an agent's actions to valid actions of an environment.

Agents act with classes from 0 and with numbers in [-1, 1]. Numbers with two bounds are scaled to
them. Numbers with one bound are shifted, so that -1 is a lower bound and 1 an upper bound. Numbers
without bounds are not changed. Each integer of a range gets an equal share of [-1, 1].
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from thinkslow.envs.nested import brief, check_depth, repeated, within
from thinkslow.envs.observing import CLASSES, NUMBERS, PARTS
from thinkslow.envs.requirements import Unavailable
from thinkslow.plural import plural
from thinkslow.spaces import Space

Say = Callable[[str], None]

UNBOUNDED = 1e15
"""A bound beyond this value, such as the largest float32, counts as no bound."""
NAME = "action"
"""The name of an unnamed action."""


class Part:
    """One named part of an action, of one number or several."""

    def __init__(self, names: dict[str, Space], native: Callable[[Mapping[str, Any]], Any]):
        self.names, self.native = names, native


def actions(id: str, space: spaces.Space, say: Say) -> Part:
    """The agent's actions for a space, and the conversion back.

    **Errors:** `Unavailable` for a space that is not supported.
    """
    check_depth(id, space)
    found = parts(id, space, say)
    if not any(math.prod(one.shape) for one in found.names.values()):
        raise Unavailable(f"{id} acts in {brief(space)}, which leaves nothing to choose.")
    _check_count(id, len(found.names))
    return found


def parts(id: str, space: spaces.Space, say: Say, name: str = "") -> Part:
    """The actions of a space inside another, which may be empty."""
    if isinstance(space, spaces.Discrete):
        if space.n > CLASSES:
            raise Unavailable(
                f"{id} chooses among {plural(int(space.n), 'action')} ({name or NAME}); at most "
                f"{CLASSES:,} can be learnt. Wrap the environment: "
                '`wrappers=["module:Class"]`.'
            )
        return _discrete(name or NAME, int(space.n), int(space.start))
    if isinstance(space, spaces.Box):
        if (numbers := math.prod(space.shape)) > NUMBERS:
            raise Unavailable(
                f"{id} acts by {plural(numbers, 'number')} ({name or NAME}); at most "
                f'{NUMBERS:,} can be learnt. Wrap the environment: `wrappers=["module:Class"]`.'
            )
        return _box(name or NAME, space, say)
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        assert space.shape is not None
        _check_count(id, math.prod(space.shape))
        return _several(name or NAME, space)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        below = {
            key: parts(id, one, say, f"{name}/{key}" if name else f"{key}")
            for key, one in within(space)
        }
        inner = [name for part in below.values() for name in part.names]
        if twice := repeated(inner):
            raise Unavailable(
                f"{id} takes two actions named {twice}: parts are named by their path, with / "
                'between. Rename a key by a wrapper: `wrappers=["module:Class"]`.'
            )
        names = {name: space for part in below.values() for name, space in part.names.items()}

        def native(action: Mapping[str, Any]) -> Any:
            found = {key: part.native(action) for key, part in below.items()}
            return found if isinstance(space, spaces.Dict) else tuple(found.values())

        return Part(names, native)
    raise Unavailable(
        f"{id} acts in {brief(space)}. Actions must be Discrete, MultiDiscrete, MultiBinary, a "
        'Box, or a Dict or Tuple of these. Wrap the environment: `wrappers=["module:Class"]`.'
    )


def _check_count(id: str, count: int) -> None:
    """**Errors:** `Unavailable` for too many actions at once."""
    if count > PARTS:
        raise Unavailable(
            f"{id} takes {plural(count, 'action')} at once; at most {PARTS} can be learnt, "
            "because each has a layer of its own. Wrap the environment: "
            '`wrappers=["module:Class"]`.'
        )


def _discrete(name: str, classes: int, start: int) -> Part:
    def native(action: Mapping[str, Any]) -> int:
        return _class(name, action[name], classes) + start

    return Part({name: Space((), "int32", classes)}, native)


def _several(name: str, space: "spaces.MultiDiscrete | spaces.MultiBinary") -> Part:
    shape = space.shape
    assert shape is not None
    binary = isinstance(space, spaces.MultiBinary)
    counts = np.full(shape, 2).ravel() if binary else space.nvec.ravel()
    starts = np.zeros(shape, int).ravel() if binary else space.start.ravel()
    # Zero-padded, so that sorted names keep the order of the parts.
    digits = len(str(len(counts) - 1))
    names = {f"{name}/{i:0{digits}}": Space((), "int32", int(n)) for i, n in enumerate(counts)}

    def native(action: Mapping[str, Any]) -> np.ndarray:
        chosen = [
            _class(key, action[key], int(n)) + int(start)
            for key, n, start in zip(names, counts, starts, strict=True)
        ]
        return np.array(chosen, space.dtype).reshape(shape)

    return Part(names, native)


def _class(name: str, value: Any, classes: int) -> int:
    number = np.asarray(value).item()
    if number % 1 or not 0 <= number < classes:
        raise ValueError(f"`{name}` must be a whole number from 0 to {classes - 1}; got {number}.")
    return int(number)


def _box(name: str, space: spaces.Box, say: Say) -> Part:
    shape, whole = space.shape, np.issubdtype(space.dtype, np.integer)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    below, above = np.abs(low) < UNBOUNDED, np.abs(high) < UNBOUNDED
    both = below & above
    if (below != above).any():
        say(
            f"{name} has one bound only, in {space}: an agent's [-1, 1] begins at a lower bound "
            "and ends at an upper one"
        )
    if whole and not (below | above).all():
        say(f"{name} has whole numbers without bounds, in {space}: an agent takes -1, 0 and 1")
    # One step more, so that integers have equal shares; the last one is clipped below.
    width = np.where(both, high - low + whole, 0.0)
    first = np.where(both, low, 0.0)
    limits = np.where(below, low, -np.inf), np.where(above, high, np.inf)

    def native(action: Mapping[str, Any]) -> np.ndarray:
        given = np.asarray(action[name], np.float64).reshape(shape)
        if not np.isfinite(given).all():
            raise ValueError(f"`{name}` must be finite; got {given.tolist()}.")
        stretched = first + (np.clip(given, -1, 1) + 1) / 2 * width
        shifted = np.where(
            below, limits[0] + given + 1, np.where(above, limits[1] + given - 1, given)
        )
        out = np.where(
            both,
            np.floor(stretched) if whole else stretched,
            np.rint(shifted) if whole else shifted,
        )
        out = np.clip(out, low, high).astype(space.dtype)
        # Rounding to its type may exceed a bound.
        return np.asarray(np.clip(out, space.low, space.high), space.dtype)

    return Part({name: Space((math.prod(shape),), "float32")}, native)
