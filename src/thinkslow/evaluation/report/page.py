"""Build the HTML page of an evaluation folder. It needs neither a network nor scripts.

Everything is inlined: figures as SVG, frames as WebP. Its content security policy forbids loading
or running anything else.
"""

from pathlib import Path
from urllib.parse import quote

from thinkslow.evaluation import reading
from thinkslow.evaluation.reading import Record
from thinkslow.evaluation.records import Records, read, video_file
from thinkslow.evaluation.references import known_scores
from thinkslow.evaluation.report import figures, strips
from thinkslow.evaluation.report.beside import Known, known_beside
from thinkslow.evaluation.report.conclusion import P_HOLM, caption, scopes, verdicts
from thinkslow.evaluation.report.rendering import SHARED, rendered
from thinkslow.evaluation.report.sections import section
from thinkslow.evaluation.summary import summarise
from thinkslow.plural import plural
from thinkslow.storage import atomic, jsontext
from thinkslow.storage.paths import expanded


def build(folder: Path, *, title: str | None = None, summary: Record | None = None) -> Path:
    """Write `summary.json` and `report.html` from the records in `folder`; returns the page.

    The evaluation may be unfinished; the page says so, and also which records are missing. The page
    has about 1 MB, nearly all of it frames. An older page is replaced when the new one is complete.

    Args:
        folder: the folder of an evaluation.
        title: title of the page; by default it names the environment.
        summary: the summary of the records, if it is already known.

    **Errors:** `FileNotFoundError` if there is no evaluation; `ValueError` with the file's name if
    a file cannot be read.
    """
    folder = expanded(folder)
    records = read(folder)
    moments = strips.moments(folder, records.header)
    summary = summarise(records) if summary is None else summary
    page = _render(records, summary, moments, known_beside(folder), _videos(folder, records), title)
    atomic.write_text(folder / "summary.json", jsontext.dumps(summary, indent=1))
    atomic.write_text(folder / "report.html", page)
    return folder / "report.html"


def _render(
    records: Records,
    summary: Record,
    moments: strips.Strips,
    beside: Known | None,
    videos: list[tuple[str, str, str]],
    title: str | None,
) -> str:
    names = reading.agents(summary)
    scale = figures.common_scale(summary, names, "score")
    known = known_scores(summary)
    sections = [
        {"id": f"agent-{number}", **section(records, summary, agent, known)}
        for number, agent in enumerate(names, start=1)
    ]
    said = verdicts(summary)
    return rendered(
        SHARED,
        "page.html.jinja",
        title=title or f"Thinking slow on {summary['environment'].get('id', 'an environment')}",
        summary=summary,
        paired=all(row.get("paired", True) for row in summary["comparisons"]),
        verdicts=said,
        scopes=scopes(said),
        contents=[
            ("difference", "Difference in score"),
            *([("known", "Where thinking is known to help")] if beside else []),
            *((one["id"], one["agent"]) for one in sections),
            ("learning", "Learning curve"),
            ("frames", "Frames"),
            ("provenance", "Where the numbers come from"),
        ],
        differences=[
            figure
            for agent in names
            if (figure := figures.differences(summary, agent, "score", title=agent, scale=scale))
        ],
        beside=beside,
        sections=sections,
        settings=_settings(summary),
        learning=figures.learning(records.header.curves, records.header.agents),
        videos=videos,
        moments=moments.shown,
        moments_left_out=moments.left_out,
        caption=f"{caption('*')} {P_HOLM} The verdict corrects p for measures and agents too.",
        provenance=_provenance(summary),
    )


def _videos(folder: Path, records: Records) -> list[tuple[str, str, str]]:
    """Agent, arm and path of each written video, in the order of the arms."""
    places = [
        (arm["agent"], arm["arm"], video_file(folder, arm["agent"], arm["arm"], suffix))
        for arm in records.header.arms
        for suffix in (".mp4", ".gif")
    ]
    return [
        (agent, arm, f"video/{quote(path.name)}") for agent, arm, path in places if path.is_file()
    ]


def _settings(summary: Record) -> str:
    """Settings of the environment that change the score of an episode, as text."""
    given = {key: one for key, one in summary["environment"].items() if key not in ("id", "size")}
    if given.get("repeat") == 1:
        del given["repeat"]
    if (most := summary["protocol"].get("max_decisions")) is not None:
        given["at most"] = plural(most, "decision")
    options = given.pop("options", {})
    return ", ".join(f"{key} {value}" for key, value in {**given, **options}.items())


def _provenance(summary: Record) -> list[tuple[str, str]]:
    """The provenance of the numbers, as pairs of name and value."""
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
        ("environments in parallel", protocol.get("batch")),
    ]
    found += [
        ("agent", ", ".join(f"{k} {v}" for k, v in agent.items() if v is not None))
        for agent in summary["agents"]
    ]
    return [(word, str(value)) for word, value in found if value not in (None, "")]
