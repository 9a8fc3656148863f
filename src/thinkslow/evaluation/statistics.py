"""Paired statistics of two arms that played the same episodes.

A pair is one (training seed, environment seed); its difference is refined minus base. Pairs
of one training seed share a checkpoint and so are not independent. Therefore:

- with one training seed the unit is the episode: intervals are bootstrap percentiles and hold for
  that one checkpoint, not for the method;
- with several (`clusters` names each pair's training seed) the unit is the training seed: each
  seed gives one number, seeds count alike, and the interval is Student's t of these numbers
  with seeds - 1 degrees of freedom. Percentiles of three to five seeds are much too narrow.

p-values come from a t test over the units. They are never below 2^(1 - units), the smallest value
of an exact sign-flip test. If that floor is above 5% (fewer than six pairs or training seeds),
`untested` says why there is no test.

Nothing here knows arms, files or metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from thinkslow.evaluation import student
from thinkslow.evaluation.bootstrap import (
    Interval,
    check_level,
    deviation_of,
    improved_of,
    mean_of,
    percentiles,
    percentiles_of_mean,
    trimmed_mean_of,
    wins_of,
)
from thinkslow.evaluation.planning import ALPHA
from thinkslow.plural import plural

Unit: TypeAlias = Literal["episode", "training seed"]
Untested: TypeAlias = Literal["few episodes", "few training seeds"]


@dataclass(frozen=True)
class Paired:
    """Statistics of paired differences. Intervals are (low, high)."""

    mean: float
    """Mean difference, in units of the metric; training seeds count alike."""
    interval: Interval
    """Interval of the mean; (nan, nan) for a single pair, which has no spread."""
    trimmed_mean: float
    """Interquartile mean: the mean without the lowest and the highest quarter of pairs; with
    several training seeds the mean of theirs."""
    trimmed_interval: Interval
    p_improve: float
    """P(difference > 0) + P(difference = 0) / 2 over pairs; training seeds count alike."""
    p_improve_interval: Interval
    p_value: float
    """Two-sided, of a mean difference of zero: t test over the units, at least 2^(1 - units)."""
    deviation: float
    """Standard deviation of the difference between units; nan for a single unit."""
    pairs: int
    clusters: int
    unit: Unit
    """The unit over which the interval generalises: episodes or training seeds."""
    untested: Untested | None
    """Why no result could be significant at 5%; None if there is a test."""


@dataclass(frozen=True)
class Mean:
    """The mean of one arm's values with its interval, (nan, nan) for a single value."""

    mean: float
    interval: Interval
    episodes: int
    clusters: int
    unit: Unit


@dataclass(frozen=True)
class Equivalence:
    """Whether two arms do the same within a margin: two one-sided tests."""

    margin: float
    """The margin, in units of the metric."""
    p_value: float
    """p-value of a difference of the margin or more: a small value means "equivalent"."""


@dataclass(frozen=True)
class Interaction:
    """How much larger an effect is in one setting than in another."""

    difference: float
    interval: Interval
    p_value: float
    """Two-sided p-value; at least the probability of one of the two most extreme labelings of the
    units.
    """
    unit: Unit
    untested: Untested | None


def paired(
    differences: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    name: str = "differences",
) -> Paired:
    """Summarise the differences of pairs `[pairs]` with intervals and a test.

    Args:
        differences: refined minus base, one number a pair.
        clusters: each pair's training seed (or any label), `[pairs]`; None for a single one.
        seed: seed of the bootstrap over episodes; equal seeds give equal intervals.
        resamples: number of bootstrap resamples.
        level: coverage of the intervals, between 0 and 1.
        name: what the values are, for error messages, such as "score of arm sig".

    **Errors:** `ValueError` for no pairs, a value that is non-finite, or labels that do not match.

    **Cost:** time grows with resamples × pairs, about 2 ms for the default and 40 pairs. Resamples
    are reused by the next call with the same number of pairs. Several training seeds need no
    bootstrap.

    >>> result = paired([1.0, 1.0, 1.0, 1.0], seed=0)
    >>> result.mean, result.interval, result.p_value, result.untested
    (1.0, (1.0, 1.0), 0.125, 'few episodes')
    """
    values, labels = _checked(differences, clusters, name)
    count = int(labels.max()) + 1
    several = count > 1
    if several:
        means, trimmed, improved = (
            _by_seed(values, labels, statistic)
            for statistic in (mean_of, trimmed_mean_of, improved_of)
        )
        intervals = [_t_interval(each, level) for each in (means, trimmed, improved)]
    else:
        means, trimmed, improved = values, values, wins_of(values)
        intervals = percentiles(values, seed=seed, resamples=resamples, level=level)
    low, high = intervals[2]
    return Paired(
        mean=mean_of(means),
        interval=intervals[0],
        trimmed_mean=mean_of(trimmed) if several else trimmed_mean_of(values),
        trimmed_interval=intervals[1],
        p_improve=mean_of(improved),
        p_improve_interval=(max(low, 0.0), min(high, 1.0)) if several else (low, high),
        p_value=min(1.0, 2 * min(_tail(means), _tail(-means))),
        deviation=deviation_of(means),
        pairs=len(values),
        clusters=count,
        unit=_unit(labels),
        untested=_untested(2.0 ** (1 - len(means)), labels),
    )


