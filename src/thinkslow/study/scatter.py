"""Points with a number beside each: return against milliseconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thinkslow.evaluation.reading import Estimate, Kind, kind
from thinkslow.evaluation.report.figures import COLOURS, Point, downward, placed
from thinkslow.evaluation.report.scale import Scale, Tick
from thinkslow.evaluation.report.text import estimated

WIDTH, HEIGHT = 420, 226
"""Assumed size of a figure, in pixels, for placing labels."""
AROUND = ((9, 4), (-9, 4), (9, -9), (-9, -9), (9, 17), (-9, 17), (18, 4), (-18, 4))
"""Possible positions of a number relative to its point, in pixels, the best first."""


@dataclass(frozen=True)
class Mark:
    """A point with its number."""

    name: str
    kind: Kind
    colour: str
    point: Point
    number: int
    dx: int
    dy: int
    """Position of the number relative to the point, in pixels."""


@dataclass(frozen=True)
class Scatter:
    """Points over two axes."""

    title: str
    x_axis: str
    y_axis: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Mark]
    said: str
    """The content as text, for screen readers."""


def scatter(
    title: str, x_axis: str, y_axis: str, found: Sequence[tuple[str, float, Estimate]]
) -> Scatter:
    """Arms by their cost, on a logarithmic axis, and their gain.

    Args:
        title: the title of the figure.
        x_axis: the label of the horizontal axis.
        y_axis: the label of the vertical axis.
        found: name, cost and value of each.
    """
    x = Scale.of([math.log10(cost) for _, cost, _ in found], room=0.08)
    y = Scale.of([v for *_, each in found for v in (each.value, *(each.interval or ()))])
    points = [placed(x.at(math.log10(cost)), each, y, "") for _, cost, each in found]
    said = [f"{name}: {estimated(each)} at {cost:.3g} ms" for name, cost, each in found]
    marks = [
        Mark(name, kind(name), COLOURS[at % len(COLOURS)], point, at + 1, *beside)
        for at, ((name, *_), point, beside) in enumerate(
            zip(found, points, _beside(points), strict=True)
        )
    ]
    return Scatter(title, x_axis, y_axis, logarithmic(x), downward(y), marks, "; ".join(said))


def logarithmic(scale: Scale) -> list[Tick]:
    """Round numbers along an axis of logarithms to base 10.

    >>> [tick.text for tick in logarithmic(Scale(0.0, 1.0))]
    ['1', '2', '5', '10']
    """
    if scale.high - scale.low < 0.5:  # nearly linear, so ticks are as on a linear axis
        plain = Scale(10**scale.low, 10**scale.high)
        values = [float(tick.text.replace(",", "")) for tick in plain.ticks(5)]
    else:
        powers = range(math.floor(scale.low), math.ceil(scale.high) + 1)
        factors = (1, 2, 5) if scale.high - scale.low < 2 else (1,)
        values = [factor * 10.0**power for power in powers for factor in factors]
    inside = [v for v in values if scale.low - 1e-9 <= math.log10(v) <= scale.high + 1e-9]
    return [Tick(scale.at(math.log10(value)), f"{value:g}") for value in inside]


def _beside(points: Sequence[Point]) -> list[tuple[int, int]]:
    """A position for the number of each point, which avoids other numbers and, if possible,
    bars.
    """
    bars = [
        (point.x * WIDTH / 100, point.low * HEIGHT / 100, point.high * HEIGHT / 100)
        for point in points
    ]
    numbers: list[tuple[float, float]] = []
    out = []
    for at, point in enumerate(points):
        x, y = point.x * WIDTH / 100, point.y * HEIGHT / 100 - 4
        others = bars[:at] + bars[at + 1 :]
        free = [
            (dx, dy)
            for dx, dy in AROUND
            if all(abs(x + dx - a) > 11 or abs(y + dy - b) > 10 for a, b in numbers)
        ]
        clear = (
            (dx, dy)
            for dx, dy in free
            if all(abs(x + dx - a) > 8 or not top - 5 < y + dy < end + 5 for a, top, end in others)
        )
        dx, dy = next(clear, (free or AROUND)[0])
        numbers.append((x + dx, y + dy))
        out.append((dx, dy))
    return out
