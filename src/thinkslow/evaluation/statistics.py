"""Paired statistics of two arms that played the same episodes.

A pair is one (training seed, environment seed); its difference is refined minus base. Pairs
of one training seed share a checkpoint and so are not independent: with several training
seeds the bootstrap resamples first the seeds, then the episodes inside each (`clusters`
names each pair's training seed). With a single training seed only episodes are resampled,
`unit` says so, and the interval speaks of that one checkpoint, not of the method.

All intervals are bootstrap percentiles from a seeded generator: the same seed, the same
interval, and swapping the arms mirrors it. They assume that units are exchangeable. With
fewer than about five training seeds, and in samples of fewer than about twenty pairs, such
intervals are known to be somewhat too narrow.

Plain NumPy. Nothing here knows arms, files or metrics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]

_CHUNK = 2_000_000  # counts held at once: 16 MB for each intermediate array


@dataclass(frozen=True)
class Paired:
    """What a set of paired differences says. Intervals are (low, high)."""

    mean: float
    """Mean difference, in units of the metric."""
    interval: Interval
    """Of the mean; (nan, nan) for a single pair, which has no spread."""
    trimmed_mean: float
    """Interquartile mean: the mean without the lowest and the highest quarter of pairs."""
    trimmed_interval: Interval
    p_improve: float
    """P(difference > 0) + P(difference = 0) / 2 over pairs."""
    p_improve_interval: Interval
    p_value: float
    """Two-sided bootstrap p-value of a mean difference of zero, at least 2^(1 - pairs)."""
    pairs: int
    clusters: int
    unit: str
    """What was resampled: "episode", or "training seed, episode"."""


@dataclass(frozen=True)
class Mean:
    """The mean of one arm's values with its interval, (nan, nan) for a single value."""

    mean: float
    interval: Interval
    episodes: int
    clusters: int
    unit: str
    """What was resampled: "episode", or "training seed, episode"."""


