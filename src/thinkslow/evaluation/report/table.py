"""The arms of an evaluation as a table for the terminal."""

from rich.table import Table
from rich.text import Text

from thinkslow.evaluation.reading import Record, agents, arms, comparisons, estimate, kind
from thinkslow.evaluation.records import finite
from thinkslow.evaluation.report.conclusion import caption, marked
from thinkslow.evaluation.report.text import estimated, number
from thinkslow.plural import plural
from thinkslow.storage.faults import line


def table(summary: Record) -> Table:
    """The arms as rows, grouped by agent: score, differences and cost.

    Differences are against `none`, paired if episodes are. Stars: see `caption`.
    Text that does not fit the width is wrapped, never cut.
    """
    environment, protocol = summary["environment"], summary["protocol"]
    paired = all(row.get("paired", True) for row in summary["comparisons"])
    how = "paired" if paired else "between independent samples"
    result = Table(
        title=f"{line(environment.get('id', ''))}, {_episodes(protocol.get('episodes'))} an arm",
        caption_justify="left",
        caption=(
            f"diff: mean difference from none, {how}, with its 95% interval. better: share of "
            "pairs with a higher score than none. dPSNR: difference in dB on the same frames. "
            f"ms/act: milliseconds per decision{_together(protocol.get('batch'))}, median (mean "
            "behind a gate). think: "
            f"share of the decisions with thinking. {caption('*')}"
        ),
        box=None,
        pad_edge=False,
        collapse_padding=True,
    )
    result.add_column("arm", overflow="fold")
    for heading in ("score", "diff", "better", "dPSNR", "ms/act", "think"):
        result.add_column(heading, justify="right", overflow="fold")
    for agent in agents(summary):
        if result.rows:
            result.add_row()
        result.add_row(Text(line(agent), style="bold"))
        score, psnr = comparisons(summary, agent, "score"), comparisons(summary, agent, "psnr")
        for arm in arms(summary, agent):
            name = arm["arm"]
            improved = finite(score.get(name, {}).get("p_improve"))
            share = finite(arm.get("thought_share"))
            # Behind a gate the median may be a decision without thinking.
            gated = share is not None and 0 < share < 1
            latency = (arm.get("latency_ms") or {}).get("mean" if gated else "median")
            result.add_row(
                Text(line(name), style="" if kind(name) == "refinement" else "dim"),
                Text(_narrow(estimated(estimate(arm["score"])))),
                _difference(score.get(name), interval=True),
                number(improved),
                _difference(psnr.get(name), interval=False),
                number(finite(latency)),
                "–" if share is None else f"{share:.0%}",
            )
    return result


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
