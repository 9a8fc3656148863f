"""Bootstrap percentiles over episodes, and the plain statistics that are exact for equal values."""

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np

Interval: TypeAlias = tuple[float, float]
"""Lower and upper end of an interval."""

_CHUNK = (
    2_000_000  # number of counts in memory at once, as floats: 16 MB for each intermediate array
)


def percentiles(
    values: np.ndarray, *, seed: int, resamples: int, level: float
) -> tuple[Interval, Interval, Interval]:
    """Bootstrap intervals of the mean, the interquartile mean and P(improve) of episodes.

    Counts of the pairs in sorted order give the interquartile mean by a cumulative sum, so that
    no resample is ever sorted.
    """
    check_level(level)
    if resamples < 1:
        raise ValueError(f"`resamples` must be 1 or more; got {resamples}.")
    count = len(values)
    if count == 1:
        nothing = (math.nan, math.nan)
        return nothing, nothing, nothing
    drawn = _draws(count, seed, resamples)
    order = np.argsort(values, kind="stable")
    # deviations from one of the values, so that equal values give an exact result
    deviations, wins = values - values[0], wins_of(values)
    rows = max(1, _CHUNK // count)
    means, trimmed, improved = [], [], []
    for at in range(0, resamples, rows):
        counts = drawn[at : at + rows].astype(np.float64)
        means.append(values[0] + counts @ deviations / count)
        improved.append(counts @ wins / count)
        kept = _trim(counts[:, order])
        trimmed.append(values[0] + kept @ deviations[order] / (count - 2 * (count // 4)))
    ends = [(1 - level) / 2, (1 + level) / 2]
    first, second, third = (
        np.quantile(np.concatenate(each), ends).tolist() for each in (means, trimmed, improved)
    )
    return (first[0], first[1]), (second[0], second[1]), (third[0], third[1])


@lru_cache(maxsize=4)
def _draws(pairs: int, seed: int, resamples: int) -> np.ndarray:
    """How often each pair is drawn in each resample, `[resamples, pairs]`.

    Drawn once for all measures and arms with the same number of pairs; 20 kB for each pair by
    default.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, pairs), np.uint16)
    rows = max(1, _CHUNK // pairs)
    for at in range(0, resamples, rows):
        number = min(rows, resamples - at)
        pair = (rng.random((number, pairs)) * pairs).astype(np.intp)
        flat = (pair + pairs * np.arange(number)[:, None]).ravel()
        counts[at : at + number] = np.bincount(flat, minlength=number * pairs).reshape(number, -1)
    counts.flags.writeable = False
    return counts


def _trim(counts: np.ndarray) -> np.ndarray:
    """Counts `[resamples, pairs]` in sorted order, without each end's quarter of the draws."""
    upto = np.cumsum(counts, axis=1)
    drawn = upto[:, -1:]
    cut = np.floor(drawn / 4)
    before = upto - counts
    return np.clip(upto, cut, drawn - cut) - np.clip(before, cut, drawn - cut)


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
