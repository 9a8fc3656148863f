"""The verdict of an evaluation in words; nulls and harms are stated as plainly as gains.

The verdict says "raised" or "lowered" only if the paired difference from `none` is significant at
5%, after Holm's correction over the arms and Bonferroni's over the measures and the agents (a pool
of training seeds counts as an evaluation of its own). This needs at least 20 pairs and, for pooled
training seeds, enough seeds for such a test. A gain is credited to thinking if it also beats the
best control.
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from thinkslow.evaluation import planning
from thinkslow.evaluation.metrics import metric
from thinkslow.evaluation.reading import (
    Estimate,
    Record,
    agents,
    arms,
    comparisons,
    decision_ms,
    estimate,
    kind,
)
from thinkslow.evaluation.records import finite
from thinkslow.evaluation.report.text import estimated, metric_name, metric_unit, number
from thinkslow.plural import plural

ENOUGH = 20
"""The smallest number of pairs for a verdict of "raised" or "lowered"."""

_MEASURES = ("score", "psnr")
_SHARE = 0.1  # of the mean score: the difference that a larger evaluation is planned to find


@dataclass(frozen=True)
class Said:
    """The verdict on one agent."""

    agent: str
    headline: str
    details: list[str]
    """The sentences that support it."""
    scope: str
    """Its scope: a sentence, or nothing."""


def verdicts(summary: Record) -> list[Said]:
    """The verdict on each agent, in parts, for the page or the terminal."""
    return [_agent(summary, agent) for agent in agents(summary)]


def scopes(said: Sequence[Said]) -> list[str]:
    """The scope of the verdicts, once if it is the same for all agents."""
    own = [one for one in said if one.scope]
    if len({one.scope for one in own}) <= 1:
        return [one.scope for one in own[:1]]
    return [f"{one.agent}: {one.scope}" for one in own]


def conclusion(summary: Record) -> str:
    """The effect of thinking on the score and PSNR of each agent, one line for each agent.

    A line has a headline with the cost, the supporting numbers and the scope.

    >>> records = [{"agent": "a", "arm": "sig", "metric": measure, "difference": 0.3,
    ...             "interval": [-0.5, 1.1], "pairs": 40, "unit": "episode", "p_value_holm": 0.48}
    ...            for measure in ("score",)]
    >>> arms = [{"agent": "a", "arm": arm, "latency_ms": {"median": ms}}
    ...         for arm, ms in (("none", 1.0), ("sig", 3.0))]
    >>> print(conclusion({"arms": arms, "comparisons": records}))
    a: No gain in score; thinking costs 3.0 times as much time. The largest difference is that of
    sig, +0.30 [-0.50, 1.10] (p = 0.48). 40 paired episodes of one checkpoint: other training runs
    may differ.
    """
    lines = [
        f"{said.agent}: {' '.join(filter(None, [said.headline, *said.details, said.scope]))}"
        for said in verdicts(summary)
    ]
    return "\n".join(lines) or "No arm was evaluated, so nothing is shown."


def caption(mark: str) -> str:
    """The meaning of a mark such as a star or a colour, for tables.

    >>> print(caption("*"))
    *: the 95% interval excludes zero. It needs at least 6 pairs or training seeds, and is not
    corrected for the number of comparisons.
    """
    return (
        f"{mark}: the 95% interval excludes zero. It needs at least "
        f"{plural(planning.fewest_units(), 'pair')} or training seeds, and is not corrected for "
        "the number of comparisons."
    )


P_HOLM = "p (Holm): corrected for the number of arms with the same measure and baseline."
"""The meaning of the column of that name."""


Mark = Literal["better", "worse", "other", ""]
"""How a marked difference goes: `other` if neither way of its measure is better."""


def marked(record: Record | None) -> Mark:
    """Whether a difference is marked in tables, as `caption` says, and which way it goes.

    >>> marked({"metric": "mse", "difference": 0.3, "interval": [0.1, 0.5]})
    'worse'
    """
    difference = estimate(record, "difference")
    if record is None or difference is None or record.get("untested"):
        return ""
    if not (difference.above or difference.below):
        return ""
    direction = metric(record["metric"]).direction
    if not direction:
        return "other"
    return "better" if difference.above == (direction == "higher is better") else "worse"


@dataclass(frozen=True)
class _Verdict:
    """The arms of one agent that were compared with none, for one measure, by their effect."""

    records: dict[str, Record]
    found: dict[str, Estimate]
    p_values: dict[str, float]
    """Corrected for all comparisons; 1 if a record has none."""
    tests: int
    refined: list[str]
    """Refinements, the largest difference first, as in the next three fields."""
    raised: list[str]
    lowered: list[str]
    credited: list[str]
    """The refinements that also beat the best control."""
    control: str | None
    """The best control."""

    @property
    def seeds(self) -> int | None:
        """Number of training seeds, if they are the units of the comparisons."""
        units = [self.records[arm] for arm in self.refined]
        if all(record.get("unit", "episode") == "episode" for record in units):
            return None
        return min(record.get("clusters") or 0 for record in units)

    @property
    def pairs(self) -> int:
        """The smallest number of pairs of a refinement."""
        return min(self.records[arm].get("pairs") or 0 for arm in self.refined)

    @property
    def dropped(self) -> int:
        """Largest number of pairs left out of a refinement."""
        return max(int(self.records[arm].get("dropped") or 0) for arm in self.refined)

    @property
    def enough(self) -> bool:
        """Whether there are enough units for a verb."""
        needed = planning.fewest_units(self.tests)
        return self.pairs >= ENOUGH and (self.seeds is None or self.seeds >= needed)


def _agent(summary: Record, agent: str) -> Said:
    compared = [
        measure for measure in _MEASURES if _differences(summary, agent, measure, "refinement")
    ]
    claims = len(compared) * (1 if _pooled(summary, agent) else _single(summary))
    verdicts = {each: _verdict(summary, agent, each, claims) for each in compared}
    if not verdicts:
        names = [arm["arm"] for arm in arms(summary, agent)]
        played = ", ".join(names) or "no arm"
        nothing = f"no refinement was compared with none ({played} alone)"
        if "none" in names and any(kind(name) == "refinement" for name in names):
            nothing = f"of no pair are both scores known ({played})"
        return Said(agent, f"{nothing}, so nothing is shown.", [], "")
    first = verdicts[compared[0]]
    cost = _cost(summary, agent, first.credited or first.raised or first.lowered or first.refined)
    if not first.enough:
        head, details = _too_few(summary, agent, compared[0], first)
    else:
        head = _headline(first) if "score" in verdicts else "The score was not compared"
        details = []
        for measure, verdict in verdicts.items():
            if verdict.enough:
                sentence = _sentence(summary, agent, measure, verdict)
                details.append(
                    sentence if measure == "score" else f"{metric_name(measure)}: {sentence}"
                )
    return Said(agent, f"{head}; {cost}.", details, _scope(first))


def _differences(summary: Record, agent: str, measure: str, wanted: str) -> dict[str, Estimate]:
    """Differences from none of the arms of one kind, the largest first."""
    found = {
        arm: difference
        for arm, record in comparisons(summary, agent, measure).items()
        if kind(arm) == wanted and (difference := estimate(record, "difference")) is not None
    }
    return dict(sorted(found.items(), key=lambda each: -each[1].value))


def _pooled(summary: Record, agent: str) -> bool:
    """Whether an agent stands for several training seeds."""
    own = [record for record in summary["comparisons"] if record["agent"] == agent]
    return any(record.get("unit") not in ("episode", None) for record in own)


def _single(summary: Record) -> int:
    return sum(not _pooled(summary, agent) for agent in agents(summary))


def _verdict(summary: Record, agent: str, measure: str, claims: int) -> _Verdict:
    records = comparisons(summary, agent, measure)
    refined = _differences(summary, agent, measure, "refinement")
    controls = _differences(summary, agent, measure, "control")
    found = refined | controls
    p_values = {arm: _corrected(records[arm], claims) for arm in found}
    significant = [arm for arm in refined if p_values[arm] <= planning.ALPHA]
    raised = [arm for arm in significant if found[arm].value > 0]
    control = next(iter(controls), None)
    against = comparisons(summary, agent, measure, baseline=control) if control else {}
    return _Verdict(
        records=records,
        found=found,
        p_values=p_values,
        tests=len(found) * claims,
        refined=list(refined),
        raised=raised,
        lowered=[arm for arm in significant if found[arm].value < 0],
        credited=[arm for arm in raised if _beats(against.get(arm), claims)],
        control=control,
    )


def _corrected(record: Record, claims: int) -> float:
    p = finite(record.get("p_value_holm"))
    return 1.0 if p is None else min(1.0, claims * p)


def _beats(record: Record | None, claims: int) -> bool:
    difference = estimate(record, "difference")
    if record is None or difference is None or difference.value <= 0:
        return False
    return _corrected(record, claims) <= planning.ALPHA


def _headline(verdict: _Verdict) -> str:
    if verdict.credited:
        head = f"{_listed(verdict.credited)} raised the score"
    elif verdict.raised and verdict.control:
        head = "No gain in score over the best control"
    elif verdict.raised:
        head = f"{_listed(verdict.raised)} raised the score, and no control was played"
    elif verdict.lowered:
        return f"{_listed(verdict.lowered)} lowered the score"
    else:
        same = _equivalence(verdict) <= planning.ALPHA
        return "The same score within 5%" if same else "No gain in score"
    return f"{head}, and {_listed(verdict.lowered)} lowered it" if verdict.lowered else head


def _sentence(summary: Record, agent: str, measure: str, verdict: _Verdict) -> str:
    """The effect of the arms on one measure, each with its difference from none."""

    def told(names: list[str]) -> str:
        return _listed(
            [
                f"{arm} ({_shown(verdict, arm, measure)}, p = {verdict.p_values[arm]:.2g})"
                for arm in names
            ]
        )

    control = verdict.control
    best = f"{control} ({_shown(verdict, control, measure)})" if control else ""
    others = [arm for arm in verdict.raised if arm not in verdict.credited]
    parts = []
    if verdict.credited:
        parts.append(
            f"{told(verdict.credited)} raised it, and by more than the best control, {best}"
        )
    if others and control:
        parts.append(
            f"{told(others)} raised it, but not demonstrably by more than the best control, "
            f"{best}, so thinking is not shown to be the reason"
        )
    elif others:
        parts.append(f"{told(others)} raised it; a control might do as well")
    if verdict.lowered:
        parts.append(f"{told(verdict.lowered)} lowered it")
    if not parts:
        parts.append(_null(summary, agent, measure, verdict))
    if control and not verdict.raised and verdict.p_values[control] <= planning.ALPHA:
        way = "raised" if verdict.found[control].value > 0 else "lowered"
        parts.append(f"the control {told([control])} {way} it without thinking")
    return f"{'; '.join(parts)}."


def _null(summary: Record, agent: str, measure: str, verdict: _Verdict) -> str:
    said = _largest(verdict, measure, p_value=True)
    if measure == "score" and (p := _equivalence(verdict)) <= planning.ALPHA:
        return f"{said}; no arm's is 5% or more of the score without thinking (p = {p:.2g})"
    deviations = [
        deviation
        for arm in verdict.refined
        if (deviation := finite(verdict.records[arm].get("deviation"))) is not None
    ]
    if not deviations:
        return said
    smallest = planning.detectable(max(deviations), verdict.seeds or verdict.pairs, verdict.tests)
    level = _level(summary, agent, measure) if measure == "score" else None
    share = f" ({smallest / abs(level):.0%} of the score)" if level else ""
    return (
        f"{said}; an evaluation of this size detects a true difference of "
        f"{number(smallest)}{metric_unit(measure)}{share} with a probability of 80%"
    )


def _too_few(summary: Record, agent: str, measure: str, verdict: _Verdict) -> tuple[str, list[str]]:
    """Headline, what to do, and the largest difference without a verb."""
    largest = f"{_largest(verdict, measure)}."
    needed = planning.fewest_units(verdict.tests)
    if verdict.seeds is not None and verdict.seeds < needed:
        compared = plural(verdict.tests, "comparison")
        return (
            f"No test: {plural(verdict.seeds, 'training seed')}, and {compared} need {needed} or "
            "more",
            [largest],
        )
    episodes = _episodes_needed(summary, agent, measure, verdict)
    command = _command(str(summary.get("protocol", {}).get("command") or ""), episodes)
    return "Too few episodes to say", [f"For a verdict run {command}.", largest]


def _episodes_needed(summary: Record, agent: str, measure: str, verdict: _Verdict) -> int:
    """Number of episodes, in tens, that detect a difference of a tenth of the measure on one
    checkpoint, or that are enough for a verdict; increased by the share that was left out.
    """
    needed = [ENOUGH] if verdict.seeds is None else [math.ceil(ENOUGH / verdict.seeds)]
    level = _level(summary, agent, measure)
    for record in (verdict.records[arm] for arm in verdict.refined):
        deviation = finite(record.get("deviation"))
        if verdict.seeds is None and deviation is not None and level:
            effect = _SHARE * abs(level)
            needed.append(planning.units_needed(deviation, effect, verdict.tests))
    pairs = max(verdict.pairs, 1)
    return 10 * math.ceil(max(needed) * (pairs + verdict.dropped) / pairs / 10)


def _command(command: str, episodes: int) -> str:
    """The stored command with another number of episodes.

    >>> _command("thinkslow evaluate 'my agent' --episodes=4 --seed 7", 120)
    "`thinkslow evaluate 'my agent' --seed 7 --episodes 120`"
    >>> _command("", 120)
    'again with `episodes=120`'
    """
    if not command.startswith("thinkslow "):
        return f"again with `episodes={episodes}`"
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word == "--episodes":
            next(words, None)
        elif not word.startswith("--episodes="):
            kept.append(word)
    return f"`{shlex.join([*kept, '--episodes', str(episodes)])}`"


def _cost(summary: Record, agent: str, names: list[str]) -> str:
    """How many times as long a decision takes with thinking; a range for several arms."""
    timed = {arm["arm"]: ms for arm in arms(summary, agent) if (ms := decision_ms(arm))}
    base = timed.get("none")
    ratios = sorted(timed[arm] / base for arm in names if arm in timed) if base else []
    if not ratios:
        return "what thinking costs was not measured"
    ends = list(dict.fromkeys(f"{ratio:.1f}" for ratio in (ratios[0], ratios[-1])))
    return f"thinking costs {' to '.join(ends)} times as much time"


def _scope(verdict: _Verdict) -> str:
    """The scope of the verdict, once."""
    said = f"{plural(verdict.pairs, 'paired episode')} of "
    if any(verdict.records[arm].get("paired") is False for arm in verdict.refined):
        said = f"{plural(verdict.pairs, 'episode')} an arm, not paired, of "
    said += "one checkpoint" if verdict.seeds is None else plural(verdict.seeds, "training seed")
    if verdict.enough and verdict.tests > 1:
        said += f", p corrected for {plural(verdict.tests, 'comparison')}"
    said += (
        ": other training runs may differ."
        if verdict.seeds is None
        else ": each seed counts as one value."
    )
    if verdict.dropped:
        pairs = plural(verdict.dropped, "pair is", "pairs are")
        most = "" if len(verdict.refined) == 1 else " in the arm that lacks most"
        said += f" {pairs} left out{most}: crashed, missing or non-finite."
    return said


def _largest(verdict: _Verdict, measure: str, *, p_value: bool = False) -> str:
    """The largest difference of a refinement. Without p-values it is that of few episodes."""
    arm = max(verdict.refined, key=lambda arm: abs(verdict.found[arm].value))
    p = f" (p = {verdict.p_values[arm]:.2g})" if p_value else ""
    so_far = "" if p_value else " so far"
    if not verdict.found[arm].value:
        whose = arm if len(verdict.refined) == 1 else "every refinement"
        return f"The mean difference of {whose}{so_far} is zero{p}"
    return f"The largest difference{so_far} is that of {arm}, {_shown(verdict, arm, measure)}{p}"


def _shown(verdict: _Verdict, arm: str, measure: str) -> str:
    return estimated(verdict.found[arm], signed=True, unit=metric_unit(measure))


def _equivalence(verdict: _Verdict) -> float:
    """The largest p-value of the equivalence tests of all refinements, for a margin of 5%."""
    found = [finite(verdict.records[arm].get("p_equivalent")) for arm in verdict.refined]
    return max(1.0 if p is None else p for p in found)


def _level(summary: Record, agent: str, measure: str) -> float | None:
    """The mean of a measure without thinking."""
    base = next((arm for arm in arms(summary, agent) if arm["arm"] == "none"), {})
    return finite((base.get(measure) or {}).get("mean"))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
