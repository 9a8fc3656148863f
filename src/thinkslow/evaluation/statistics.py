"""Paired statistics of two arms that played the same episodes.

A pair is one (training seed, environment seed); its difference is refined minus base. Pairs
of one training seed share a checkpoint and so are not independent. Therefore:

- with one training seed the unit is the episode: intervals are bootstrap percentiles, and speak
  of that one checkpoint, not of the method;
- with several (`clusters` names each pair's training seed) the unit is the training seed: each
  seed gives one number, seeds count alike, and the interval is Student's t of these numbers
  with seeds - 1 degrees of freedom. Percentiles of three to five seeds are much too narrow.

p-values are those of a t test over the units, never below 2^(1 - units), the least that an exact
test by flipping signs could give. Where that floor lies above 5%, `untested` says why there is no
test: below six pairs, or six training seeds.

Nothing here knows arms, files or metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from thinkslow.evaluation import student

Interval: TypeAlias = tuple[float, float]
Unit: TypeAlias = Literal["episode", "training seed"]
Untested: TypeAlias = Literal["few episodes", "few training seeds"]

ALPHA = 0.05
"""Chance of a false positive that every test here allows."""
POWER = 0.8
"""Chance to find a difference that plans ask for."""

_CHUNK = 2_000_000  # counts held at once as floats: 16 MB for each intermediate array


@dataclass(frozen=True)
class Paired:
    """What a set of paired differences says. Intervals are (low, high)."""

    mean: float
    """Mean difference, in units of the metric; training seeds count alike."""
    interval: Interval
    """Of the mean; (nan, nan) for a single pair, which has no spread."""
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
    """Standard deviation of the difference between units; nan for a single one."""
    pairs: int
    clusters: int
    unit: Unit
    """What the interval generalises to: more episodes, or more training seeds."""
    untested: Untested | None
    """Why no result could have been significant at 5%; None if there is a test."""


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
    """In units of the metric."""
    p_value: float
    """Of a difference of the margin or more in either direction: small says "equivalent"."""


@dataclass(frozen=True)
class Interaction:
    """How much larger an effect is in one setting than in another."""

    difference: float
    interval: Interval
    p_value: float
    """Two-sided, at least the chance of one of the two extreme ways to label the units."""
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
      seed: of the bootstrap over episodes; equal seeds give equal intervals.
      resamples: of the bootstrap.
      level: coverage of the intervals, between 0 and 1.
      name: what the values are, for error messages, such as "score of arm sig".

    **Errors:** `ValueError` for no pairs, a value that is not finite, or labels that do not match.

    **Cost:** time grows as resamples × pairs, about 15 ms for the default and 40 pairs; what was
    drawn is kept for the next call with as many pairs. Several training seeds cost nothing.

    >>> result = paired([1.0, 1.0, 1.0, 1.0], seed=0)
    >>> result.mean, result.interval, result.p_value, result.untested
    (1.0, (1.0, 1.0), 0.125, 'few episodes')
    """
    values, labels = _checked(differences, clusters, name)
    count = int(labels.max()) + 1
    several = count > 1
    if several:
        means, trimmed, improved = (
            _by_seed(values, labels, statistic) for statistic in (_mean, _trimmed_mean, _improved)
        )
        intervals = [_t_interval(each, level) for each in (means, trimmed, improved)]
    else:
        means, trimmed, improved = values, values, _wins(values)
        intervals = _percentiles(values, seed=seed, resamples=resamples, level=level)
    low, high = intervals[2]
    return Paired(
        mean=_mean(means),
        interval=intervals[0],
        trimmed_mean=_mean(trimmed) if several else _trimmed_mean(values),
        trimmed_interval=intervals[1],
        p_improve=_mean(improved),
        p_improve_interval=(max(low, 0.0), min(high, 1.0)) if several else (low, high),
        p_value=min(1.0, 2 * min(_tail(means), _tail(-means))),
        deviation=_deviation(means),
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
        numbers = _by_seed(numbers, labels, _mean)
        interval = _t_interval(numbers, level)
    else:
        interval = _percentiles(numbers, seed=seed, resamples=resamples, level=level)[0]
    return Mean(_mean(numbers), interval, len(labels), count, _unit(labels))


def equivalence(
    base: npt.ArrayLike,
    refined: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    share: float = 0.05,
    name: str = "values",
) -> Equivalence:
    """Whether `refined` equals `base` within a share of the mean of `base`.

    Two one-sided t tests over the units: that the difference is not below minus the share, and
    not above it. Both are taken of `difference ± share × base`, pair by pair, so that the
    margin's own uncertainty counts.

    Args:
      base: of the arm without thinking, one number a pair, `[pairs]`.
      refined: of the other arm, in the same order.
      clusters: each pair's training seed, as for `paired`.
      share: half-width of what counts as the same; a mean of zero leaves no margin.
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
    level = _mean(_units(before, labels))
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
      second: those of the other setting; their number may differ.
      first_clusters: training seeds of `first`, as for `paired`.
      second_clusters: training seeds of `second`; both settings have several, or neither.
      level: coverage of the interval.
      name: what the values are, for error messages.

    **Errors:** `ValueError` for a single unit in a setting, or several training seeds in one alone.

    >>> result = interaction([2.0, 3.0, 4.0, 3.0], [1.0, 0.0, 2.0, 1.0])
    >>> result.difference, round(result.p_value, 3)
    (2.0, 0.029)
    """
    _check_level(level)
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
    difference = _mean(units[0]) - _mean(units[1])
    errors = [_deviation(each) ** 2 / len(each) for each in units]
    error = math.sqrt(sum(errors))
    if error > 0:
        inverse = sum((e / error**2) ** 2 / (n - 1) for e, n in zip(errors, sizes, strict=True))
        df = math.floor(1 / inverse + 1e-9)
        half = error * student.quantile((1 + level) / 2, df)
        p = 1 - student.within(abs(difference) / error, df)
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
    """Pearson correlation that the pairing achieved; None where an arm does not vary.

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

    Rejecting where the adjusted value is at most alpha keeps the chance of any false
    rejection at most alpha, whatever the dependence between the tests.

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


def fewest_units(tests: int = 1) -> int:
    """Units below which no result of so many tests, corrected, could be significant at 5%.

    >>> fewest_units(), fewest_units(8)
    (6, 9)
    """
    return 1 + math.ceil(math.log2(tests / ALPHA))


def detectable(deviation: float, units: int, tests: int = 1) -> float:
    """The smallest true difference that such an evaluation finds in four of five repetitions.

    Args:
      deviation: of the difference between units, as in `Paired`.
      units: episodes, or training seeds.
      tests: tests that are corrected together; the first of Holm's is planned for.

    Infinite where so few units cannot show any difference.

    >>> round(detectable(1.0, 100), 2), detectable(1.0, 5)
    (0.28, inf)
    """
    if units < fewest_units(tests):
        return math.inf
    reach = student.quantile(1 - ALPHA / 2 / tests, units - 1) + student.quantile(POWER, units - 1)
    return reach * deviation / math.sqrt(units)


def units_needed(deviation: float, effect: float, tests: int = 1) -> int:
    """Units with which a true difference of `effect` is `detectable`; arguments as there.

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

    O'Brien-Fleming bounds |z| of 3.47, 2.45 and 2.00 at 5, 8 and 12 training seeds: over all
    three looks a false positive has a chance of 5% at most. Five seeds allow no p-value below
    1/16 here, so that the first look can stop a study for futility alone.

    **References:** O'Brien and Fleming, A Multiple Testing Procedure for Clinical Trials,
    Biometrics 35(3), 1979.

    >>> round(look(8), 4)
    0.0143
    """
    bounds = {5: 3.47, 8: 2.45, 12: 2.00}
    if seeds not in bounds:
        raise ValueError(f"Looks are planned at {', '.join(map(str, bounds))} seeds; got {seeds}.")
    return 2 * NormalDist().cdf(-bounds[seeds])


def _tail(units: np.ndarray) -> float:
    """One-sided p of a t test that the mean lies above zero, at least 2^-units."""
    mean, deviation, count = _mean(units), _deviation(units), len(units)
    if deviation > 0:
        outside = 1 - student.within(abs(mean) * math.sqrt(count) / deviation, count - 1)
        p = outside / 2 if mean > 0 else 1 - outside / 2
    else:  # equal values, or a single one
        p = 0.5 - 0.5 * float(np.sign(mean))
    return max(p, 2.0**-count)


def _untested(least: float, labels: np.ndarray) -> Untested | None:
    """The reason why a test whose p-values begin at `least` is none."""
    if least <= ALPHA:
        return None
    return "few episodes" if _unit(labels) == "episode" else "few training seeds"


def _unit(labels: np.ndarray) -> Unit:
    return "training seed" if labels.any() else "episode"


def _units(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One number a unit: the values of a single training seed, or the means of several."""
    return _by_seed(values, labels, _mean) if labels.any() else values


def _by_seed(
    values: np.ndarray, labels: np.ndarray, statistic: Callable[[np.ndarray], float]
) -> np.ndarray:
    return np.array([statistic(values[labels == label]) for label in range(labels.max() + 1)])


def _t_interval(units: np.ndarray, level: float) -> Interval:
    _check_level(level)
    mean, error = _mean(units), _deviation(units) / math.sqrt(len(units))
    half = error * student.quantile((1 + level) / 2, len(units) - 1)
    return (mean - half, mean + half)


def _percentiles(
    values: np.ndarray, *, seed: int, resamples: int, level: float
) -> tuple[Interval, Interval, Interval]:
    """Bootstrap intervals of the mean, the interquartile mean and P(improve) of episodes.

    Counts of the pairs in sorted order give the interquartile mean by a cumulative sum, so that
    no resample is ever sorted.
    """
    _check_level(level)
    if resamples < 1:
        raise ValueError(f"`resamples` must be 1 or more; got {resamples}.")
    count = len(values)
    if count == 1:
        nothing = (math.nan, math.nan)
        return nothing, nothing, nothing
    drawn = _draws(count, seed, resamples)
    order = np.argsort(values, kind="stable")
    # deviations from one of the values: equal values then give an exact answer
    deviations, wins = values - values[0], _wins(values)
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

    Drawn once for every measure and arm with as many pairs; 20 kB a pair by default.
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


def _mean(values: np.ndarray) -> float:
    return float(values[0] + (values - values[0]).mean())


def _deviation(values: np.ndarray) -> float:
    """Of the sample, exactly 0 for equal values; nan for a single one."""
    return float(np.std(values - values[0], ddof=1)) if len(values) > 1 else math.nan


def _trimmed_mean(values: np.ndarray) -> float:
    """As `scipy.stats.trim_mean(values, 0.25)`, and exact for equal values."""
    cut = len(values) // 4
    return _mean(np.sort(values)[cut : len(values) - cut])


def _wins(differences: np.ndarray) -> np.ndarray:
    """1 where the difference is positive, a half where it is zero, else 0."""
    return (np.sign(differences) + 1) / 2


def _improved(differences: np.ndarray) -> float:
    return float(_wins(differences).mean())


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1; got {level}.")


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
            f"{name}: `clusters` must name one training seed for each of the {numbers.size} "
            f"values; got shape {labels.shape}."
        )
    return numbers, np.unique(labels, return_inverse=True)[1].reshape(-1)


def _checked_pairs(
    base: npt.ArrayLike, refined: npt.ArrayLike, clusters: npt.ArrayLike | None, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, labels = _checked(base, clusters, f"{name} of the base")
    second, _ = _checked(refined, None, f"{name} of the refined")
    if len(first) != len(second):
        raise ValueError(f"Pairs need both arms; got {len(first)} and {len(second)} episodes.")
    return first, second, labels
