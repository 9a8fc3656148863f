"""A study as one HTML page that needs neither a network nor scripts: verdicts first, then the
figures, each with its numbers as a table and a file, and the command that makes them.
"""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkslow.evaluation import planning
from thinkslow.evaluation.reading import Record, agents, arms, estimate
from thinkslow.evaluation.records import finite
from thinkslow.evaluation.report.arms import all_numbers, main_table
from thinkslow.evaluation.report.conclusion import P_HOLM, caption
from thinkslow.evaluation.report.rendering import rendered
from thinkslow.evaluation.report.text import estimated, metric_name, metric_unit
from thinkslow.plural import plural
from thinkslow.storage import atomic
from thinkslow.study import figures
from thinkslow.study.data import Data, as_json
from thinkslow.study.figures import Shown
from thinkslow.study.scatter import scatter
from thinkslow.study.view import Played, View, view

PAGE = "report.html"
SIGNS = {"supported": "✓", "contradicted": "✗", "not shown": "–"}
"""Signs of the verdicts, so that they do not differ only by colour."""


def build(folder: Path, result: Record) -> Path:
    """Write `report.html` of a study, finished or not. Returns its path.

    Args:
        folder: the folder of the study.
        result: the content of its `result.json`.
    """
    path = Path(folder) / PAGE
    atomic.write_text(path, render(folder, result))
    return path


def render(folder: Path, result: Record) -> str:
    """The page as text; arguments as for `build`."""
    plan, seen, judged = result["plan"], view(result), result["hypotheses"]
    outcome = plan["outcome"]
    power = figures.power(judged)
    parts = [
        ("hypotheses", "Effects of the hypotheses", figures.hypotheses(judged)),
        (
            "effects",
            f"{metric_name(outcome)} of every arm, against none",
            figures.effects(seen, outcome),
        ),
        ("return", "Score against milliseconds", return_and_cost(seen)),
        ("settings", "Along one setting", figures.over_settings(seen, outcome)),
        ("budgets", "With more training", figures.over_budgets(seen, outcome)),
        ("power", "Power", [power] if power else []),
    ]
    sections = [
        {"id": name, "heading": heading, "shown": shown} for name, heading, shown in parts if shown
    ]
    return rendered(
        "thinkslow.study",
        "study.html.jinja",
        plan=plan,
        result=result,
        folder=str(folder),
        headline=headline(judged),
        scope=scope(judged, result),
        judged=[_said(one) for one in judged],
        sections=sections,
        contents=[
            *((one["id"], one["heading"]) for one in sections),
            *([("arms", "All arms")] if seen.played else []),
            ("plan", "The plan"),
            ("provenance", "Where the numbers come from"),
        ],
        arms=[_arms(seen, one) for one in seen.played],
        descriptions=_descriptions(seen),
        notes=seen.notes,
        looks=_looks(plan),
        caption=f"{caption('*')} {P_HOLM}",
        registered=as_json(plan),
        commands={
            "play": result["command"],
            "page": shlex.join(["thinkslow", "report", str(folder)]),
        },
        provenance=_provenance(result),
    )


def headline(judged: Sequence[Record]) -> str:
    """The number of hypotheses with each verdict.

    >>> headline([{"verdict": "supported"}, {"verdict": "not shown"}])
    'Of 2 hypotheses, 1 is supported, 0 are contradicted, 1 is not shown.'
    """
    if not judged:
        return "No hypothesis was registered, so nothing is tested."
    counts = Counter(one["verdict"] for one in judged)
    parts = [f"{counts[one]} {'is' if counts[one] == 1 else 'are'} {one}" for one in SIGNS]
    return f"Of {plural(len(judged), 'hypothesis', 'hypotheses')}, {', '.join(parts)}."