def paired(
    differences: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    name: str = "differences",
) -> Paired:
    """Summarise the differences of pairs `[pairs]` with bootstrap intervals.

    Args:
      differences: refined minus base, one number a pair.
      clusters: each pair's training seed (or any label), `[pairs]`; None for a single one.
      seed: of the bootstrap; equal seeds give equal intervals.
      resamples: bootstrap resamples; time and memory grow as resamples × pairs (about .1 s
        for the default and 100 pairs).
      level: coverage of the intervals, between 0 and 1.
      name: what the values are, for error messages, such as "score of arm sig".

    Raises ValueError for no pairs, a value that is not finite, or labels that do not match.

    >>> result = paired([1.0, 1.0, 1.0, 1.0], seed=0)
    >>> result.mean, result.interval, result.p_improve, result.unit
    (1.0, (1.0, 1.0), 1.0, 'episode')
    """
    values, labels = _checked(differences, clusters, name)
    boot = _bootstrap(values, labels, seed=seed, resamples=resamples, level=level)
    single = len(values) == 1
    return Paired(
        mean=_mean(values),
        interval=_interval(boot.mean, level, single),
        trimmed_mean=_trimmed_mean(values),
        trimmed_interval=_interval(boot.trimmed_mean, level, single),
        p_improve=float(_wins(values).mean()),
        p_improve_interval=_interval(boot.p_improve, level, single),
        p_value=_two_sided_p(boot.mean, pairs=len(values)),
        pairs=len(values),
        clusters=boot.clusters,
        unit=boot.unit,
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
    """The mean of one arm's values `[episodes]` with a bootstrap interval; see `paired`.

    >>> mean_interval([2.0, 2.0], seed=0).interval
    (2.0, 2.0)
    """
    numbers, labels = _checked(values, clusters, name)
    boot = _bootstrap(numbers, labels, seed=seed, resamples=resamples, level=level)
    interval = _interval(boot.mean, level, single=len(numbers) == 1)
    return Mean(_mean(numbers), interval, len(numbers), boot.clusters, boot.unit)


def correlation(base: npt.ArrayLike, refined: npt.ArrayLike) -> float | None:
    """Pearson correlation that the pairing achieved; None where an arm does not vary.

    The higher it is, the fewer pairs are needed: see `pairs_needed`.

    >>> correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    1.0
    >>> correlation([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])
    """
    first, _ = _checked(base, None, "base")
    second, _ = _checked(refined, None, "refined")
    if len(first) != len(second):
        raise ValueError(f"Pairs need both arms; got {len(first)} and {len(second)} episodes.")
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


def pairs_needed(cv: float, correlation: float, effect: float) -> int:
    """Pairs for 80% power at 5% on one checkpoint: 15.7 cv² (1 - correlation) / effect².

    `cv` is the coefficient of variation of an episode's score (deviation / mean),
    `correlation` that of the pairs, `effect` the difference to see as a share of the mean.
    At least 2. Raises ValueError outside cv >= 0, -1 <= correlation <= 1, effect != 0.

    >>> pairs_needed(0.5, 0.6, 0.05), pairs_needed(0.5, 0.6, 0.10)
    (628, 157)
    """
    if not (cv >= 0 and -1 <= correlation <= 1 and effect != 0 and math.isfinite(cv / effect)):
        raise ValueError(
            "`cv` must be 0 or more, `correlation` in [-1, 1], `effect` not 0; "
            f"got {cv}, {correlation}, {effect}."
        )
    needed = 15.7 * cv**2 * (1 - correlation) / effect**2
    return max(2, math.ceil(round(needed, 6)))  # 628.0000000001 is 628


@dataclass(frozen=True)
class _Bootstrap:
    """Statistics of every resample, each `[resamples]`."""

    mean: np.ndarray
    trimmed_mean: np.ndarray
    p_improve: np.ndarray
    clusters: int
    unit: str


def _bootstrap(
    values: np.ndarray, labels: np.ndarray, *, seed: int, resamples: int, level: float
) -> _Bootstrap:
    """Resample `values` and compute each resample's statistics from its counts.

    A resample is how often each pair was drawn. Counts of the pairs in sorted order give the
    trimmed mean by a cumulative sum, so that no resample is ever sorted.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            "`resamples` must be 1 or more and `level` between 0 and 1; "
            f"got {resamples} and {level}."
        )
    rng = np.random.default_rng(seed)
    order = np.argsort(values, kind="stable")
    # deviations from one of the values: equal values then give an exact answer
    deviations, wins = values - values[0], _wins(values)
    rows = max(1, _CHUNK // len(values))
    means, trimmed, improved = [], [], []
    for at in range(0, resamples, rows):
        counts = _counts(rng, labels, min(rows, resamples - at))
        drawn = counts.sum(axis=1)
        means.append(values[0] + counts @ deviations / drawn)
        improved.append(counts @ wins / drawn)
        kept = _trim(counts[:, order])
        trimmed.append(values[0] + kept @ deviations[order] / kept.sum(axis=1))
    clusters = int(labels.max()) + 1
    return _Bootstrap(
        mean=np.concatenate(means),
        trimmed_mean=np.concatenate(trimmed),
        p_improve=np.concatenate(improved),
        clusters=clusters,
        unit="episode" if clusters == 1 else "training seed, episode",
    )


def _counts(rng: np.random.Generator, labels: np.ndarray, resamples: int) -> np.ndarray:
    """How often each pair is drawn in each resample, `[resamples, pairs]`, as floats.

    As many clusters are drawn as there are, with replacement, and from each drawn cluster as
    many of its pairs as it has, with replacement. Clusters may differ in size: draws are made
    for the largest, and a smaller cluster ignores the surplus.
    """
    sizes = np.bincount(labels)
    members = np.argsort(labels, kind="stable")  # pairs by cluster
    starts = np.cumsum(sizes) - sizes
    widest = int(sizes.max())
    shape = (resamples, len(sizes))
    chosen = rng.integers(len(sizes), size=shape) if len(sizes) > 1 else np.zeros(shape, np.intp)
    size = sizes[chosen][..., None]
    within = (rng.random((*shape, widest)) * size).astype(np.intp)  # below size, exactly
    pair = members[starts[chosen][..., None] + within]
    flat = pair + len(labels) * np.arange(resamples)[:, None, None]
    taken = flat[np.broadcast_to(np.arange(widest) < size, flat.shape)]
    counts = np.bincount(taken, minlength=resamples * len(labels))
    return counts.reshape(resamples, len(labels)).astype(np.float64)


def _trim(counts: np.ndarray) -> np.ndarray:
    """Counts `[resamples, pairs]` in sorted order, without each end's quarter of the draws."""
    upto = np.cumsum(counts, axis=1)
    drawn = upto[:, -1:]
    cut = np.floor(drawn / 4)
    before = upto - counts
    return np.clip(upto, cut, drawn - cut) - np.clip(before, cut, drawn - cut)


def _mean(values: np.ndarray) -> float:
    return float(values[0] + (values - values[0]).mean())


def _trimmed_mean(values: np.ndarray) -> float:
    """As `scipy.stats.trim_mean(values, 0.25)`, and exact for equal values."""
    cut = len(values) // 4
    return _mean(np.sort(values)[cut : len(values) - cut])


def _wins(differences: np.ndarray) -> np.ndarray:
    """1 where the difference is positive, a half where it is zero, else 0."""
    return (np.sign(differences) + 1) / 2


def _interval(statistics: np.ndarray, level: float, single: bool) -> Interval:
    if single:
        return (math.nan, math.nan)
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def _two_sided_p(means: np.ndarray, pairs: int) -> float:
    """Twice the smaller tail of the bootstrap beyond zero.

    Never below 2 / (resamples + 1), which is as far as so many resamples see, nor below
    2^(1 - pairs), the least that an exact test by flipping signs could give for so few pairs.
    """
    tail = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    return min(1.0, max(2 * (tail + 1) / (len(means) + 1), 2.0 ** (1 - pairs)))


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
