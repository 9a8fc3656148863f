"""A problem with a known truth, shown next to a task on the page and on the terminal."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from thinkslow.evaluation.reading import Record, agents
from thinkslow.evaluation.records import read
from thinkslow.evaluation.report.conclusion import Said, verdicts
from thinkslow.evaluation.report.figures import Intervals, differences, scores
from thinkslow.evaluation.summary import summarise

FOLDER = "known"
"""The folder of its records, inside the folder of the evaluation."""
BEST = "exact filter"
"""The arm with the best possible belief; the description of the problem states its score."""


@dataclass(frozen=True)
class Known:
    """A problem with a known truth, and the results of refinement on it."""

    summary: Record
    what: str
    """A description in two sentences."""
    said: Said
    figures: list[Intervals]


def known_beside(folder: Path) -> Known | None:
    """The known problem in the folder of an evaluation; None if there is none.

    **Errors:** `ValueError` with the file's name if records cannot be read.
    """
    if not (folder / FOLDER).is_dir():
        return None
    records = read(folder / FOLDER)
    summary = summarise(records)
    (agent,) = agents(summary)
    best = float(summary["environment"][BEST])
    (said,) = verdicts(summary)  # the cost of a toy problem is not reported
    drawn = [
        scores(records.episodes, summary, agent, {BEST: best}),
        differences(summary, agent, "score"),
    ]
    return Known(
        summary,
        f"The agent knows {summary['environment']['id']}, small enough that every belief is known "
        "exactly, but its encoder is wrong. The score is the probability that it gives to the true "
        f"state, in percent; on average no belief does better than the {BEST}, {best:.1f}.",
        dataclasses.replace(said, headline=f"{said.headline.partition(';')[0]}."),
        [figure for figure in drawn if figure is not None],
    )
