"""Student's t distribution with an integer number of degrees of freedom, without SciPy.

With t = sqrt(df) tan(angle) the probability of lying within ±t is a finite sum of powers of
cos(angle) (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4); the
quantile bisects on the angle. Accurate to about 1e-14.
"""

import math
from functools import lru_cache

import numpy as np


def within(t: float, df: int) -> float:
    """P(|T| <= t) for t >= 0 and `df` degrees of freedom, 1 or more.

    >>> round(within(4.3027, 2), 4)
    0.95
    """
    return _within(math.atan(t / math.sqrt(df)), df)


@lru_cache(maxsize=256)
def quantile(probability: float, df: int) -> float:
    """The quantile of T at a probability strictly between 0 and 1.

    >>> round(quantile(0.975, 2), 4), round(quantile(0.025, 2), 4)
    (4.3027, -4.3027)
    """
    if not 0 < probability < 1:
        raise ValueError(f"`probability` must be between 0 and 1; got {probability}.")
    wanted = abs(2 * probability - 1)
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _within(middle, df) < wanted else (low, middle)
    return math.copysign(math.sqrt(df) * math.tan(low), probability - 0.5)


def _within(angle: float, df: int) -> float:
    odd = df % 2
    j = 2 * np.arange(1, df // 2) + odd
    total = (df > 1) + float(np.cumprod((j - 1) / j * math.cos(angle) ** 2).sum())
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)
    return math.sin(angle) * total
