"""The numbers of a hypothesis: its effect, the number of units, and the power."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from thinkslow.evaluation import planning, statistics
from thinkslow.evaluation.metrics import metric
from thinkslow.evaluation.pairs import Pairs, pairs
from thinkslow.evaluation.records import Records
from thinkslow.study.plan import Effect, Hypothesis, Plan

Cells = Mapping[tuple[str, str], Records]
"""The records by group and setting."""
MARGIN = 0.05
"""Margin of equivalence, as a share of the baseline's mean."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of one hypothesis. A number that does not exist is None."""

    difference: float | None = None
    """The effect, or the difference of two effects, in units of the measure."""
    interval: tuple[float, float] | None = None
    """The 95% interval."""
    p_value: float | None = None
    """Two-sided p-value against no difference; with `by`, against a difference of that share of the
    baseline.
    """
    p_equivalent: float | None = None
    """p-value of an effect outside ±5% of the baseline's mean; None for a difference of effects."""
    baseline: float | None = None
    """The mean of the baseline."""
    deviation: float | None = None
    """Standard deviation of the difference between units."""
    detectable: float | None = None
    """The smallest true effect that a study of this size detects with a power of 80%."""
    power: float | None = None
    """The power of a study of this size for a true effect of 5% of the baseline's mean; with `by`,
    for 5% more than that share.
    """
    pairs: int = 0
    units: int = 0
    """Number of units: episodes of one agent, or training seeds."""
    several: bool = False
    """Whether units are training seeds."""
    dropped: int = 0
    """Number of pairs that are left out: crashed, missing or non-finite."""


def numbers(one: Hypothesis, plan: Plan, cells: Cells) -> Numbers:
    """The numbers of one hypothesis, from the records.

    Two effects of the same agents are compared episode by episode, because both were played on the
    same environment seeds. Effects of different agents are compared as two samples.

    Args:
        one: the hypothesis.
        plan: its plan.
        cells: records of every group in every setting.
    """
    first = _pairs(one.effect, one, cells)
    if one.minus is None:
        return Numbers() if first is None else _single(one, plan, first)
    second = _pairs(one.minus, one, cells)
    if first is None or second is None:
        return Numbers()
    if one.effect.group == one.minus.group:
        joined = _joined(first, second, one.times)
        return Numbers() if joined is None else _single(one, plan, joined)
    return _apart(one, plan, first, second)


def alpha(plan: Plan, units: int) -> float:
    """The significance level with this many training seeds, over all hypotheses."""
    return planning.look(units) if units in plan.looks else planning.ALPHA


def _single(one: Hypothesis, plan: Plan, side: Pairs) -> Numbers:
    """The numbers of one set of differences."""
    found = statistics.paired(side.differences, side.agents, seed=plan.seed, name=one.name)
    several = found.clusters > 1
    units = found.clusters if several else found.pairs
    facts = Numbers(
        difference=found.mean,
        interval=_finite(found.interval),
        units=units,
        several=several,
        pairs=found.pairs,
        dropped=side.dropped,
    )
    level = tested = None
    if one.minus is None and _has_level(one):
        level = statistics.mean_interval(side.before, side.agents, seed=0, resamples=1).mean
        same = statistics.equivalence(side.before, side.after, side.agents, share=MARGIN)
        if not found.untested and same.margin:
            facts = dataclasses.replace(facts, p_equivalent=same.p_value)
    if one.by and level:
        sign = math.copysign(1.0, level) * (1 if one.expect == "more" else -1)
        shifted = side.differences - one.by * sign * side.before
        tested = statistics.paired(shifted, side.agents, seed=0, resamples=1, name=one.name)
    tested = tested or found
    return dataclasses.replace(
        facts,
        p_value=None if tested.untested else tested.p_value,
        baseline=level or None,
        **_planned(plan, tested.deviation, units, level, one.by),
    )


