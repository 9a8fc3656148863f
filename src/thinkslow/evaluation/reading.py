"""Access to a summary, the plain dictionary of `summary.json`.

An arm is the `base` (named "none"), a `control` (named "control-…") or a `refinement`. An unknown
number, such as the interval of a single pair, is null or NaN there and None here.
"""

from dataclasses import dataclass
from typing import Any, Literal

from thinkslow.evaluation.records import BASE, finite

Record = dict[str, Any]
Kind = Literal["base", "control", "refinement"]

CONTROL = "control-"
"""Prefix of the names of control arms."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval, if there is one."""

    value: float
    interval: tuple[float, float] | None

    @property
    def above(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def below(self) -> bool:
        """Whether the whole interval is below zero."""
        return self.interval is not None and self.interval[1] < 0


def kind(arm: str) -> Kind:
    """Whether an arm is the base, a control or a refinement, by its name.

    >>> kind("none"), kind("control-mode"), kind("sig")
    ('base', 'control', 'refinement')
    """
    if arm == BASE:
        return "base"
    return "control" if arm.startswith(CONTROL) else "refinement"


def agents(summary: Record) -> list[str]:
    """Names of all agents of arms and comparisons, in the order of the records."""
    records = [*summary["arms"], *summary["comparisons"]]
    return list(dict.fromkeys(record["agent"] for record in records))


def arms(summary: Record, agent: str) -> list[Record]:
    """The arms of one agent, in the order of the records."""
    return [arm for arm in summary["arms"] if arm["agent"] == agent]


def comparisons(
    summary: Record, agent: str, metric: str, baseline: str = BASE
) -> dict[str, Record]:
    """Comparisons of one agent's arms with a baseline, by arm."""
    return {
        record["arm"]: record
        for record in summary["comparisons"]
        if record["metric"] == metric
        and record["agent"] == agent
        and record.get("baseline", BASE) == baseline
    }


def estimate(record: Record | None, key: str = "mean") -> Estimate | None:
    """The number under `key` with the record's interval; None if there is no number."""
    if record is None or (value := finite(record.get(key))) is None:
        return None
    low, high = record.get("interval") or (None, None)
    low, high = finite(low), finite(high)
    return Estimate(value, None if low is None or high is None else (low, high))


def decision_ms(arm: Record) -> float | None:
    """Milliseconds per decision: the median, or the mean behind a gate, where the median may be a
    decision without thinking.
    """
    share = finite(arm.get("thought_share"))
    gated = share is not None and 0 < share < 1
    return finite((arm.get("latency_ms") or {}).get("mean" if gated else "median"))
