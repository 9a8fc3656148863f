"""Check the numbers of a configuration before an agent is built from it."""

import math
from collections.abc import Iterable
from typing import Any

from thinkslow.storage.faults import shown

WIDEST = 2**20
"""Largest width of a layer or a latent, and largest number of classes."""
DEEPEST = 64
"""Largest number of layers in one stack."""


def whole(config: Any, names: Iterable[str], *, least: int = 1, most: int = WIDEST) -> None:
    """Check integers. **Errors:** `ValueError` naming a field that is not between `least` and
    `most`.
    """
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(
                f"`{name}` must be a whole number from {least} to {most}; got {shown(value)}."
            )


def number(
    config: Any,
    names: Iterable[str],
    *,
    least: float = 0.0,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Check numbers. **Errors:** `ValueError` naming a field that is non-finite or out of range."""
    for name in names:
        value = getattr(config, name)
        good = isinstance(value, int | float) and type(value) is not bool
        # A JSON integer may be too large for a float, so it is compared and not converted.
        if not good or not -1e300 < value < 1e300 or not least <= value <= most or value >= below:
            limit = (
                f" and below {below:g}"
                if math.isfinite(below)
                else (f" and at most {most:g}" if math.isfinite(most) else "")
            )
            raise ValueError(
                f"`{name}` must be a finite number of {least:g} or more{limit}; got {shown(value)}."
            )


def flags(config: Any, names: Iterable[str]) -> None:
    """Check booleans. **Errors:** `ValueError` naming a field that is not true or false."""
    for name in names:
        if type(value := getattr(config, name)) is not bool:
            raise ValueError(f"`{name}` must be true or false; got {shown(value)}.")


def decoded(config: Any) -> None:
    """Check `decoded`. **Errors:** `ValueError` if it is neither None nor a tuple of names."""
    given = config.decoded
    if given is not None and not (
        isinstance(given, tuple) and all(isinstance(name, str) for name in given)
    ):
        raise ValueError(f"`decoded` must be a list of names or null; got {shown(given)}.")
