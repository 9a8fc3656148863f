"""The arms of an evaluation as a table for the terminal."""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from thinkslow.evaluation.reading import (
    Record,
    agents,
    arms,
    comparisons,
    decision_ms,
    estimate,
    kind,
)
from thinkslow.evaluation.records import finite
from thinkslow.evaluation.report.conclusion import caption, marked
from thinkslow.evaluation.report.text import estimated, number
from thinkslow.plural import plural
from thinkslow.storage.faults import line

GAP = 1
"""Spaces between two columns."""
NAME = 10
"""The smallest width of the column of names; longer names are wrapped."""
NUMBERS = {
    "score": "",
    "diff": "diff: mean difference from none, {how}, with its 95% interval.",
    "better": "better: share of pairs with a higher score than none.",
    "dPSNR": "dPSNR: difference in dB on the same frames.",
    "ms/act": "ms/act: milliseconds per decision{together}, median (mean behind a gate).",
    "think": "think: share of the decisions with thinking.",
}
"""The columns after the names, with what the caption says of them."""
FEW = ("score", "diff", "ms/act")
"""The columns of a narrow terminal; the page has the others."""


def table(summary: Record, width: int = 80) -> Table:
    """The arms as rows, grouped by agent: score, differences and cost.

    Differences are against `none`, paired if episodes are. Stars: see `caption`.
    No number is cut: where the columns are wider than the terminal, intervals stand below their
    numbers, then fewer columns are shown and names are wrapped, and at last numbers are wrapped.

    Args:
        summary: the summary of the evaluation.
        width: columns of the terminal.
    """
    environment, protocol = summary["environment"], summary["protocol"]
    paired = all(row.get("paired", True) for row in summary["comparisons"])
    rows = {agent: _rows(summary, agent) for agent in agents(summary)}
    names = [cell_len(line(name)) for agent in rows for name in (agent, *rows[agent])]
    cells = [row for own in rows.values() for row in own.values()]
    shown, stacked = tuple(NUMBERS), False
    if max(names, default=0) + _width(cells, shown) > width:
        cells, stacked = [_stacked(row) for row in cells], True
        if NAME + _width(cells, shown) > width:
            shown = FEW
    room = width - _width(cells, shown)
    told = {
        "how": "paired" if paired else "between independent samples",
        "together": _together(protocol.get("batch")),
    }
    said = [NUMBERS[heading].format(**told) for heading in shown]
    result = Table(
        title=f"{line(environment.get('id', ''))}, {_episodes(protocol.get('episodes'))} an arm",
        caption_justify="left",
        caption=" ".join(filter(None, [*said, caption("*")])),
        box=None,
        pad_edge=False,
        collapse_padding=True,
    )
    result.add_column("arm", overflow="fold")
    for heading in shown:
        result.add_column(heading, justify="right", overflow="fold", no_wrap=room >= NAME)
    for agent, own in rows.items():
        if result.rows:
            result.add_row()
        result.add_row(Text(_wrapped(line(agent), room), style="bold"))
        for name, row in own.items():
            style = "" if kind(name) == "refinement" else "dim"
            each = _stacked(row) if stacked else row
            result.add_row(
                Text(_wrapped(line(name), room), style=style), *(each[heading] for heading in shown)
            )
    return result


def _rows(summary: Record, agent: str) -> dict[str, dict[str, Text]]:
    """The cells of every arm of an agent, by column."""
    score, psnr = comparisons(summary, agent, "score"), comparisons(summary, agent, "psnr")
    rows = {}
    for arm in arms(summary, agent):
        name = arm["arm"]
        improved = finite(score.get(name, {}).get("p_improve"))
        share = finite(arm.get("thought_share"))
        rows[name] = {
            "score": Text(_narrow(estimated(estimate(arm["score"])))),
            "diff": _difference(score.get(name), interval=True),
            "better": Text(number(improved)),
            "dPSNR": _difference(psnr.get(name), interval=False),
            "ms/act": Text(number(decision_ms(arm))),
            "think": Text("–" if share is None else f"{share:.0%}"),
        }
    return rows


def _wrapped(name: str, room: int) -> str:
    """A name in lines of this width, broken before a plus sign where there is one.

    >>> print(_wrapped("evidence+steps=16+deadline_ms=2", 20))
    evidence+steps=16
    +deadline_ms=2
    """
    first, *rest = name.split("+")
    lines = [first]
    for part in rest:
        if cell_len(f"{lines[-1]}+{part}") <= room:
            lines[-1] += f"+{part}"
        else:
            lines.append(f"+{part}")
    return "\n".join(lines)


def _width(rows: Sequence[Mapping[str, Text]], shown: Sequence[str]) -> int:
    """The width of the columns of numbers, with the gaps before them."""
    widest = (
        max(cell_len(part) for text in column for part in text.split("\n"))
        for column in ([heading, *(row[heading].plain for row in rows)] for heading in shown)
    )
    return sum(GAP + each for each in widest)


def _stacked(row: Mapping[str, Text]) -> dict[str, Text]:
    """Every interval below its number."""
    return {
        heading: Text(cell.plain.replace(" [", "\n["), style=cell.style)
        for heading, cell in row.items()
    }


def _episodes(number: int | None) -> str:
    return "? episodes" if number is None else plural(number, "episode")


def _together(batch: int | None) -> str:
    return "" if batch in (None, 1) else f", of {plural(batch, 'environment')} together"


def _difference(record: Record | None, *, interval: bool) -> Text:
    """A difference, green or red with a star where it is marked."""
    difference = estimate(record, "difference")
    if difference is None:
        return Text("–")
    mark = marked(record)
    star = "*" if mark else ""
    style = {"better": "green", "worse": "red"}.get(mark, "")
    shown = _narrow(estimated(difference, signed=True))
    return Text((shown if interval else shown.split(" ")[0]) + star, style=style)


def _narrow(shown: str) -> str:
    """No space inside an interval, so that a narrow terminal never breaks one."""
    return shown.replace(", ", ",")
