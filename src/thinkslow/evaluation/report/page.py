"""An evaluation folder as one HTML page that needs no network.

Everything is inlined: the plotting library once, figures as JSON, frames as PNG. The page
forbids itself, by its content security policy, to load anything else.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from thinkslow.evaluation import records
from thinkslow.evaluation.records import Evaluation, Record
from thinkslow.evaluation.report import figures, strips
from thinkslow.evaluation.report.conclusion import caption, conclusion, marked
from thinkslow.evaluation.report.text import METRICS, estimated, number


def build(folder: Path, *, title: str | None = None) -> Path:
    """Write `folder/report.html` from the records in `folder`, and return its path.

    Parts whose records are missing say so on the page. About 5 MB, nearly all of it the
    plotting library. An older page is replaced only once the new one is whole.

    Raises FileNotFoundError if there is no `summary.json`, and ValueError, naming the file, if
    a file is there and cannot be understood.
    """
    evaluation = records.read(Path(folder))
    page = _render(evaluation, title)
    path = Path(folder) / "report.html"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _render(evaluation: Evaluation, title: str | None) -> str:
    environment = Environment(
        loader=PackageLoader("thinkslow.evaluation.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    summary = evaluation.summary
    plots: dict[str, go.Figure] = {}

    def plot(figure: go.Figure | None) -> str | None:
        """Keep a figure for the page and return the id of its place; None for no figure."""
        if figure is None:
            return None
        name = f"plot-{len(plots)}"
        plots[name] = figure
        return name

    sections = [_section(evaluation, agent, plot) for agent in records.agents(summary)]
    learning = plot(figures.learning(evaluation.learning))
    rows = strips.rows(evaluation.strips)
    return environment.get_template("page.html.jinja").render(
        title=title or f"Thinking slow on {summary['environment'].get('id', 'an environment')}",
        summary=summary,
        conclusions=[line.partition(": ") for line in conclusion(summary).split("\n")],
        sections=sections,
        learning=learning,
        rows=rows,
        strips_left_out=sum(len(s["step"]) for s in evaluation.strips.values()) - len(rows),
        crashed=sum(bool(record.get("crashed")) for record in evaluation.episodes),
        colours=figures.COLOURS,
        caption=caption("Green and red"),
        provenance=_provenance(summary),
        figures=_inlined({name: figure.to_plotly_json() for name, figure in plots.items()}),
        plotly=Markup(get_plotlyjs()),
    )


def _section(
    evaluation: Evaluation, agent: str, plot: Callable[[go.Figure | None], str | None]
) -> dict[str, Any]:
    """What the page shows of one agent."""
    summary = evaluation.summary
    compared = {r["metric"] for r in summary["comparisons"] if r["agent"] == agent}
    order = [
        *[metric for metric in METRICS if metric in compared],
        *sorted(compared - set(METRICS)),
    ]
    forests = [plot(figures.forest(summary, agent, metric)) for metric in order]
    ahead = [plot(figures.open_loop(summary, agent, metric)) for metric in ("psnr", "mse")]
    batches = [(arm.get("latency_ms") or {}).get("batch") for arm in records.arms(summary, agent)]
    return {
        "agent": agent,
        "record": next((r for r in summary["agents"] if r["name"] == agent), {}),
        "rows": [_row(summary, arm) for arm in records.arms(summary, agent)],
        "forests": [name for name in forests if name],
        "episodes": plot(figures.episodes(evaluation, agent)),
        "cost": plot(figures.cost(summary, agent)),
        "batch": ", ".join(str(batch) for batch in dict.fromkeys(batches) if batch),
        "open_loop": [name for name in ahead if name],
    }


def _row(summary: Record, arm: Record) -> dict[str, Any]:
    """One line of the table, as text."""
    agent, name = arm["agent"], arm["arm"]

    def absolute(metric: str) -> str:
        return estimated(records.estimate(arm.get(metric)))

    def difference(metric: str) -> dict[str, str]:
        record = records.comparisons(summary, agent, metric).get(name)
        found = records.estimate(record, "difference")
        return {"text": estimated(found, signed=True), "tone": marked(record)}

    score = records.comparisons(summary, agent, "score").get(name, {})
    holm, share = (
        records.finite(score.get("p_value_holm")),
        records.finite(arm.get("thought_share")),
    )
    improve = records.estimate(
        {"mean": score.get("p_improve"), "interval": score.get("p_improve_interval")}
    )
    return {
        "arm": name,
        "kind": records.kind(name),
        "description": arm.get("description", ""),
        "score": absolute("score"),
        "score_difference": difference("score"),
        "p_improve": estimated(improve),
        "p_holm": "no test" if score.get("untested") else "–" if holm is None else f"{holm:.2g}",
        "correlation": number(records.finite(score.get("correlation"))),
        "pairs": score.get("pairs", "–"),
        "length": absolute("length"),
        "psnr": absolute("psnr"),
        "psnr_difference": difference("psnr"),
        "ssim": absolute("ssim"),
        "mse": absolute("mse"),
        "latency": number(records.finite((arm.get("latency_ms") or {}).get("median"))),
        "thought": "–" if share is None else f"{share:.0%}",
        "belief_kl": number(records.finite(arm.get("belief_kl"))),
        "episodes": arm.get("episodes", "–"),
    }


def _provenance(summary: Record) -> list[tuple[str, str]]:
    """How the numbers came about, as pairs of a word and its value."""
    protocol, environment = summary["protocol"], summary["environment"]
    found = [
        ("command", protocol.get("command")),
        ("protocol", protocol.get("name")),
        ("episodes an arm", protocol.get("episodes")),
        ("seed", protocol.get("seed")),
        ("environment", ", ".join(f"{key} {value}" for key, value in environment.items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in (protocol.get("versions") or {}).items())),
        ("machine", protocol.get("machine")),
    ]
    found += [
        ("agent", ", ".join(f"{key} {value}" for key, value in agent.items()))
        for agent in summary["agents"]
    ]
    return [(word, str(value)) for word, value in found if value not in (None, "")]


def _inlined(value: Any) -> Markup:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
