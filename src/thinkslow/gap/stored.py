"""Measured gaps on disk: the settings, and a line for each moment.

    plan.json        the settings of the measurement
    moments.jsonl    one moment a line, written as it is measured
    paths/0-3.npz    paths of beliefs at one moment, by the agent's number and the episode

`gap.json` and `gap.html` are derived from them. A line that a kill cut off is dropped.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkslow.evaluation.facts import AgentFacts, ArmFacts, EnvironmentFacts
from thinkslow.storage import headers, lines
from thinkslow.storage.faults import Damaged, Missing
from thinkslow.storage.paths import expanded
from thinkslow.storage.reading import is_file

FORMAT = 1
HEADER, MOMENTS, PATHS = "plan.json", "moments.jsonl", "paths"
BEST, BEST_LATER = "best", "best-later"
"""The best beliefs of the family, in addition to the arms: for the frame, and for the later frames
too.
"""
NUMBERS = ("loss", "kl", "loss_later", "next")
"""The numbers of each belief of a moment."""

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """The settings of a measurement, so that another process can continue it, or refuse to."""

    environment: EnvironmentFacts
    agents: list[AgentFacts]
    """They also have `beta`, the weight of the agent's KL, and `free_nats`."""
    arms: list[ArmFacts]
    """The arms of every agent."""
    episodes: int
    """Number of episodes of each agent."""
    moments: int
    """Number of moments of each episode."""
    seed: int
    lag: int
    samples: int
    sweeps: int
    restarts: int
    count: int
    """Number of environments in parallel."""
    max_decisions: int | None
    versions: dict[str, str]
    command: str

    def differences(self, other: "Header", *, whole: bool = False) -> list[str]:
        """The settings that differ and must be equal to continue, as text. The number of episodes
        may be larger. Of a measurement that is `whole`, to which nothing is added, versions may be
        others.
        """
        apart = ["command"]
        if other.episodes > self.episodes:
            apart.append("episodes")
        if whole:
            apart.append("versions")
        return headers.differences(self, other, apart=apart)


def write_header(folder: Path, header: Header) -> None:
    headers.write(folder / HEADER, header, format=FORMAT)


def is_there(folder: Path) -> bool:
    """Whether a folder holds measured gaps."""
    return is_file(folder / HEADER)


def read(folder: str | Path) -> tuple[Header, list[Row]]:
    """Read a measurement, finished or not.

    Args:
        folder: the folder of `thinkslow gap`.

    **Errors:** `Missing` if there is no measurement; `Damaged` for an invalid file.
    """
    folder = expanded(folder)
    path = folder / HEADER
    if not is_there(folder):
        raise Missing(f"{folder} holds no measured gaps. Measure: thinkslow gap AGENT --out DIR")
    header = headers.read(path, Header, format=FORMAT, again="Measure again, in another folder.")
    return header, _rows(folder / MOMENTS)


def append(folder: Path, row: Row) -> None:
    """Append one moment and flush it to the disk."""
    lines.append(folder / MOMENTS, [row])


def drop_torn_line(folder: Path) -> None:
    """Cut off an incomplete last line, so that an appended moment begins a new line."""
    lines.drop_torn(folder / MOMENTS)


def of_episode(rows: Sequence[Row], agent: str, episode: int) -> list[Row]:
    """The stored moments of one episode."""
    return [row for row in rows if (row["agent"], row["episode"]) == (agent, episode)]


def is_whole(rows: Sequence[Row]) -> bool:
    """Whether all moments of one episode are stored."""
    return bool(rows) and len(rows) >= rows[0]["of"]


def measured(rows: Sequence[Row]) -> list[Row]:
    """The rows of moments. An episode that is too short has one row without a moment."""
    return [row for row in rows if row["decision"] is not None]


def path_file(folder: Path, agent: int, episode: int) -> Path:
    return folder / PATHS / f"{agent}-{episode}.npz"


def _rows(path: Path) -> list[Row]:
    out, seen = [], set[tuple[str, int, int | None]]()
    for number, line in enumerate(lines.whole(path), start=1):
        try:
            row = json.loads(line)
            _check(row)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise Damaged(
                f"{path}, line {number} is not a moment ({type(error).__name__}: {error}). "
                "Remove the "
                "line, and run the same command again."
            ) from None
        moment = row["agent"], row["episode"], row["decision"]
        if moment in seen:
            name, episode, decision = moment
            where = "" if decision is None else f"decision {decision} of "
            raise Damaged(
                f"{path}, line {number} is {where}episode {episode} of {name} once more. Remove "
                "one of the two lines."
            )
        seen.add(moment)
        out.append(row)
    return out


def _check(row: Mapping[str, Any]) -> None:
    """**Errors:** `KeyError`, `TypeError` or `ValueError` if it is not the record of a moment."""
    known = {"agent": str, "episode": int, "of": int, "environment_seed": int}
    for name, kind in known.items():
        if not isinstance(row[name], kind):
            raise ValueError(f"`{name}` is {row[name]!r}")
    if row["decision"] is None:
        return
    if not isinstance(row["decision"], int):
        raise ValueError(f"`decision` is {row['decision']!r}")
    numbers = [row["decision"], row["surprise"], row["effective"], *row["bound"].values()]
    numbers += [belief[name] for belief in row["beliefs"].values() for name in NUMBERS]
    for value in numbers:
        if value is not None:  # it was non-finite
            float(value)