def scope(judged: Sequence[Record], result: Record) -> list[str]:
    """The scope of the verdicts, one sentence each."""
    said = []
    if not result["finished"]:
        said.append("The study is not finished. The same command continues with the rest.")
    if result["plan"]["purpose"] == "tuning":
        said.append("This is tuning: a report uses other episodes and training seeds.")
    if any(one["several"] for one in judged):
        said.append("Each training seed counts as one value.")
    if any(one["units"] and not one["several"] for one in judged):
        said.append(
            "Where one agent was played the unit is the episode: other training runs may differ."
        )
    if len(judged) > 1:
        said.append(
            f"p-values are corrected by Holm over all "
            f"{plural(len(judged), 'hypothesis', 'hypotheses')}."
        )
    return said


def return_and_cost(seen: View) -> list[Shown]:
    """Score against milliseconds per decision, one figure for each agent in each setting."""
    return [drawn for one in seen.played if (drawn := _return_and_cost(seen, one)) is not None]


def _return_and_cost(seen: View, one: Played) -> Shown | None:
    found = [
        (arm["arm"], cost, score)
        for arm in arms(seen.summary, one.label)
        if (cost := finite((arm["latency_ms"] or {}).get("mean")))
        and (score := estimate(arm["score"])) is not None
    ]
    if len(found) < 2:
        return None
    drawn = scatter(
        one.label,
        "milliseconds a decision: mean, logarithmic axis",
        "score, with 95% interval",
        found,
    )
    rows = [
        [name, cost, score.value, *(score.interval or (None, None))] for name, cost, score in found
    ]
    name = f"return-{figures.file_name(one.label)}"
    return Shown(drawn, Data(name, ["arm", "ms", "score", "low", "high"], rows))


def _said(one: Record) -> Record:
    """A hypothesis with its numbers as text."""
    unit = "" if one["of"] == "spread" else metric_unit(one["measure"])
    of = f"{'spread of ' * (one['of'] == 'spread')}{metric_name(one['measure'])}"
    found = estimate(one, "difference")
    effect = "" if found is None else f"{of}: {estimated(found, signed=True, unit=unit)}"
    unit_of = "training seeds" if one["several"] else "pairs"
    return {
        **one,
        "sign": SIGNS[one["verdict"]],
        "class": one["verdict"].replace(" ", "-"),
        "effect": effect,
        "rests_on": f"{one['units'] if one['several'] else one['pairs']} {unit_of}",
    }


def _arms(seen: View, one: Played) -> dict[str, Any]:
    return {
        "label": one.label,
        "table": main_table(seen.summary, one.label),
        "numbers": all_numbers(seen.summary, one.label),
    }


def _descriptions(seen: View) -> list[tuple[str, str]]:
    """The description of each arm, once."""
    known: dict[str, str] = {}
    for agent in agents(seen.summary):
        for arm in arms(seen.summary, agent):
            known[arm["arm"]] = known.get(arm["arm"]) or arm.get("description") or ""
    return list(known.items())


def _looks(plan: Mapping[str, Any]) -> str:
    """The bounds of the looks, as text."""
    bounds = [
        f"p ≤ {planning.look(each):.4f} at {plural(each, 'training seed')}"
        for each in plan["looks"]
    ]
    return (
        f"The study may stop early, by O'Brien and Fleming: {', '.join(bounds)}." if bounds else ""
    )


def _provenance(result: Record) -> list[tuple[str, str]]:
    plan = result["plan"]
    machines = sorted({str(cell["protocol"].get("machine")) for cell in result["cells"]})
    found = [
        ("plan", f"{plan['name']}, {plan['hash']}"),
        ("file", f"{plan['file']}, {plan['file_hash']} (b2sum -l 64)" if plan["file"] else None),
        ("code", result["code"]),
        ("revision", result["revision"]),
        ("versions", ", ".join(f"{k} {v}" for k, v in result["versions"].items())),
        ("begun", result["began"]),
        ("machine", "; ".join(machines)),
    ]
    found += [
        (f"agents of {group}", ", ".join(map(str, paths.values())))
        for group, paths in result["agents"].items()
    ]
    return [(word, str(value)) for word, value in found if value not in (None, "")]
