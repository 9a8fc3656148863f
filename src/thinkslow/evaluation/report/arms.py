"""The arms of one agent as tables of the page: a short table, and all numbers in folded tables.

No table has the mean of an image metric: arms see different frames, so only differences on the same
frames can be compared.
"""

from dataclasses import dataclass

from thinkslow.evaluation import metrics
from thinkslow.evaluation.metrics import AHEAD, IMAGE, METRICS
from thinkslow.evaluation.reading import (
    Kind,
    Record,
    arms,
    comparisons,
    decision_ms,
    estimate,
    kind,
)
from thinkslow.evaluation.records import BASE, finite
from thinkslow.evaluation.report.conclusion import Mark, marked
from thinkslow.evaluation.report.text import estimated, metric_name, number

COLUMNS = 6
"""Largest number of columns of a table, besides the names, that fit a desktop and a printed
page.
"""


@dataclass(frozen=True)
class Cell:
    """A number as text, with its mark."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Row:
    """The row of an arm."""

    name: str
    kind: Kind
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """Arms as rows, measures as columns."""

    headings: list[str]
    rows: list[Row]


def main_table(summary: Record, agent: str) -> Table:
    """The main table: score, differences and cost, in seven columns."""
    base = next((arm for arm in arms(summary, agent) if arm["arm"] == BASE), {})
    plain = decision_ms(base)
    rows = []
    for arm in arms(summary, agent):
        name, milliseconds = arm["arm"], decision_ms(arm)
        times = f" (×{milliseconds / plain:.1f})" if milliseconds and plain else ""
        share = finite(arm.get("thought_share"))
        rows.append(
            Row(
                name,
                kind(name),
                [
                    Cell(estimated(estimate(arm["score"]))),
                    _difference(summary, agent, name, "score"),
                    Cell(_p_value(comparisons(summary, agent, "score").get(name))),
                    _difference(summary, agent, name, "psnr"),
                    Cell(number(milliseconds) + times),
                    Cell("–" if share is None else f"{share:.0%}"),
                ],
            )
        )
    return Table(
        ["arm", "score", "Δ score", "p (Holm)", "Δ PSNR, dB", "ms per decision (×)", "thought"],
        rows,
    )


def all_numbers(summary: Record, agent: str) -> list[Table]:
    """All other measures that can be compared, in tables of a few columns."""
    own = arms(summary, agent)
    columns: list[tuple[str, list[Cell]]] = [
        (f"Δ {metric_name(name)}", [_difference(summary, agent, a["arm"], name) for a in own])
        for name in _compared(summary, agent)
    ]
    columns += [
        ("P(improve)", [Cell(_improvement(summary, agent, a["arm"])) for a in own]),
        ("belief moved, nats", [Cell(number(finite(a.get("belief_kl")))) for a in own]),
    ]
    if not constant(summary, agent, "length"):
        columns.append(("length", [Cell(estimated(estimate(a.get("length")))) for a in own]))
    score = comparisons(summary, agent, "score")
    columns += [
        (heading, [Cell(number(finite(score.get(a["arm"], {}).get(key)), places)) for a in own])
        for key, heading, places in (
            ("correlation", "correlation", 2),
            ("pairs", "pairs", 0),
            ("dropped", "left out", 0),
        )
    ]
    return [
        Table(
            ["arm", *(heading for heading, _ in part)],
            [
                Row(a["arm"], kind(a["arm"]), [cells[i] for _, cells in part])
                for i, a in enumerate(own)
            ],
        )
        for part in (columns[at : at + COLUMNS] for at in range(0, len(columns), COLUMNS))
    ]


def constant(summary: Record, agent: str, metric: str) -> bool:
    """Whether no arm changed a metric in any episode, so that it need not be shown."""
    found = [estimate(one, "difference") for one in comparisons(summary, agent, metric).values()]
    return all(one is None or not any((one.value, *(one.interval or ()))) for one in found)


def _compared(summary: Record, agent: str) -> list[str]:
    """Metrics that are compared and not in the main table: of images now and ahead, and others."""
    compared = {row["metric"] for row in summary["comparisons"] if row["agent"] == agent}
    of_images = [metrics.ahead("psnr", step) for step in AHEAD] + [*IMAGE]
    order = [name for name in (*of_images, *METRICS) if name in compared]
    order += sorted(compared - set(order))
    out = [name for name in dict.fromkeys(order) if name not in ("score", "psnr", "length")]
    return [name for name in out if not constant(summary, agent, name)]


def _difference(summary: Record, agent: str, arm: str, metric: str) -> Cell:
    record = comparisons(summary, agent, metric).get(arm)
    return Cell(estimated(estimate(record, "difference"), signed=True), marked(record))


def _p_value(record: Record | None) -> str:
    if record is None:
        return "–"
    p = finite(record.get("p_value_holm"))
    return "no test" if record.get("untested") else "–" if p is None else f"{p:.2g}"


def _improvement(summary: Record, agent: str, arm: str) -> str:
    record = comparisons(summary, agent, "score").get(arm, {})
    known = {"mean": record.get("p_improve"), "interval": record.get("p_improve_interval")}
    return estimated(estimate(known))
