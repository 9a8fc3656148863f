"""The result of a study as one summary: each group or agent in each setting is an agent of the
summary.

The tables and figures of an evaluation can then be used for a study.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from thinkslow.evaluation.reading import Record
from thinkslow.evaluation.records import finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Played:
    """A group, or an agent of it, in a setting."""

    label: str
    """Its name on the page and in the summary."""
    group: str
    setting: str
    environment: str
    steps: float | None
    """Number of training steps, if it is the same for all its agents."""
    seeds: Sequence[str]
    """Names, in the summary, of the training seeds that it pools."""


@dataclasses.dataclass(frozen=True)
class View:
    """Everything that was played."""

    summary: Record
    """`arms` and `comparisons`, as in an evaluation."""
    played: Sequence[Played]
    notes: Sequence[str]
    """What is needed to read the numbers correctly, once each."""

    @property
    def labels(self) -> list[str]:
        return [one.label for one in self.played]


def view(result: Record) -> View:
    """The content of `result.json`, as one summary.

    Pooled training seeds are one entry; other agents are separate entries.

    Args:
        result: the result of the study.
    """
    groups, settings = ({cell[key] for cell in result["cells"]} for key in ("group", "setting"))
    summary: dict[str, Any] = {"arms": [], "comparisons": []}
    played = []
    for cell in result["cells"]:
        where = [cell["group"]] if len(groups) > 1 or len(settings) == 1 else []
        where += [cell["setting"]] if len(settings) > 1 else []
        names = list(dict.fromkeys(arm["agent"] for arm in cell["arms"]))
        known = {agent["name"] for agent in cell["agents"]}
        pools = [name for name in names if name not in known]
        label = ", ".join(where)
        called = {
            name: label if name in pools or len(names) == 1 else f"{label}, {name}"
            for name in names
        }
        for part in ("arms", "comparisons"):
            summary[part] += [{**row, "agent": called[row["agent"]]} for row in cell[part]]
        for name in pools or names:
            own = [one for one in cell["agents"] if name in (*pools, one["name"])]
            steps = {finite(one.get("training_steps")) for one in own}
            played.append(
                Played(
                    label=called[name],
                    group=cell["group"],
                    setting=cell["setting"],
                    environment=str(cell["environment"].get("id")),
                    steps=steps.pop() if len(steps) == 1 else None,
                    seeds=[called[one] for one in names if pools and one != name],
                )
            )
    return View(
        summary, played, sorted({note for cell in result["cells"] for note in cell["notes"]})
    )
