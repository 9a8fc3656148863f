"""The files of an evaluation: a header, and one flat record for each episode and arm.

`evaluation.json` has the settings and is written first. `episodes.jsonl` has a line for each
episode of each arm, written whenever a block of episodes ends. Everything else (`summary.json`, the
page) is derived from these two. An unknown number is null: no image, an episode too short to look
that far ahead, a non-finite value.
"""

import dataclasses
import json
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from thinkslow.evaluation.facts import AgentFacts, ArmFacts, Curve, EnvironmentFacts, Sitting
from thinkslow.evaluation.metrics import image_columns
from thinkslow.storage import headers, lines, reading
from thinkslow.storage.paths import expanded

FORMAT = 2
HEADER, EPISODES, WHOLE = "evaluation.json", "episodes.jsonl", "whole.jsonl"
BASE = "none"
"""The arm with which every other arm is compared."""
WINDOWS = "paired-v2"
"""The protocol under which arms play windows, and some blocks of episodes whole too."""
WHOLE_SHARE = 5
"""Under it, one block in this many is also played whole."""

Cell: TypeAlias = str | int | float | bool | None
Row: TypeAlias = dict[str, Cell]
"""A flat record, one row of a table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode of one arm of one agent."""

    agent: str
    arm: str
    episode: int
    """Its number, which determines its environment seed."""
    environment_seed: int
    training_seed: int | None
    score: float | None
    """Sum of the rewards; null if one was non-finite."""
    rewards_size: float | None
    """Sum of their absolute values, the scale of rounding errors in the score."""
    length: int
    """Number of decisions."""
    crashed: bool
    """Whether it ended because the environment failed. It is then not compared."""
    error: str | None
    """The error of the environment."""
    cut: bool
    """Whether the limit of decisions ended it, not the environment."""
    nonfinite: int
    """Number of non-finite rewards and parts of observations."""
    nonfinite_first: str | None
    """The first of them: `reward` or the name of an observation, and the step."""
    first_observation: str
    """Hash of the first observation. With one environment seed it should be the same in every
    arm.
    """
    thought_share: float | None
    belief_kl: float | None
    """Mean KL(after || before) of the belief, nats."""
    latency_ms: float | None
    """Median milliseconds of a decision of the whole batch during this episode."""
    latency_ms_mean: float | None
    latency_ms_p10: float | None
    latency_ms_p90: float | None
    late_share: float | None = None
    """Share of the decisions that took longer than the arm's deadline; null without a deadline."""
    images: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    """Means over the scored decisions, by column. On disk they are columns like the others."""

    def row(self) -> Row:
        """The record in the form on disk."""
        out = {field: getattr(self, field) for field in FIELDS}
        return out | dict(self.images)

    def value(self, column: str) -> float | None:
        """The finite number in a column; None if there is none.

        Args:
            column: a name of `episodes.jsonl`, such as `score` or `psnr_gain`.
        """
        return finite(self.images[column] if column in self.images else getattr(self, column, None))

    @classmethod
    def from_row(cls, row: Any) -> "Episode":
        """**Errors:** `ValueError` naming a column that is missing, unknown or of another type."""
        if not isinstance(row, dict):
            raise ValueError(f"a record is an object; got {type(row).__name__}")
        row = {"late_share": None, **row}  # earlier records do not have it
        absent = [name for name in FIELDS if name not in row]
        if absent:
            raise ValueError(f"it lacks {', '.join(absent)}")
        images = {name: value for name, value in row.items() if name not in FIELDS}
        for name, value in row.items():
            known = FIELDS.get(name)
            if known is None and name.rpartition("/")[2] not in _OF_IMAGES:
                raise ValueError(f"it has a column {name!r}, which this version does not know")
            allowed = known or (float, int, types.NoneType)
            non_finite = type(value) in (int, float) and not abs(value) <= sys.float_info.max
            truth = bool not in allowed and value is True
            if not isinstance(value, allowed) or non_finite or truth:
                raise ValueError(f"`{name}` is {value!r}")
        decided = row["latency_ms"] is not None
        if row["length"] < decided:
            raise ValueError(f"`length` is {row['length']} and `latency_ms` {row['latency_ms']!r}")
        return cls(**{name: row[name] for name in FIELDS}, images=images)


