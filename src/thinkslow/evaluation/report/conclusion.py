"""What an evaluation shows, said in words, nulls and harms as plainly as gains.

A refinement is said to raise a metric only if the 95% interval of its paired difference from
`none` lies above zero, and is credited with it only if it also beats the best control: by a
recorded comparison with that control (`"baseline": "control-…"`), or, where there is none, if
its interval lies wholly above that of the control, which asks for more.
"""

from thinkslow.evaluation.records import (
    BASE,
    Estimate,
    Record,
    agents,
    arms,
    comparisons,
    estimate,
    finite,
    kind,
)
from thinkslow.evaluation.report.text import estimated, metric_name, metric_unit

_METRICS = ("score", "psnr")
_ENOUGH = 20  # pairs from which a bootstrap interval is roughly what it says


def conclusion(summary: Record) -> str:
    """One line an agent: what refinement did to its score and its PSNR, and how far that goes.

    >>> record = {"agent": "a", "arm": "sig", "metric": "score", "difference": 0.3,
    ...           "interval": [-0.5, 1.1], "pairs": 40, "unit": "episode"}
    >>> print(conclusion({"arms": [], "comparisons": [record]}))
    a: Score: no refinement is shown to change it (largest difference: sig, +0.30 [-0.50, 1.10]).
    This is over 40 paired episodes of this checkpoint and says nothing of other training runs.
    """
    lines = [_agent(summary, agent) for agent in agents(summary)]
    return "\n".join(lines) or "No arm was evaluated, so nothing is shown."


def _agent(summary: Record, agent: str) -> str:
    said = [_metric(summary, agent, metric) for metric in _METRICS]
    said = [sentence for sentence in said if sentence]
    if not said:
        played = ", ".join(arm["arm"] for arm in arms(summary, agent)) or "no arm"
        return (
            f"{agent}: no refinement was compared with none ({played} alone), so nothing is shown."
        )
    return f"{agent}: {' '.join(said)} {_scope(summary, agent)}"


def _metric(summary: Record, agent: str, metric: str) -> str:
    """What the refinements did to one metric; nothing if none was compared."""
    found = {
        arm: difference
        for arm, record in comparisons(summary, agent, metric).items()
        if (difference := estimate(record, "difference")) is not None
    }
    refined = _ranked(found, "refinement")
    if not refined:
        return ""
    controls = _ranked(found, "control")
    raised = [arm for arm in refined if found[arm].above]
    lowered = [arm for arm in refined if found[arm].below]
    best = controls[0] if controls else None
    credited = [arm for arm in raised if best and _beats(summary, agent, metric, arm, best, found)]

    def told(arm: str) -> str:
        difference = estimated(found[arm], signed=True, unit=metric_unit(metric))
        return f"{arm} ({difference}{_caution(summary, agent, metric, arm)})"

    def listed(names: list[str]) -> str:
        return ", ".join(told(arm) for arm in names)

    parts = []
    if credited:
        parts.append(f"{listed(credited)} beat none and the best control, {listed(controls[:1])}")
    uncredited = [arm for arm in raised if arm not in credited]
    if uncredited and best:
        parts.append(
            f"{listed(uncredited)} beat none, but not demonstrably the best control, {told(best)}, "
            "so the gain is not credited to refinement"
        )
    elif uncredited:
        parts.append(
            f"{listed(uncredited)} beat none, but no control was run, so the gain is not "
            "credited to refinement"
        )
    if lowered:
        parts.append(f"{listed(lowered)} did harm")
    unmoved = len(refined) - len(raised) - len(lowered)
    if not raised and not lowered:
        largest = max(refined, key=lambda arm: abs(found[arm].value))
        difference = estimated(found[largest], signed=True, unit=metric_unit(metric))
        parts.append(
            f"no refinement is shown to change it (largest difference: {largest}, {difference})"
        )
    elif not raised:
        parts.append("no refinement is shown to raise it")
    elif unmoved:
        parts.append(
            f"{unmoved} {'other is' if unmoved == 1 else 'others are'} not shown to change it"
        )
    if not raised and best and found[best].above:
        parts.append(f"the control {told(best)} raised it without refinement")
    return f"{metric_name(metric)}: {'; '.join(parts)}."


def _ranked(found: dict[str, Estimate], wanted: str) -> list[str]:
    """Arms of one kind, the largest difference first."""
    names = [arm for arm in found if kind(arm) == wanted]
    return sorted(names, key=lambda arm: -found[arm].value)


def _beats(
    summary: Record, agent: str, metric: str, arm: str, control: str, found: dict[str, Estimate]
) -> bool:
    record = comparisons(summary, agent, metric, baseline=control).get(arm)
    if (paired := estimate(record, "difference")) is not None:
        return paired.above
    own, other = found[arm].interval, found[control].interval
    return own is not None and other is not None and own[0] > other[1]


def _caution(summary: Record, agent: str, metric: str, arm: str) -> str:
    """Said of an interval without zero that does not survive correction for many comparisons."""
    record = comparisons(summary, agent, metric)[arm]
    difference, p = estimate(record, "difference"), finite(record.get("p_value_holm"))
    clear = difference is not None and (difference.above or difference.below)
    return f"; after Holm's correction p = {p:.2g}" if clear and p is not None and p > 0.05 else ""


def _scope(summary: Record, agent: str) -> str:
    records = [
        record
        for metric in _METRICS
        for record in comparisons(summary, agent, metric, BASE).values()
    ]
    counts = [record["pairs"] for record in records if "pairs" in record]
    pairs = str(min(counts, default="the"))
    caution = (
        f" Fewer than {_ENOUGH} pairs: such intervals are too narrow to be relied on."
        if counts and min(counts) < _ENOUGH
        else ""
    )
    if all(record.get("unit") == "episode" for record in records):
        return (
            f"This is over {pairs} paired episodes of this checkpoint "
            f"and says nothing of other training runs.{caution}"
        )
    return f"This is over {pairs} paired episodes, resampled by training seed and episode.{caution}"
