"""An evaluation folder as one HTML page that needs no network.

Everything is inlined: the plotting library once, figures as JSON, frames as PNG. The page
forbids itself, by its content security policy, to load anything else.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from thinkslow.evaluation import reading
from thinkslow.evaluation.metrics import METRICS
from thinkslow.evaluation.reading import Record
from thinkslow.evaluation.records import Records, finite, read
from thinkslow.evaluation.report import figures, strips
from thinkslow.evaluation.report.conclusion import caption, conclusion, marked
from thinkslow.evaluation.report.text import estimated, number
from thinkslow.evaluation.summary import summarise
from thinkslow.storage import atomic


def build(folder: Path, *, title: str | None = None, summary: Record | None = None) -> Path:
    """Write `summary.json` and `report.html` from the records in `folder`; returns the page.

    The evaluation may be unfinished; the page says so. Parts whose records are missing say so
    too. About 5 MB, nearly all of it the plotting library. An older page is replaced only once the
    new one is whole.

    Args:
        folder: What `evaluate` wrote.
        title: Of the page; by default it names the environment.
        summary: That of the records, where it is known already.

    **Errors:** `FileNotFoundError` if there is no evaluation; `ValueError`, naming the file, if a
    file is there and cannot be understood.
    """
    folder = Path(folder)
    records = read(folder)
    pictures = strips.read(folder, records.header)
    summary = summarise(records) if summary is None else summary
    page = _render(records, summary, pictures, title)
    atomic.write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    atomic.write_text(folder / "report.html", page)
    return folder / "report.html"


def _render(
    records: Records, summary: Record, pictures: dict[strips.Key, strips.Strip], title: str | None
) -> str:
    environment = Environment(
        loader=PackageLoader("thinkslow.evaluation.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plots: dict[str, go.Figure] = {}

    def plot(figure: go.Figure | None) -> str | None:
        """Keep a figure for the page and return the id of its place; None for no figure."""
        if figure is None:
            return None
        name = f"plot-{len(plots)}"
        plots[name] = figure
        return name

    sections = [_section(records, summary, agent, plot) for agent in reading.agents(summary)]
    learning = plot(figures.learning(records.header.curves, records.header.agents))
    rows = strips.rows(pictures)
    return environment.get_template("page.html.jinja").render(
        title=title or f"Thinking slow on {summary['environment'].get('id', 'an environment')}",
        summary=summary,
        paired=all(row.get("paired", True) for row in summary["comparisons"]),
        conclusions=[line.partition(": ") for line in conclusion(summary).split("\n")],
        sections=sections,
        learning=learning,
        rows=rows,
        strips_left_out=sum(len(s["step"]) for s in pictures.values()) - len(rows),
        colours=figures.COLOURS,
        caption=caption("Green and red"),
        provenance=_provenance(summary),
        figures=_inlined({name: figure.to_plotly_json() for name, figure in plots.items()}),
        plotly=Markup(get_plotlyjs()),
    )


def _section(
    records: Records, summary: Record, agent: str,
    plot: Callable[[go.Figure | None], str | None],
) -> dict[str, Any]:  # fmt: skip
    """What the page shows of one agent."""
    compared = {r["metric"] for r in summary["comparisons"] if r["agent"] == agent}
    order = [
        *[name for name in METRICS if name in compared],
        *sorted(compared - set(METRICS)),
    ]
    forests = [plot(figures.forest(summary, agent, name)) for name in order]
    ahead = [plot(figures.open_loop(summary, agent, name)) for name in ("psnr", "mse")]
    images = summary["images"].get(agent, [])
    return {
        "agent": agent,
        "record": next((r for r in summary["agents"] if r["name"] == agent), {}),
        "rows": [_row(summary, arm) for arm in reading.arms(summary, agent)],
        "forests": [name for name in forests if name],
        "episodes": plot(figures.episodes(records.episodes, agent)),
        "cost": plot(figures.cost(summary, agent)),
        "images": images,
        "open_loop": [name for name in ahead if name],
    }


def _row(summary: Record, arm: Record) -> dict[str, Any]:
    """One line of the table, as text."""
    agent, name = arm["agent"], arm["arm"]

    def absolute(name: str) -> str:
        return estimated(reading.estimate(arm.get(name)))

    def difference(name: str) -> dict[str, str]:
        record = reading.comparisons(summary, agent, name).get(arm["arm"])
        found = reading.estimate(record, "difference")
        return {"text": estimated(found, signed=True), "tone": marked(record)}

    score = reading.comparisons(summary, agent, "score").get(name, {})
    holm, share = (finite(each) for each in (score.get("p_value_holm"), arm.get("thought_share")))
    improve = reading.estimate(
        {"mean": score.get("p_improve"), "interval": score.get("p_improve_interval")}
    )
    return {
        "arm": name,
        "kind": reading.kind(name),
        "description": arm.get("description") or "",
        "score": absolute("score"),
        "score_difference": difference("score"),
        "p_improve": estimated(improve),
        "p_holm": "no test" if score.get("untested") else "–" if holm is None else f"{holm:.2g}",
        "correlation": number(finite(score.get("correlation"))),
        "pairs": score.get("pairs", "–"),
        "dropped": score.get("dropped", "–"),
        "length": absolute("length"),
        "psnr": absolute("psnr"),
        "psnr_difference": difference("psnr"),
        "ssim": absolute("ssim"),
        "mse": absolute("mse"),
        "latency": number(finite((arm.get("latency_ms") or {}).get("median"))),
        "thought": "–" if share is None else f"{share:.0%}",
        "belief_kl": number(finite(arm.get("belief_kl"))),
        "episodes": arm.get("episodes", "–"),
    }


def _provenance(summary: Record) -> list[tuple[str, str]]:
    """How the numbers came about, as pairs of a word and its value."""
    protocol, environment = summary["protocol"], summary["environment"]
    found = [
        ("command", protocol.get("command")),
        ("protocol", protocol.get("name")),
        ("episodes an arm", protocol.get("episodes")),
        ("decisions an episode, at most", protocol.get("max_decisions")),
        ("seed", protocol.get("seed")),
        ("environment", ", ".join(f"{key} {value}" for key, value in environment.items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in (protocol.get("versions") or {}).items())),
        ("revision", protocol.get("revision")),
        ("machine", protocol.get("machine")),
        ("side by side", protocol.get("batch")),
    ]
    found += [
        ("agent", ", ".join(f"{k} {v}" for k, v in agent.items() if v is not None))
        for agent in summary["agents"]
    ]
    return [(word, str(value)) for word, value in found if value not in (None, "")]


def _inlined(value: Any) -> Markup:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