def _kinds(annotation: Any) -> tuple[type, ...]:
    """The types that a value of an annotated field may have in JSON."""
    parts = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    kinds = tuple(typing.get_origin(part) or part for part in parts)
    return (*kinds, int) if float in kinds else kinds


_OF_IMAGES = frozenset(image_columns())
FIELDS: Mapping[str, tuple[type, ...]] = {
    field.name: _kinds(field.type)
    for field in dataclasses.fields(Episode)
    if field.name != "images"
}
"""Columns of every record, with their allowed types."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """The settings of an evaluation, so that another process can continue it, or refuse to."""

    protocol: str
    environment: EnvironmentFacts
    agents: list[AgentFacts]
    arms: list[ArmFacts]
    """The arms of every agent in the order of play."""
    episodes: int
    """Number of episodes of each arm."""
    seed: int
    batch: int
    """Largest number of environments in parallel."""
    max_decisions: int | None
    """Number of decisions after which an episode is cut."""
    pool: bool
    """Whether the agents are training seeds of one recipe."""
    versions: dict[str, str]
    images: dict[str, list[str]]
    """The images of each agent that are scored."""
    curves: dict[str, Curve]
    """Learning curves of the agents, where known."""
    sittings: list[Sitting]
    """Every process that played."""

    def differences(self, other: "Header") -> list[str]:
        """Why another evaluation cannot continue this one, as sentences. Only the number of
        episodes may be larger.

        A gate is calibrated on as many episodes as are played in parallel, which a longer
        evaluation may change.
        """
        apart = ("images", "curves", "sittings")
        gated = any(arm.get("gate") for arm in self.arms)
        if other.episodes > self.episodes and (other.count == self.count or not gated):
            apart += ("episodes",)
        return headers.differences(_undescribed(self), _undescribed(other), apart=apart)

    @property
    def count(self) -> int:
        """Number of environments in parallel."""
        return min(self.batch, self.episodes)

    @property
    def expected(self) -> int:
        """Number of episodes of all arms together."""
        return len(self.arms) * self.episodes

    @property
    def whole_blocks(self) -> range:
        """The blocks of parallel episodes that every arm also plays whole."""
        blocks = math.ceil(self.episodes / self.count) if self.protocol == WINDOWS else 0
        return range(math.ceil(blocks / WHOLE_SHARE))

    @property
    def expected_whole(self) -> int:
        """Number of these whole episodes, of all arms except the base agent's together."""
        others = sum(arm["arm"] != BASE for arm in self.arms)
        return others * min(len(self.whole_blocks) * self.count, self.episodes)


def _undescribed(header: Header) -> Header:
    """The settings without the description of the arms, which only the page shows."""
    arms = [{name: arm[name] for name in arm if name != "description"} for arm in header.arms]
    return dataclasses.replace(header, arms=arms)


@dataclasses.dataclass(frozen=True)
class Records:
    """The folder of an evaluation, finished or not."""

    header: Header
    episodes: Sequence[Episode]
    whole: Sequence[Episode] = ()
    """Under `paired-v2`, the episodes that every arm also plays whole."""
    folder: Path | None = dataclasses.field(default=None, compare=False)
    """Where they were read; None for records that are in memory only."""

    @property
    def finished(self) -> bool:
        return self.holds(self.header)

    def differences(self, header: Header) -> list[str]:
        """Why an evaluation with these settings cannot continue this one, as sentences.

        An arm without an episode, such as one whose term raised an error, may have been edited.
        """
        begun = {(one.agent, one.arm) for one in (*self.episodes, *self.whole)}
        now = {(arm["agent"], arm["arm"]): arm for arm in header.arms}
        arms = [
            arm if (key := (arm["agent"], arm["arm"])) in begun else now.get(key, arm)
            for arm in self.header.arms
        ]
        return dataclasses.replace(self.header, arms=arms).differences(header)

    def holds(self, header: Header) -> bool:
        """Whether nothing is left to play under these settings, or under more episodes."""
        played = len(self.episodes) >= header.expected
        return played and len(self.whole) >= header.expected_whole

    def rows(self) -> list[Row]:
        """Every episode as a flat record: `pandas.DataFrame(records.rows())`."""
        return [episode.row() for episode in self.episodes]


