"""Power analysis: how many units an evaluation needs, and which difference it can detect.

A unit is an episode, or a training seed if there are several: see `statistics`.
"""

import math
from statistics import NormalDist

from thinkslow.evaluation import student

ALPHA = 0.05
"""Significance level of every test."""
POWER = 0.8
"""Power of a planned evaluation."""
LOOKS = {5: 3.47, 8: 2.45, 12: 2.00}
"""O'Brien-Fleming bounds |z| by the number of training seeds at a look."""


def fewest_units(tests: int = 1, alpha: float = ALPHA) -> int:
    """The fewest units with which a result of this many corrected tests can be significant.

    >>> fewest_units(), fewest_units(8)
    (6, 9)
    """
    return 1 + math.ceil(math.log2(tests / alpha))


def detectable(deviation: float, units: int, tests: int = 1, alpha: float = ALPHA) -> float:
    """The smallest true difference that an evaluation of this size detects with a power of 80%.

    Args:
        deviation: standard deviation of the difference between units, as in `Paired`.
        units: number of episodes, or of training seeds.
        tests: number of tests that are corrected together; the plan is for Holm's first test.
        alpha: chance of any false positive among all tests.

    Infinite if there are too few units to show any difference.

    >>> round(detectable(1.0, 100), 2), detectable(1.0, 5)
    (0.28, inf)
    """
    if units < fewest_units(tests, alpha):
        return math.inf
    reach = student.quantile(1 - alpha / 2 / tests, units - 1) + student.quantile(POWER, units - 1)
    return reach * deviation / math.sqrt(units)


def power(
    deviation: float, units: int, effect: float, tests: int = 1, alpha: float = ALPHA
) -> float:
    """The power: the probability that an evaluation of this size detects a true difference of
    `effect`.

    The other arguments are those of `detectable`, which `power` inverts.

    >>> round(power(1.0, 100, detectable(1.0, 100)), 6), power(1.0, 5, 9.0)
    (0.8, 0.0)
    """
    if units < fewest_units(tests, alpha):
        return 0.0
    if deviation == 0:
        return float(effect != 0)
    reached = abs(effect) * math.sqrt(units) / deviation
    over = reached - student.quantile(1 - alpha / 2 / tests, units - 1)
    tail = student.outside(abs(over), units - 1) / 2
    return 1 - tail if over > 0 else tail


def units_needed(deviation: float, effect: float, tests: int = 1) -> int:
    """The number of units with which a true difference of `effect` is `detectable`.

    >>> units_needed(deviation=7.0, effect=2.0)
    99
    """
    if not (deviation >= 0 and effect > 0 and math.isfinite(deviation / effect)):
        raise ValueError(
            f"`deviation` must be 0 or more and `effect` above 0; got {deviation}, {effect}."
        )
    normal = NormalDist()
    reach = normal.inv_cdf(1 - ALPHA / 2 / tests) + normal.inv_cdf(POWER)
    units = max(fewest_units(tests), math.floor((reach * deviation / effect) ** 2))
    while detectable(deviation, units, tests) > effect:
        units += 1
    return units


def look(seeds: int) -> float:
    """The two-sided p-value below which a study of 12 training seeds may stop at this look.

    O'Brien-Fleming bounds |z| of 3.47, 2.45 and 2.00 at 5, 8 and 12 training seeds: over all three
    looks a false positive has a chance of 5% at most. With five seeds no p-value is below 1/16, so
    the first look can stop a study only for futility.

    **References:** O'Brien and Fleming, A Multiple Testing Procedure for Clinical Trials,
    Biometrics 35(3), 1979.

    >>> round(look(8), 4)
    0.0143
    """
    if seeds not in LOOKS:
        raise ValueError(f"`seeds` must be one of {', '.join(map(str, LOOKS))}; got {seeds}.")
    return 2 * NormalDist().cdf(-LOOKS[seeds])
