"""Bootstrap percentiles over episodes, and the plain statistics that are exact for equal values."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

import numpy as np

Interval: TypeAlias = tuple[float, float]
"""Lower and upper end of an interval."""

_CHUNK = 50_000
"""Number of counts in memory at once, as floats: 400 kB, which a processor's cache holds."""
_LEAST = 1_000
"""Number of resamples that are worth a pass over the pairs, however many they are."""
NOTHING = (math.nan, math.nan)
"""The interval of a single value."""


def percentiles(
    values: np.ndarray, *, seed: int, resamples: int, level: float
) -> tuple[Interval, Interval, Interval]:
    """Bootstrap intervals of the mean, the interquartile mean and P(improve) of episodes.

    Counts of the pairs in sorted order give the interquartile mean by a cumulative sum, so that
    no resample is ever sorted.
    """
    _check(resamples, level)
    count = len(values)
    if count == 1:
        return NOTHING, NOTHING, NOTHING
    order = np.argsort(values, kind="stable")
    values = values[order]
    # deviations from one of the values, so that equal values give an exact result
    deviations, wins = values - values[0], wins_of(values)
    cut = count // 4
    means, trimmed, improved = [], [], []
    for part in _draws_in_parts(count, seed, resamples):
        counts = part[order]
        means.append(deviations @ counts)
        improved.append(wins @ counts)
        for row in range(1, count):  # `np.cumsum` takes ten times as long along this axis
            counts[row] += counts[row - 1]
        # without each end's quarter of the draws: the last value, less every gap below it times
        # the number of draws below the gap
        below = np.clip(counts[:-1], cut, count - cut) - cut
        trimmed.append((count - 2 * cut) * deviations[-1] - np.diff(deviations) @ below)
    mean, kept, improve = (
        _ends(np.concatenate(each) / number, level)
        for each, number in ((means, count), (trimmed, count - 2 * cut), (improved, count))
    )
    first = float(values[0])
    return (first + mean[0], first + mean[1]), (first + kept[0], first + kept[1]), improve


def percentiles_of_mean(values: np.ndarray, *, seed: int, resamples: int, level: float) -> Interval:
    """The first interval of `percentiles`, for a tenth of the cost of all three."""
    _check(resamples, level)
    count = len(values)
    if count == 1:
        return NOTHING
    deviations = values - values[0]
    means = [deviations @ counts for counts in _draws_in_parts(count, seed, resamples)]
    low, high = _ends(np.concatenate(means) / count, level)
    return float(values[0]) + low, float(values[0]) + high


def _check(resamples: int, level: float) -> None:
    check_level(level)
    if resamples < 1:
        raise ValueError(f"`resamples` must be 1 or more; got {resamples}.")


def _ends(resampled: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def _draws_in_parts(pairs: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """The counts of `_draws` as floats `[pairs, part]`."""
    drawn = _draws(pairs, seed, resamples)
    part = max(_LEAST, _CHUNK // pairs)
    for at in range(0, resamples, part):
        yield drawn[:, at : at + part].astype(np.float64)


@lru_cache(maxsize=4)
def _draws(pairs: int, seed: int, resamples: int) -> np.ndarray:
    """How often each pair is drawn in each resample, `[pairs, resamples]`.

    Drawn once for all measures and arms with the same number of pairs; 20 kB for each pair by
    default.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((pairs, resamples), np.uint16)
    part = max(_LEAST, _CHUNK // pairs)
    for at in range(0, resamples, part):
        number = min(part, resamples - at)
        pair = (rng.random((number, pairs)) * pairs).astype(np.intp)
        flat = (pair + pairs * np.arange(number)[:, None]).ravel()
        drawn = np.bincount(flat, minlength=number * pairs).reshape(number, -1)
        counts[:, at : at + number] = drawn.T
    counts.flags.writeable = False
    return counts


def mean_of(values: np.ndarray) -> float:
    return float(values[0] + (values - values[0]).mean())


def deviation_of(values: np.ndarray) -> float:
    """Standard deviation of the sample: exactly 0 for equal values, NaN for a single value."""
    return float(np.std(values - values[0], ddof=1)) if len(values) > 1 else math.nan


def trimmed_mean_of(values: np.ndarray) -> float:
    """The same as `scipy.stats.trim_mean(values, 0.25)`, and exact for equal values."""
    cut = len(values) // 4
    return mean_of(np.sort(values)[cut : len(values) - cut])


def wins_of(differences: np.ndarray) -> np.ndarray:
    """1 for a positive difference, 1/2 for zero, otherwise 0."""
    return (np.sign(differences) + 1) / 2


def improved_of(differences: np.ndarray) -> float:
    return float(wins_of(differences).mean())


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1; got {level}.")
