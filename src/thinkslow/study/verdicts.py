"""What a study says of its hypotheses: supported, contradicted or not shown."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from thinkslow.evaluation import planning, statistics, student
from thinkslow.evaluation.metrics import metric
from thinkslow.evaluation.pairs import Pairs, pairs
from thinkslow.evaluation.records import Records
from thinkslow.study.plan import Effect, Hypothesis, Plan

Cells = Mapping[tuple[str, str], Records]
"""What was played, by group and setting."""
Verdict = Literal["supported", "contradicted", "not shown"]
MARGIN = 0.05
"""Share of the baseline's mean within which an effect counts as none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """One hypothesis with its numbers."""

    name: str
    claim: str
    verdict: Verdict
    why: str
    """In a sentence."""
    difference: float | None
    """The effect, or the difference of two effects, in units of the measure."""
    interval: tuple[float, float] | None
    """At 95%."""
    p_value: float | None
    """Two-sided."""
    p_value_holm: float | None
    """Corrected over all hypotheses of the study."""
    p_equivalent: float | None
    """Of an effect outside ±5% of the baseline's mean; None for a difference of effects."""
    detectable: float | None
    """The smallest true effect that such a study finds in four of five repetitions."""
    pairs: int
    units: int
    """Episodes of one agent, or training seeds."""
    dropped: int


def judge(plan: Plan, cells: Cells) -> list[Judged]:
    """Every hypothesis of a plan, on what was played so far.

    Args:
        plan: what was declared.
        cells: records of every group in every setting.
    """
    found = [_numbers(each, plan, cells) for each in plan.hypotheses]
    tested = [each for each in found if each["p_value"] is not None]
    holm = statistics.holm([each["p_value"] for each in tested]) if tested else []
    for each, p in zip(tested, holm, strict=True):
        each["p_value_holm"] = float(p)
    equal = [each for each in found if each["p_equivalent"] is not None]
    for each, p in zip(
        equal, statistics.holm([each["p_equivalent"] for each in equal]) if equal else [],
        strict=True,
    ):  # fmt: skip
        each["p_equivalent"] = float(p)
    return [
        Judged(name=one.name, claim=one.claim, **_verdict(one, each, plan), **each)
        for one, each in zip(plan.hypotheses, found, strict=True)
    ]


def _numbers(one: Hypothesis, plan: Plan, cells: Cells) -> dict[str, Any]:
    nothing = {
        "difference": None, "interval": None, "p_value": None, "p_value_holm": None,
        "p_equivalent": None, "detectable": None, "pairs": 0, "units": 0, "dropped": 0,
    }  # fmt: skip
    effects = [one.effect] if one.minus is None else [one.effect, one.minus]
    sides = [_pairs(effect, one.measure, cells) for effect in effects]
    if any(side is None or len(side.differences) < 2 for side in sides):
        return nothing
    known = [side for side in sides if side is not None]
    counts = [_units(side) for side in known]
    facts = {
        "pairs": sum(len(side.differences) for side in known), "units": min(counts),
        "dropped": sum(side.dropped for side in known),
    }  # fmt: skip
    tests = max(len(plan.hypotheses), 1)
    if len(known) == 2:
        first, second = known
        if (len(set(first.agents)) > 1) != (len(set(second.agents)) > 1):
            return nothing | facts
        result = statistics.interaction(
            first.differences, second.differences, first.agents, second.agents, name=one.name
        )
        half = (result.interval[1] - result.interval[0]) / 2
        return nothing | facts | {
            "difference": result.difference, "interval": _finite(result.interval),
            "p_value": None if result.untested else result.p_value,
            "detectable": _of_half_width(half, min(counts), tests),
        }  # fmt: skip
    (only,) = known
    result = statistics.paired(only.differences, only.agents, seed=plan.seed, name=one.name)
    same = statistics.equivalence(only.before, only.after, only.agents, share=MARGIN)
    smallest = planning.detectable(result.deviation, _units(only), tests)
    return nothing | facts | {
        "difference": result.mean, "interval": _finite(result.interval),
        "p_value": None if result.untested else result.p_value,
        "p_equivalent": None if result.untested or not same.margin else same.p_value,
        "detectable": smallest if math.isfinite(smallest) else None,
    }  # fmt: skip


def _pairs(effect: Effect, measure: str, cells: Cells) -> Pairs | None:
    """The pairs of an effect; none where the environment ignored its seed."""
    records = cells.get((effect.group, effect.setting))
    if records is None:
        return None
    mine, base = (
        [row for row in records.episodes if row.arm == arm] for arm in (effect.arm, effect.baseline)
    )
    found = pairs(mine, base, metric(measure)) if metric(measure).effect else None
    return found if found is not None and found.same_start else None


def _units(side: Pairs) -> int:
    agents = len(set(side.agents))
    return agents if agents > 1 else len(side.differences)


def _finite(interval: tuple[float, float]) -> tuple[float, float] | None:
    return interval if all(map(math.isfinite, interval)) else None


def _of_half_width(half: float, units: int, tests: int) -> float | None:
    """What is found in four of five repetitions, from the half-width of a 95% interval."""
    if units < 2:
        return None
    error = half / student.quantile(0.975, units - 1)
    smallest = planning.detectable(error * math.sqrt(units), units, tests)
    return smallest if math.isfinite(smallest) else None


def _verdict(one: Hypothesis, found: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The verdict and the sentence that gives its reason."""
    least = planning.ALPHA
    p, equal, difference = found["p_value_holm"], found["p_equivalent"], found["difference"]
    if difference is None:
        return {"verdict": "not shown", "why": "It was not played, or its episodes are no pairs."}
    if p is None:
        return {
            "verdict": "not shown",
            "why": f"No test: {found['units']} units, and {len(plan.hypotheses)} hypotheses need "
            f"{planning.fewest_units(len(plan.hypotheses))} or more.",
        }
    if plan.looks:
        if found["units"] not in plan.looks:
            ahead = [each for each in plan.looks if each > found["units"]]
            then = f"; the next is at {min(ahead)}" if ahead else ""
            return {
                "verdict": "not shown",
                "why": f"No look is planned at {found['units']} training seeds{then}.",
            }
        least = planning.look(found["units"])
    shown = p <= least
    same = equal is not None and equal <= least
    if one.expect == "same":
        if same:
            return {"verdict": "supported", "why": f"Within 5% (p = {equal:.2g})."}
        if shown:
            return {"verdict": "contradicted", "why": f"They differ (p = {p:.2g})."}
    else:
        wanted = difference > 0 if one.expect == "more" else difference < 0
        if shown and wanted:
            return {"verdict": "supported", "why": f"p = {p:.2g}, corrected."}
        if shown:
            return {"verdict": "contradicted", "why": f"The other way (p = {p:.2g})."}
        if same:
            return {"verdict": "contradicted", "why": f"No effect of 5% or more (p = {equal:.2g})."}
    power = found["detectable"]
    return {
        "verdict": "not shown",
        "why": f"p = {p:.2g}; "
        + (
            f"a true effect of {power:.3g} would be found in four of five such studies."
            if power is not None
            else "so few units can show no effect."
        ),
    }