def read(folder: str | Path) -> Records:
    """Read the records of an evaluation, finished or not. An incomplete last line is dropped.

    Args:
        folder: the folder of the evaluation.

    **Errors:** `FileNotFoundError` if the folder holds no evaluation; `ValueError` with the file's
    name if a file cannot be read.
    """
    folder = expanded(folder)
    path = folder / HEADER
    if not reading.is_file(path):
        old = ", of an earlier version" if (folder / "summary.json").exists() else ""
        raise FileNotFoundError(
            f"{path} is missing, so {folder} holds no evaluation{old}. "
            f"Run `thinkslow evaluate AGENT --out FOLDER` first."
        )
    header = _header(path)
    episodes, whole = (_episodes(folder / name, header) for name in (EPISODES, WHOLE))
    return Records(header, episodes, whole, folder)


def _episodes(path: Path, header: Header) -> list[Episode]:
    """**Errors:** `ValueError` naming a line that is not a record of this evaluation, or an episode
    that occurs twice.
    """
    episodes: list[Episode] = []
    arms = {(arm["agent"], arm["arm"]) for arm in header.arms}
    for number, line in enumerate(lines.whole(path), start=1):
        try:
            one = Episode.from_row(json.loads(line))
            if (one.agent, one.arm) not in arms or not 0 <= one.episode < header.episodes:
                raise ValueError(f"{HEADER} has no episode {one.episode} of {one.agent}, {one.arm}")
            episodes.append(one)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is not a record of an episode: {error}. Remove the line, "
                "or evaluate again in another folder."
            ) from None
    played = [(one.agent, one.arm, one.episode) for one in episodes]
    if len(set(played)) < len(played):
        twice = next(one for one in played if played.count(one) > 1)
        raise ValueError(
            f"{path} holds episode {twice[2]} of {twice[0]}, {twice[1]} twice. Remove one of them."
        )
    return episodes


def append(folder: Path, episodes: Iterable[Episode], file: str = EPISODES) -> None:
    """Append episodes and flush them to the disk."""
    lines.append(folder / file, (one.row() for one in episodes))


def drop_torn_lines(folder: Path) -> None:
    """Cut off an incomplete last line, so that an appended record begins a new line."""
    for file in (EPISODES, WHOLE):
        lines.drop_torn(folder / file)


def strip_file(folder: Path, arm: int, image: int) -> Path:
    """The path of the images of an arm, by the numbers of the arm and of the image."""
    return folder / "strips" / f"{arm}-{image}.npz"


def video_file(folder: Path, agent: str, arm: str, suffix: str) -> Path:
    """The path of the video of an arm's first episode."""
    name = re.sub(r"[^\w.+=-]+", "-", f"{agent}-{arm}")
    return folder / "video" / f"{name}{suffix}"


def write_header(folder: Path, header: Header) -> None:
    headers.write(folder / HEADER, header, format=FORMAT)


def _header(path: Path) -> Header:
    """**Errors:** `ValueError` naming the file and the missing part."""
    return headers.read(path, Header, format=FORMAT, again=_AGAIN)


_AGAIN = "Evaluate again with this version of thinkslow."


def finite(value: object) -> float | None:
    """The number as a float, or None for null, NaN and infinity."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
