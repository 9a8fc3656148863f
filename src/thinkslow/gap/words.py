"""Gaps in words: names of beliefs, numbers with their intervals, a summary for each agent."""

from collections.abc import Mapping
from typing import Any

from thinkslow.evaluation.reading import Estimate
from thinkslow.evaluation.report import text
from thinkslow.gap.stored import BEST, BEST_LATER
from thinkslow.plural import plural

LABELS = {
    "none": "none (encoder)",
    BEST: "best, this frame",
    BEST_LATER: "best, later ones too",
}
"""The names of beliefs."""


def estimate(row: Mapping[str, Any]) -> Estimate | None:
    """A number of the summary with its interval; None if there is none."""
    if row["mean"] is None:
        return None
    return Estimate(row["mean"], None if row["interval"] is None else tuple(row["interval"]))


def estimated(row: Mapping[str, Any], *, signed: bool = False) -> str:
    """A number with its interval, as text.

    >>> estimated({"mean": 1.234, "interval": [1.1, 1.4]})
    '1.23 [1.10, 1.40]'
    """
    return text.estimated(estimate(row), signed=signed)


def heading(agent: Mapping[str, Any]) -> str:
    """An agent with its training budget and the number of measured moments."""
    steps = agent["training_steps"]
    budget = f", {plural(steps, 'training decision')}" if steps is not None else ""
    return (
        f"{agent['name']}{budget}: {plural(agent['moments'], 'moment')} of "
        f"{plural(agent['episodes'], 'episode')}, "
        f"beta {agent['beta']:g}"
    )


def approximated(agent: Mapping[str, Any]) -> str:
    """The approximation gap, with the effective number of samples."""
    found = agent["approximation"]
    effective = found["effective"]
    most = found["convergence"][-1]["samples"]
    counted = "" if effective is None else f" ({effective:.0f} of {most} samples count)"
    return f"at least {estimated(found)}{counted}"


def said(agent: Mapping[str, Any]) -> list[str]:
    """The gaps of one agent in sentences."""
    rows = {row["name"]: row for row in agent["beliefs"]}
    base, out = rows["none"], []
    gap = estimate(base["amortisation"])
    out.append(
        f"The encoder's belief costs {estimated(base['amortisation'])} nats more than the best of "
        "its family that was found for the frame"
        + (
            ": one encoder pass loses something."
            if gap and gap.above
            else ": no loss from using one encoder pass is shown."
        )
    )
    out.append(
        f"That best belief costs at least {estimated(agent['approximation'])} nats more than the "
        "exact one."
    )
    out.append(
        "The best belief that knows the frames that follow costs "
        f"{estimated(rows[BEST]['conditioning'])} nats less than it, over all these frames "
        "together."
    )
    for name, row in rows.items():
        if name not in ("none", BEST, BEST_LATER):
            out.append(f"{name}{_closed(row['closed'])} {_next(row['change']['next'])}.")
    out.append(f"The best belief for this frame {_next(rows[BEST]['change']['next'])}.")
    return out


def _closed(share: float | None) -> str:
    """The effect of an arm on the encoder's amortisation gap."""
    if share is None:
        return ""
    done = f"closes {share:.0%} of" if share >= 0 else f"adds {-share:.0%} to"
    return f" {done} the amortisation gap, and"


def _next(row: Mapping[str, Any]) -> str:
    found = estimate(row)
    if found is None:
        return "says nothing of the next frame"
    told = "without a demonstrated difference"
    if found.below:
        told = "better"
    elif found.above:
        told = "worse"
    return f"predicts the next frame {told} ({estimated(row, signed=True)} nats)"
