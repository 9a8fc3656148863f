"""Student's t distribution with an integer number of degrees of freedom, without SciPy.

With t = sqrt(df) tan(angle) the probability of lying within ±t is a finite sum of powers of
cos(angle) (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4); the
quantile bisects on the angle. Accurate to about 1e-14. A small probability outside ±t would drown
in that error, so it is a series of positive terms, that of the incomplete beta function (26.5.4).
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


def outside(t: float, df: int) -> float:
    """P(|T| > t) for t >= 0 and `df` degrees of freedom, 1 or more; small ones to ten digits.

    >>> f"{outside(20.0, 100):.4g}"
    '9.994e-37'
    """
    inside, half = within(t, df), df / 2
    x = df / (df + t * t)
    if inside < 0.999 or x == 0:
        return 1 - inside
    n = np.arange(math.ceil(40 / -math.log(x)))  # the terms fall faster than x^n
    total = 1 + float(np.cumprod((half + 0.5 + n) / (half + 1 + n) * x).sum())
    beta = math.lgamma(half) + math.lgamma(0.5) - math.lgamma(half + 0.5)
    return total * math.exp(half * math.log(x) + 0.5 * math.log1p(-x) - math.log(half) - beta)


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
