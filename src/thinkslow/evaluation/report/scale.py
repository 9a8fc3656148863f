"""Scales of axes: the place of a value in percent of the length, and round numbers as ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

SHORT = 24
"""Characters that fit below a short axis, with gaps between its ticks."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label."""

    at: float
    """Percent of the axis."""
    text: str


@dataclass(frozen=True)
class Scale:
    """The range of an axis."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], *, room: float = 0.04) -> "Scale":
        """The range of all values, with `room` of its length at either end.

        >>> Scale.of([0.0, 10.0], room=0.1)
        Scale(low=-1.0, high=11.0)
        >>> Scale.of([3.0])  # a single value has some room too
        Scale(low=2.7, high=3.3)
        """
        found = list(values)
        low, high = min(found), max(found)
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            spread = 0.1 * abs(low) or 1.0
            return cls(low - spread, high + spread)
        spread = room * (high - low)
        return cls(low - spread, high + spread)

    def at(self, value: float) -> float:
        """Percent of the way from `low` to `high`.

        >>> Scale(-1.0, 3.0).at(0.0)
        25.0
        """
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def few_ticks(self) -> list[Tick]:
        """The ticks of a short axis: fewer where the labels are long, so that none overlap.

        >>> [tick.text for tick in Scale(0.0, 1.0).few_ticks()]
        ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
        >>> [tick.text for tick in Scale(-0.0006, 0.0006).few_ticks()]
        ['-0.0005', '0.0000', '0.0005']
        """
        found = [self.ticks(most) for most in (6, 5, 4, 3, 2, 1)]
        fits = (ticks for ticks in found if sum(len(tick.text) for tick in ticks) <= SHORT)
        return next(fits, found[-1])

    def ticks(self, most: int = 6) -> list[Tick]:
        """At least one and about at most `most` multiples of 1, 2, 2.5 or 5 times a power of ten.

        >>> [tick.text for tick in Scale(-0.3, 1.1).ticks(4)]
        ['0.0', '0.5', '1.0']
        >>> [tick.text for tick in Scale(0.0, 108_000.0).ticks(5)]
        ['0', '25,000', '50,000', '75,000', '100,000']
        """
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if factor * power >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [Tick(self.at(n * step), _written(n * step, step)) for n in range(first, last + 1)]


def _written(value: float, step: float) -> str:
    places = len(f"{step:.9f}".rstrip("0").partition(".")[2])
    large = max(abs(value), step)
    return (
        f"{value:.{places}f}"
        if large < 1e4 and places < 5
        else (f"{value:,.0f}" if 1e4 <= large < 1e7 else f"{value:.2g}")
    )
