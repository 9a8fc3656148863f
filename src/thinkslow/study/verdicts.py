"""The verdicts of a study on its hypotheses: supported, contradicted or not shown."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from thinkslow.evaluation import planning, statistics
from thinkslow.plural import plural
from thinkslow.study.effects import Cells, Numbers, alpha, numbers
from thinkslow.study.plan import Hypothesis, Plan

Verdict = Literal["supported", "contradicted", "not shown"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged(Numbers):
    """One hypothesis with its numbers."""

    name: str
    claim: str
    what: str
    """The effect, as text."""
    measure: str
    of: str
    expect: str
    tests: int
    """Number of hypotheses that are corrected together."""
    alpha: float
    """The significance level for the corrected p-value; lower at an early look."""
    verdict: Verdict
    why: str
    """The reason, as a sentence."""
    p_value_holm: float | None
    """Corrected over all hypotheses of the study, like `p_equivalent`."""


def judge(plan: Plan, cells: Cells) -> list[Judged]:
    """The verdict on every hypothesis of a plan, from the records so far.

    The p-values that can support a hypothesis (of a difference or, for `same`, of equivalence) are
    corrected by Holm over all hypotheses of the plan, played or not. The p-values that can
    contradict it are corrected in the same way. The probability that any hypothesis is wrongly
    called supported is at most 5%, and likewise for contradicted.

    Args:
        plan: the declared plan.
        cells: the records of every group in every setting.
    """
    found = [numbers(each, plan, cells) for each in plan.hypotheses]
    same = [each.expect == "same" for each in plan.hypotheses]
    differ = [each.p_value for each in found]
    equal = [each.p_equivalent for each in found]
    support = _holm([e if s else d for s, d, e in zip(same, differ, equal, strict=True)])
    against = _holm([d if s else e for s, d, e in zip(same, differ, equal, strict=True)])
    out = []
    for one, each, s, pro, contra in zip(
        plan.hypotheses, found, same, support, against, strict=True
    ):
        p, p_equal = (contra, pro) if s else (pro, contra)
        facts: dict[str, Any] = {**dataclasses.asdict(each), "p_equivalent": p_equal}
        verdict, why = _verdict(one, each, p, p_equal, plan)
        out.append(
            Judged(
                name=one.name,
                claim=one.claim,
                what=str(one),
                measure=one.measure,
                of=one.of,
                expect=one.expect,
                tests=len(plan.hypotheses),
                alpha=alpha(plan, each.units),
                verdict=verdict,
                why=why,
                p_value_holm=p,
                **facts,
            )
        )
    return out


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Corrected over the whole list; a missing p-value counts as 1."""
    if not p_values:
        return []
    adjusted = statistics.holm([1.0 if p is None else p for p in p_values])
    return [None if p is None else float(each) for p, each in zip(p_values, adjusted, strict=True)]


def _verdict(
    one: Hypothesis, found: Numbers, p: float | None, equal: float | None, plan: Plan
) -> tuple[Verdict, str]:
    """The verdict and the sentence that gives its reason."""
    if found.difference is None:
        return "not shown", "It was not played, or its episodes are not paired."
    unit = "training seed" if found.several else "episode"
    if p is None:
        needed = planning.fewest_units(len(plan.hypotheses), alpha(plan, found.units))
        claims = len(plan.hypotheses)
        return "not shown", (
            f"No test: {plural(found.units, unit)}, and "
            f"{plural(claims, 'hypothesis needs', 'hypotheses need')} {needed} or more."
        )
    if plan.looks and not found.several:
        return "not shown", "Looks are planned for several training seeds, but only one was played."
    if plan.looks and found.units not in plan.looks:
        ahead = [each for each in plan.looks if each > found.units]
        then = f"; the next is at {min(ahead)}" if ahead else ""
        return "not shown", f"No look is planned at {plural(found.units, 'training seed')}{then}."
    least = alpha(plan, found.units)
    shown, same = p <= least, equal is not None and equal <= least
    if one.expect == "same":
        if same:
            return "supported", f"Within 5% (p = {equal:.2g})."
        if shown:
            return "contradicted", f"They differ (p = {p:.2g})."
        return "not shown", f"Within 5%: p = {1.0 if equal is None else equal:.2g}; {_could(found)}"
    if shown and _wanted(one, found):
        return "supported", f"{f'By more than {one.by:.0%}: ' if one.by else ''}p = {p:.2g}."
    if shown:
        other = f"Less than {one.by:.0%}" if one.by else "The other way"
        return "contradicted", f"{other} (p = {p:.2g})."
    if same and not one.by:
        return "contradicted", f"No effect of 5% or more (p = {equal:.2g})."
    return "not shown", f"p = {p:.2g}; {_could(found)}"


def _wanted(one: Hypothesis, found: Numbers) -> bool:
    """Whether the effect has the expected direction and size."""
    assert found.difference is not None
    least = one.by * abs(found.baseline or 0.0)
    return found.difference > least if one.expect == "more" else found.difference < -least


def _could(found: Numbers) -> str:
    if found.detectable is None:
        return "there are too few units to show any effect."
    return f"a true effect of {found.detectable:.3g} would be detected with a probability of 80%."
