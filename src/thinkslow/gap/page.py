"""Write measured gaps as `gap.json` and as one HTML page that needs neither a network nor
scripts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkslow.evaluation.report.rendering import rendered
from thinkslow.gap import drawing, figures, paths, stored
from thinkslow.gap.summary import summarise
from thinkslow.gap.words import LABELS, approximated, estimated, heading, said
from thinkslow.storage import atomic, jsontext
from thinkslow.storage.paths import expanded

SUMMARY, PAGE = "gap.json", "gap.html"
MOST = 4
"""Number of moments of each agent whose paths are drawn: those with the largest gap."""


def build(folder: str | Path) -> tuple[dict[str, Any], Path]:
    """Write `gap.json` and `gap.html` from the records in a folder.

    Args:
        folder: the folder of `gap.measure`; the measurement may be unfinished.

    Returns the summary and the path of the page.

    **Errors:** `Missing` or `Damaged` for a folder that holds no measured gaps.
    """
    folder = expanded(folder)
    header, rows = stored.read(folder)
    summary = summarise(header, rows)
    atomic.write_text(folder / SUMMARY, jsontext.dumps(summary, indent=1) + "\n")
    atomic.write_text(folder / PAGE, _render(folder, summary))
    return summary, folder / PAGE


def _render(folder: Path, summary: Mapping[str, Any]) -> str:
    agents = summary["agents"]
    return rendered(
        "thinkslow.gap",
        "gap.html.jinja",
        summary=summary,
        labels=LABELS,
        estimated=estimated,
        shared=[one for one in (figures.budget(agents), figures.convergence(agents)) if one],
        agents=[
            {
                "row": agent,
                "heading": heading(agent),
                "said": said(agent),
                "approximated": approximated(agent),
                "figures": [
                    one
                    for one in (
                        figures.amortisation(agent),
                        figures.other_gaps(agent),
                        figures.next_frame(agent),
                    )
                    if one
                ],
                "drawn": _drawn(folder, agent["name"]),
            }
            for agent in agents
        ],
    )


def _drawn(folder: Path, agent: str) -> list[dict[str, Any]]:
    """The paths at the moments with the largest gap, one for each episode."""
    found = [paths.read(path) for path in sorted((folder / stored.PATHS).glob("*.npz"))]
    mine = [one for one in found if one is not None and one.agent == agent]
    mine.sort(key=lambda one: -one.gap)
    out = []
    for one in mine[:MOST]:
        plane = drawing.plane(one)
        if plane is not None:
            out.append(
                {
                    "plane": plane,
                    "simplices": drawing.simplices(one),
                    "legend": drawing.legend(one.ways),
                    "gap": f"{one.gap:.2f}",
                }
            )
    return out
