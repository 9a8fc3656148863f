"""Format numbers with as many digits as their interval supports."""

import math

from thinkslow.evaluation.metrics import metric
from thinkslow.evaluation.reading import Estimate

LARGE, SMALL = 1e6, 1e-3
"""Numbers beyond these limits are shown with a power of ten."""


def metric_name(name: str) -> str:
    """The name of a metric on the page; an unknown metric keeps its own name.

    >>> metric_name("psnr"), metric_name("reward_nll")
    ('PSNR', 'reward nll')
    """
    return metric(name).label


def metric_unit(name: str) -> str:
    """The unit with its leading space, or nothing."""
    unit = metric(name).unit
    return f" {unit}" if unit else ""


def number(value: float | None, places: int = 2) -> str:
    """A plain number, or a dash.

    >>> number(3.14159), number(None), number(2.5e-7), number(2e7)
    ('3.14', '–', '2.5e-07', '2e+07')
    """
    if value is None:
        return "–"
    plain = value == 0 or 0.5 * 10**-places <= abs(value) < LARGE
    return f"{value:.{places}f}" if plain else f"{value:.3g}"


def estimated(estimate: Estimate | None, *, signed: bool = False, unit: str = "") -> str:
    """A number with its interval, to two significant digits of half the interval's width.

    >>> estimated(Estimate(12.345, (10.12, 14.49)))
    '12.3 [10.1, 14.5]'
    >>> estimated(Estimate(0.981, (0.48, 1.47)), signed=True, unit=" dB")
    '+0.98 dB [0.48, 1.47]'
    >>> estimated(Estimate(3.04e-7, (2.9e-7, 3.2e-7)))
    '3.04e-7 [2.90e-7, 3.20e-7]'
    >>> estimated(Estimate(-0.02, (-2.3, 2.4)), signed=True)
    '0.0 [-2.3, 2.4]'
    >>> estimated(None)
    '–'
    """
    if estimate is None:
        return "–"
    low, high = estimate.interval or (estimate.value, estimate.value)
    spread = (high - low) / 2 if estimate.interval else abs(estimate.value) / 10
    largest = max(abs(estimate.value), abs(low), abs(high))
    power = 0
    if largest >= LARGE or 0 < largest < SMALL:
        power = math.floor(math.log10(largest))
    places = _places(spread / 10.0**power)

    def shown(value: float, sign: str = "") -> str:
        rounded = round(value / 10.0**power, places)
        return f"{rounded or 0:{sign if rounded else ''}.{places}f}" + (
            f"e{power}" if power else ""
        )

    said = f"{shown(estimate.value, '+' if signed else '')}{unit}"
    return said if estimate.interval is None else f"{said} [{shown(low)}, {shown(high)}]"


def _places(spread: float) -> int:
    """Decimal places that show two significant digits of `spread`; 2 if there is none."""
    if spread <= 0:
        return 2
    return min(6, max(0, 1 - math.floor(math.log10(spread))))
