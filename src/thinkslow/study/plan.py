"""What a study is: agents, settings, arms, seeds and hypotheses, declared before it is played."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

BASE = "none"

Purpose = Literal["report", "tuning"]
Expect = Literal["more", "less", "same"]
Of = Literal["mean", "spread"]


class Misplanned(ValueError):
    """A plan that cannot be meant; the message names the file and the place in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Agents that are training seeds of one recipe and budget."""

    name: str
    agents: tuple[str, ...]
    """Bundled names, or patterns of agent folders, such as `runs/plain-*/agents/60000`; of run
    folders where there is a budget."""
    budget: int | None = None
    """Training steps: the agent is in `agents/BUDGET` of its run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Where agents play."""

    name: str
    groups: tuple[str, ...]
    """The groups that play here."""
    env: str | None = None
    """An id; None: the environment that each group was trained on."""
    shift: str = ""
    """What differs from training, as `envs.make` takes it: `dropped:3`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyArm:
    """A way to think: a named arm, of which some settings may be changed."""

    name: str
    arm: str
    changes: Mapping[str, Any]
    """Settings of `Thinking` and `Arm` by name; objects as on the command line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """One arm minus another, where one group plays."""

    arm: str
    baseline: str
    setting: str
    baseline_setting: str
    """Where the baseline plays: as a rule the same setting."""
    group: str

    def __str__(self) -> str:
        if self.baseline_setting == self.setting:
            return f"{self.arm} - {self.baseline}, {self.group} in {self.setting}"
        return (
            f"{self.arm} in {self.setting} - {self.baseline} in {self.baseline_setting}, "
            f"{self.group}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A claim with what would decide it."""

    name: str
    claim: str
    effect: Effect
    minus: Effect | None
    """Another effect: the claim is then about the difference of the two."""
    times: float
    """What the other effect is multiplied by."""
    measure: str
    of: Of
    """What is compared: the mean of the measure, or its spread between episodes."""
    by: float
    """By more than this share of the baseline's mean."""
    expect: Expect

    def __str__(self) -> str:
        if self.minus is None:
            return str(self.effect)
        return f"({self.effect}) - {'' if self.times == 1 else f'{self.times:g} × '}({self.minus})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole study."""

    name: str
    question: str
    purpose: Purpose
    outcome: str
    """The primary outcome: the measure of hypotheses that name none."""
    seed: int
    episodes: int
    """Number of episodes of each agent, setting and arm."""
    block: int
    """Episodes that are played in one task, in parallel."""
    max_decisions: int | None
    tuned_on: tuple[int, ...]
    """Training seeds on which something is tuned: a report plays none of them, tuning no other."""
    looks: tuple[int, ...]
    """Numbers of training seeds at which the study may stop; none: once, at the end."""
    groups: tuple[Group, ...]
    settings: tuple[Setting, ...]
    arms: tuple[StudyArm, ...]
    hypotheses: tuple[Hypothesis, ...]
    hash: str
    """Hash of everything above: equal for two files that plan the same study."""
    file: str
    """The file's name."""
    file_hash: str
    """Hash of the file's bytes, as `b2sum -l 64` prints it."""

    def group(self, name: str) -> Group:
        return next(one for one in self.groups if one.name == name)

    def setting(self, name: str) -> Setting:
        return next(one for one in self.settings if one.name == name)


def restored(data: Mapping[str, Any]) -> Plan:
    """A plan as `dataclasses.asdict` and JSON left it."""

    def effect(given: Any) -> Any:
        return None if given is None else Effect(**given)

    return Plan(**{
        **data,
        "tuned_on": tuple(data["tuned_on"]), "looks": tuple(data["looks"]),
        "groups": tuple(
            Group(**{**one, "agents": tuple(one["agents"])}) for one in data["groups"]
        ),
        "settings": tuple(
            Setting(**{**one, "groups": tuple(one["groups"])}) for one in data["settings"]
        ),
        "arms": tuple(StudyArm(**one) for one in data["arms"]),
        "hypotheses": tuple(
            Hypothesis(**{**one, "effect": effect(one["effect"]), "minus": effect(one["minus"])})
            for one in data["hypotheses"]
        ),
    })  # fmt: skip