def mean_interval(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    name: str = "values",
) -> Mean:
    """The mean of one arm's values `[episodes]` with its interval; arguments as of `paired`.

    >>> mean_interval([2.0, 2.0], seed=0).interval
    (2.0, 2.0)
    """
    numbers, labels = _checked(values, clusters, name)
    count = int(labels.max()) + 1
    if count > 1:
        numbers = _by_seed(numbers, labels, mean_of)
        interval = _t_interval(numbers, level)
    else:
        interval = percentiles_of_mean(numbers, seed=seed, resamples=resamples, level=level)
    return Mean(mean_of(numbers), interval, len(labels), count, _unit(labels))


def equivalence(
    base: npt.ArrayLike,
    refined: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    share: float = 0.05,
    name: str = "values",
) -> Equivalence:
    """Whether `refined` equals `base` within a share of the mean of `base`.

    Two one-sided t tests over the units, against a difference below minus the share and above it.
    Both use `difference ± share × base` of each pair, so the uncertainty of the margin is included.

    Args:
        base: values of the arm without thinking, one number per pair, `[pairs]`.
        refined: values of the other arm, in the same order.
        clusters: each pair's training seed, as for `paired`.
        share: half-width of the margin, as a share of the mean; a mean of zero gives no margin.
        name: what the values are, for error messages.

    **References:** Schuirmann, A Comparison of the Two One-Sided Tests Procedure and the Power
    Approach, Journal of Pharmacokinetics and Biopharmaceutics 15(6), 1987.

    >>> result = equivalence([20.0, 21.0, 19.0] * 4, [20.1, 20.9, 19.1] * 4)
    >>> result.margin, result.p_value < 0.05
    (1.0, True)
    """
    if not share > 0:
        raise ValueError(f"`share` must be above 0, such as 0.05 for ±5%; got {share}.")
    before, after, labels = _checked_pairs(base, refined, clusters, name)
    level = mean_of(_units(before, labels))
    margins = share * math.copysign(1.0, level) * before
    difference = after - before
    tails = [_tail(_units(margins + sign * difference, labels)) for sign in (1, -1)]
    return Equivalence(margin=share * abs(level), p_value=max(tails))


def interaction(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    first_clusters: npt.ArrayLike | None = None,
    second_clusters: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    name: str = "differences",
) -> Interaction:
    """Difference of differences: how much larger an effect is in `first` than in `second`.

    Welch's t interval and test over the units of two settings that share no pairs, with the
    degrees of freedom rounded down.

    Args:
        first: paired differences of one setting, `[pairs]`, such as rollout 8 - rollout 1 of the
            agents that see part of the world.
        second: paired differences of the other setting; their number may differ.
        first_clusters: training seeds of `first`, as for `paired`.
        second_clusters: training seeds of `second`; both settings have several, or neither.
        level: coverage of the interval.
        name: what the values are, for error messages.

    **Errors:** `ValueError` for a single unit in a setting, or several training seeds in one alone.

    >>> result = interaction([2.0, 3.0, 4.0, 3.0], [1.0, 0.0, 2.0, 1.0])
    >>> result.difference, round(result.p_value, 3)
    (2.0, 0.029)
    """
    check_level(level)
    settings = [
        _checked(values, clusters, name)
        for values, clusters in ((first, first_clusters), (second, second_clusters))
    ]
    if len({_unit(labels) for _, labels in settings}) > 1:
        raise ValueError(f"{name}: both settings need several training seeds, or one each.")
    units = [_units(values, labels) for values, labels in settings]
    sizes = [len(each) for each in units]
    if min(sizes) < 2:
        raise ValueError(f"{name}: each setting needs 2 values or more; got {sizes}.")
    difference = mean_of(units[0]) - mean_of(units[1])
    errors = [deviation_of(each) ** 2 / len(each) for each in units]
    error = math.sqrt(sum(errors))
    if error > 0:
        inverse = sum((e / error**2) ** 2 / (n - 1) for e, n in zip(errors, sizes, strict=True))
        df = math.floor(1 / inverse + 1e-9)
        half = error * student.quantile((1 + level) / 2, df)
        p = student.outside(abs(difference) / error, df)
    else:
        half, p = 0.0, float(difference == 0)
    floor = min(1.0, 2 / math.comb(sum(sizes), sizes[0]))
    return Interaction(
        difference=difference,
        interval=(difference - half, difference + half),
        p_value=max(p, floor),
        unit=_unit(settings[0][1]),
        untested=_untested(floor, settings[0][1]),
    )


