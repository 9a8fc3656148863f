"""Episodes of two arms, joined by agent and environment seed.

If one side of a pair is missing, crashed or non-finite, the pair is left out of that measure only,
and counted.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from thinkslow.evaluation.metrics import Metric
from thinkslow.evaluation.records import Episode

UNSEEDED = (
    "it ignores its seed, or keeps something from one episode to the next, such as running averages"
)
"""Why episodes of one seed begin differently."""

ROUNDING = 1e-9
"""A difference of scores below this share of the sum of absolute rewards counts as zero: adding the
same rewards in another order can change the last bit.
"""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The values of two arms on the same episodes, for one measure."""

    before: np.ndarray
    """Values of the baseline, `[pairs]`."""
    after: np.ndarray
    """Values of the other arm, `[pairs]`."""
    differences: np.ndarray
    """`after - before`, with 0 if they differ only by rounding."""
    agents: list[str]
    """The agent of each pair: the clusters of the statistics."""
    seeds: list[int]
    """The environment seed of each pair."""
    dropped: int
    """Number of pairs that were left out."""
    same_start: bool
    """Whether both sides of every pair began with the same observation. If not, the environment
    ignores its seed or keeps something between episodes, and the episodes are not paired.
    """


def pairs(mine: Sequence[Episode], base: Sequence[Episode], measure: Metric) -> Pairs | None:
    """The pairs of two arms; None if there are no pairs or neither arm has the measure.

    Args:
        mine: episodes of an arm, of one or more agents.
        base: episodes of the baseline.
        measure: the measure to compare.
    """
    assert measure.effect is not None
    known = {(row.agent, row.environment_seed): row for row in base}
    found = [
        (row, other)
        for row in mine
        if (other := known.get((row.agent, row.environment_seed))) is not None
    ]
    sides = [(_usable(row, measure.effect), _usable(other, measure.effect)) for row, other in found]
    nothing = all(value is None for side in sides for value in side)
    if not found or (nothing and measure.effect != measure.name):
        return None
    kept = [
        (row, other, after, before)
        for (row, other), (after, before) in zip(found, sides, strict=True)
        if after is not None and before is not None
    ]
    after, before = (np.array([one[which] for one in kept], np.float64) for which in (2, 3))
    differences = after - before
    if measure.name == "score":
        sizes = [max(row.rewards_size or 0.0, other.rewards_size or 0.0) for row, other, *_ in kept]
        differences[np.abs(differences) <= ROUNDING * np.array(sizes)] = 0.0
    return Pairs(
        before=before,
        after=after,
        differences=differences,
        agents=[row.agent for row, *_ in kept],
        seeds=[row.environment_seed for row, *_ in kept],
        dropped=len(found) - len(kept),
        same_start=all(row.first_observation == other.first_observation for row, other in found),
    )


def _usable(row: Episode, column: str) -> float | None:
    """The value of an episode in a comparison; None if it crashed."""
    return None if row.crashed else row.value(column)
