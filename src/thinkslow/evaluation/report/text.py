"""Numbers as a reader wants them: as many digits as their interval supports."""

import math

from thinkslow.evaluation.records import Estimate

METRICS = {
    "score": ("Score", "", "higher is better"),
    "length": ("Episode length", " decisions", ""),
    "psnr": ("PSNR", " dB", "higher is better"),
    "ssim": ("SSIM", "", "higher is better"),
    "mse": ("MSE", "", "lower is better"),
    "psnr+1": ("PSNR one step ahead", " dB", "higher is better"),
    "psnr+3": ("PSNR 3 steps ahead", " dB", "higher is better"),
    "psnr+8": ("PSNR 8 steps ahead", " dB", "higher is better"),
}
"""Name, unit and direction of each metric that an evaluation records."""


def metric_name(metric: str) -> str:
    """What a metric is called on the page; an unknown one keeps its own name.

    >>> metric_name("psnr"), metric_name("reward_nll")
    ('PSNR', 'reward nll')
    """
    return METRICS[metric][0] if metric in METRICS else metric.replace("_", " ")


def metric_unit(metric: str) -> str:
    """The unit with its leading space, or nothing."""
    return METRICS[metric][1] if metric in METRICS else ""


def metric_direction(metric: str) -> str:
    """Which way is better, where that is known."""
    return METRICS[metric][2] if metric in METRICS else ""


def number(value: float | None, places: int = 2) -> str:
    """A plain number, or a dash.

    >>> number(3.14159), number(None)
    ('3.14', '–')
    """
    return "–" if value is None else f"{value:.{places}f}"


def estimated(estimate: Estimate | None, *, signed: bool = False, unit: str = "") -> str:
    """A number with its interval, to two significant digits of half the interval's width.

    >>> estimated(Estimate(12.345, (10.12, 14.49)))
    '12.3 [10.1, 14.5]'
    >>> estimated(Estimate(0.981, (0.48, 1.47)), signed=True, unit=" dB")
    '+0.98 dB [0.48, 1.47]'
    >>> estimated(None)
    '–'
    """
    if estimate is None:
        return "–"
    sign = "+" if signed else ""
    if estimate.interval is None:
        return f"{estimate.value:{sign}.{_places(abs(estimate.value) / 10)}f}{unit}"
    low, high = estimate.interval
    places = _places((high - low) / 2)
    bounds = f"[{low:.{places}f}, {high:.{places}f}]"
    return f"{estimate.value:{sign}.{places}f}{unit} {bounds}"


def _places(spread: float) -> int:
    """Decimal places that show two significant digits of `spread`; 2 if there is none."""
    if spread <= 0:
        return 2
    return min(6, max(0, 1 - math.floor(math.log10(spread))))