def correlation(base: npt.ArrayLike, refined: npt.ArrayLike) -> float | None:
    """Pearson correlation between the two sides of the pairs; None if an arm does not vary.

    The higher it is, the fewer pairs are needed.

    >>> correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    1.0
    >>> correlation([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])
    """
    first, second, _ = _checked_pairs(base, refined, None, "values")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    first, second = ((x - x.mean()) / np.ptp(x) for x in (first, second))
    product = np.dot(first, second) / math.sqrt(np.dot(first, first) * np.dot(second, second))
    return float(np.clip(product, -1.0, 1.0))


def holm(p_values: npt.ArrayLike) -> np.ndarray:
    """Holm's correction: adjusted p-values `[tests]`, in the order given.

    If tests with an adjusted value of at most alpha are rejected, the probability of any false
    rejection is at most alpha, for every dependence between the tests.

    **References:** Holm, A Simple Sequentially Rejective Multiple Test Procedure,
    Scandinavian Journal of Statistics 6(2), 1979.

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be a list of numbers in [0, 1]; got {p.tolist()}.")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _tail(units: np.ndarray) -> float:
    """One-sided p of a t test that the mean lies above zero, at least 2^-units."""
    mean, deviation, count = mean_of(units), deviation_of(units), len(units)
    if deviation > 0:
        outside = student.outside(abs(mean) * math.sqrt(count) / deviation, count - 1)
        p = outside / 2 if mean > 0 else 1 - outside / 2
    else:  # equal values, or a single one
        p = 0.5 - 0.5 * float(np.sign(mean))
    return max(p, 2.0**-count)


def _untested(least: float, labels: np.ndarray) -> Untested | None:
    """Why a test with a smallest p-value of `least` is impossible; None if it is possible."""
    if least <= ALPHA:
        return None
    return "few episodes" if _unit(labels) == "episode" else "few training seeds"


def _unit(labels: np.ndarray) -> Unit:
    return "training seed" if labels.any() else "episode"


def _units(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One number for each unit: the values of a single training seed, or the means of several."""
    return _by_seed(values, labels, mean_of) if labels.any() else values


def _by_seed(
    values: np.ndarray, labels: np.ndarray, statistic: Callable[[np.ndarray], float]
) -> np.ndarray:
    return np.array([statistic(values[labels == label]) for label in range(labels.max() + 1)])


def _t_interval(units: np.ndarray, level: float) -> Interval:
    check_level(level)
    mean, error = mean_of(units), deviation_of(units) / math.sqrt(len(units))
    half = error * student.quantile((1 + level) / 2, len(units) - 1)
    return (mean - half, mean + half)


def _checked(
    values: npt.ArrayLike, clusters: npt.ArrayLike | None, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Values as finite float64 `[n]` and cluster labels as 0, 1, ... `[n]`."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(
            f"{name}: needs a list of at least one number; got shape {numbers.shape}. "
            "Did both arms play an episode on the same seed?"
        )
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        raise ValueError(
            f"{name}: every value must be finite; {bad.size} of {numbers.size} are not, the "
            f"first is {numbers[bad[0]]} at index {bad[0]}. Leave such pairs out, and say how many."
        )
    if clusters is None:
        return numbers, np.zeros(numbers.size, np.intp)
    labels = np.asarray(clusters)
    if labels.shape != numbers.shape:
        raise ValueError(
            f"{name}: `clusters` must name one training seed for each value, in shape "
            f"{numbers.shape}; got {labels.shape}."
        )
    return numbers, np.unique(labels, return_inverse=True)[1].reshape(-1)


def _checked_pairs(
    base: npt.ArrayLike, refined: npt.ArrayLike, clusters: npt.ArrayLike | None, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, labels = _checked(base, clusters, f"{name} of the base")
    second, _ = _checked(refined, None, f"{name} of the refined")
    if len(first) != len(second):
        raise ValueError(
            f"Pairs need both arms; got {len(first)} and {plural(len(second), 'episode')}."
        )
    return first, second, labels
