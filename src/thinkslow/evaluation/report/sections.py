"""The section of one agent on the page: its tables and figures."""

from collections.abc import Mapping
from typing import Any

from thinkslow.evaluation import reading
from thinkslow.evaluation.metrics import METRICS
from thinkslow.evaluation.reading import Record
from thinkslow.evaluation.records import Records
from thinkslow.evaluation.report import figures
from thinkslow.evaluation.report.arms import all_numbers, constant, main_table
from thinkslow.plural import plural


def section(
    records: Records, summary: Record, agent: str, known: Mapping[str, float]
) -> dict[str, Any]:
    """Tables, figures, and notes about missing data.

    Args:
        known: scores of reference players, by name.
    """
    ahead = figures.ahead(summary, agent)
    scores = figures.scores(records.episodes, summary, agent, known)
    cost = figures.cost(summary, agent)
    shown = [scores, figures.improvements(summary, agent), cost]
    own = reading.arms(summary, agent)
    return {
        "agent": agent,
        "origin": _origin(next((r for r in summary["agents"] if r["name"] == agent), {})),
        "table": main_table(summary, agent),
        "descriptions": [(arm["arm"], arm.get("description")) for arm in own],
        "numbers": all_numbers(summary, agent),
        "images": summary["images"].get(agent, []),
        "ahead": ahead,
        "figures": [figure for figure in shown if figure],
        "missing": [
            what
            for figure, what in (
                (scores, "No score was recorded: episodes.jsonl has none of this agent."),
                (cost, "No latency was recorded."),
                (ahead, "No open-loop prediction was recorded."),
            )
            if figure is None
        ],
        "more": [
            figure
            for metric in _more(summary, agent, whether_ahead=ahead is not None)
            if (figure := figures.differences(summary, agent, metric)) is not None
        ],
    }


def _origin(facts: Record) -> str:
    """The training of an agent in a few words; empty if it is unknown."""
    if "training_steps" not in facts:
        return ""
    steps = facts["training_steps"]
    said = ["training steps not stored" if steps is None else plural(steps, "training step")]
    if facts.get("training_seed") is not None:
        said.append(f"training seed {facts['training_seed']}")
    if facts.get("source"):
        said.append(f"by {facts['source']}")
    return ", ".join(said)


def _more(summary: Record, agent: str, *, whether_ahead: bool) -> list[str]:
    """Metrics that no other figure shows, without those that no arm changed."""
    compared = {row["metric"] for row in summary["comparisons"] if row["agent"] == agent}
    elsewhere = {"score", *([] if not whether_ahead else ["psnr"])}
    if whether_ahead:
        elsewhere |= {name for name in compared if name.startswith("psnr_ahead")}
    order = [*(name for name in METRICS if name in compared), *sorted(compared - set(METRICS))]
    return [name for name in order if name not in elsewhere and not constant(summary, agent, name)]
