"""What a step returns beside the observation: its reward, and whether the episode is over."""

import contextlib
import numbers
from typing import Any

import numpy as np

from thinkslow.envs.failures import Mismatch
from thinkslow.envs.observing import Unreadable, array_of
from thinkslow.spaces import masked


def reward_of(value: Any) -> float:
    """The reward of a step.

    **Errors:** `Mismatch` for anything but one number: a text, a date or None is none.
    """
    if type(value) is float:
        return value
    array = _one("reward", "one number", value)
    number: Any = array.item()
    real = isinstance(number, numbers.Number) and not isinstance(number, complex)
    if array.dtype.kind in "biuf" or (array.dtype.kind == "O" and real):
        # an integer of hundreds of digits; a signalling NaN of a `Decimal`
        with contextlib.suppress(OverflowError, ValueError), np.errstate(all="ignore"):
            return float(array.astype(np.float64).item())
    raise Mismatch(f"its reward must be one number; got {_written(value)}.")


def flag_of(name: str, value: Any) -> bool:
    """Whether a step ended the episode.

    **Errors:** `Mismatch` for anything but one truth value: a text is always true.
    """
    if isinstance(value, bool):
        return value
    array = _one(f"`{name}`", "true or false", value)
    if array.dtype.kind not in "biuf" or array.item() not in (0, 1):
        raise Mismatch(f"its `{name}` must be true or false; got {_written(value)}.")
    return bool(array.item())


def _one(name: str, expected: str, value: Any) -> np.ndarray:
    """An array of one element, not masked.

    **Errors:** `Mismatch`.
    """
    try:
        array = array_of(value)
    except Unreadable as error:
        raise Mismatch(f"its {name} must be {expected}; got {error}.") from error
    if array.size != 1 or masked(value):
        raise Mismatch(f"its {name} must be {expected}; got {_written(value)}.")
    return array


def _written(value: Any) -> str:
    """A value in short; an integer of thousands of digits has no `repr`."""
    if isinstance(value, int) and value.bit_length() > 1024:
        return "an integer too large for a float"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