def _apart(one: Hypothesis, plan: Plan, first: Pairs, second: Pairs) -> Numbers:
    """The numbers of two effects with different agents."""
    sides = [(first.differences, first.agents), (one.times * second.differences, second.agents)]
    parts = [statistics.paired(*each, seed=0, resamples=1) for each in sides]
    counts = [each.clusters if each.clusters > 1 else each.pairs for each in parts]
    facts = Numbers(
        pairs=sum(each.pairs for each in parts),
        units=min(counts),
        several=parts[0].clusters > 1,
        dropped=first.dropped + second.dropped,
    )
    if (parts[0].clusters > 1) != (parts[1].clusters > 1) or min(counts) < 2:
        return facts
    result = statistics.interaction(
        sides[0][0], sides[1][0], first.agents, second.agents, name=one.name
    )
    error = math.hypot(*(e.deviation / math.sqrt(n) for e, n in zip(parts, counts, strict=True)))
    level = None
    if _has_level(one):
        level = statistics.mean_interval(first.before, first.agents, seed=0, resamples=1).mean
    return dataclasses.replace(
        facts,
        difference=result.difference,
        interval=_finite(result.interval),
        p_value=None if result.untested else result.p_value,
        baseline=level or None,
        **_planned(plan, error * math.sqrt(facts.units), facts.units, level, 0.0),
    )


def _has_level(one: Hypothesis) -> bool:
    """Whether the measure has a baseline mean. A measure of gains, frame by frame, has none."""
    return metric(one.measure).effect == one.measure


def _planned(
    plan: Plan, deviation: float, units: int, level: float | None, by: float
) -> dict[str, float | None]:
    """The power for this many units and this many hypotheses."""
    if not math.isfinite(deviation):
        return {}
    tests, least = max(len(plan.hypotheses), 1), alpha(plan, units)
    smallest = planning.detectable(deviation, units, tests, least) + by * abs(level or 0.0)
    chance = planning.power(deviation, units, MARGIN * level, tests, least) if level else None
    return {
        "deviation": deviation,
        "power": chance,
        "detectable": smallest if math.isfinite(smallest) else None,
    }


def _pairs(effect: Effect, one: Hypothesis, cells: Cells) -> Pairs | None:
    """The pairs of an effect, two or more; None if the environment ignored its seed."""
    mine, base = (cells.get((effect.group, s)) for s in (effect.setting, effect.baseline_setting))
    if mine is None or base is None:
        return None
    found = pairs(
        [row for row in mine.episodes if row.arm == effect.arm],
        [row for row in base.episodes if row.arm == effect.baseline],
        metric(one.measure),
    )
    if found is None or len(found.differences) < 2:
        return None
    if effect.setting == effect.baseline_setting and not found.same_start:
        return None
    return _spread(found) if one.of == "spread" else found


def _spread(side: Pairs) -> Pairs:
    """Distances of episodes from the median of their agent and arm, used instead of the measure.

    Their means are then compared as usual: the test of Brown and Forsythe, for pairs.
    """
    labels = np.array(side.agents)

    def away(values: np.ndarray) -> np.ndarray:
        medians = {agent: np.median(values[labels == agent]) for agent in set(side.agents)}
        return np.abs(values - np.array([medians[agent] for agent in side.agents]))

    before, after = away(side.before), away(side.after)
    return dataclasses.replace(side, before=before, after=after, differences=after - before)


def _joined(first: Pairs, second: Pairs, times: float) -> Pairs | None:
    """`first - times * second`, episode by episode."""
    keys = list(zip(second.agents, second.seeds, strict=True))
    place = {key: at for at, key in enumerate(keys)}
    both = [
        (at, place[key])
        for at, key in enumerate(zip(first.agents, first.seeds, strict=True))
        if key in place
    ]
    if len(both) < 2:
        return None
    mine, others = map(list, zip(*both, strict=True))
    after, before = first.differences[mine], times * second.differences[others]
    most = max(len(side.differences) + side.dropped for side in (first, second))
    return dataclasses.replace(
        first,
        before=before,
        after=after,
        differences=after - before,
        dropped=most - len(both),
        agents=[first.agents[at] for at in mine],
        seeds=[first.seeds[at] for at in mine],
    )


def _finite(interval: tuple[float, float]) -> tuple[float, float] | None:
    return interval if all(map(math.isfinite, interval)) else None
