"""A study: agents, settings, arms, seeds and hypotheses, declared before it is played."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

BASE = "none"

Purpose = Literal["report", "tuning"]
Expect = Literal["more", "less", "same"]
Of = Literal["mean", "spread"]


class Misplanned(ValueError):
    """An invalid plan. The message names the file and the place in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """A group of agents: training seeds of one recipe and budget."""

    name: str
    agents: tuple[str, ...]
    """Bundled names, or patterns of agent folders, such as `runs/plain-*/agents/60000`; with a
    budget, patterns of run folders.
    """
    budget: int | None = None
    """Number of training steps: the agent is in `agents/BUDGET` of its run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting in which agents play."""

    name: str
    groups: tuple[str, ...]
    """The groups that play in this setting."""
    env: str | None = None
    """The id of an environment; None: the one that each group was trained on."""
    shift: str = ""
    """A shift from training, in the form of `envs.make`, such as `dropped:3`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyArm:
    """An arm: a named way to think, with changes of some settings."""

    name: str
    arm: str
    changes: Mapping[str, Any]
    """Settings of `Thinking` and `Arm` by name; objects as on the command line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """One arm minus another, for one group in one setting."""

    arm: str
    baseline: str
    setting: str
    baseline_setting: str
    """The setting of the baseline, usually the same."""
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
    """A claim, with the comparison that decides it."""

    name: str
    claim: str
    effect: Effect
    minus: Effect | None
    """Another effect; the claim is then about the difference of the two."""
    times: float
    """Factor of the other effect."""
    measure: str
    of: Of
    """The compared quantity: the mean of the measure, or its spread between episodes."""
    by: float
    """The claim is an effect of more than this share of the baseline's mean."""
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
    """The primary outcome: the measure of hypotheses that do not name one."""
    seed: int
    episodes: int
    """Number of episodes of each agent, setting and arm."""
    block: int
    """Number of episodes that are played in one task, in parallel."""
    max_decisions: int | None
    tuned_on: tuple[int, ...]
    """Training seeds for tuning. A report plays none of them; tuning plays only these."""
    looks: tuple[int, ...]
    """Numbers of training seeds at which the study may stop; empty: only at the end."""
    groups: tuple[Group, ...]
    settings: tuple[Setting, ...]
    arms: tuple[StudyArm, ...]
    hypotheses: tuple[Hypothesis, ...]
    hash: str
    """Hash of everything above; equal for two files with the same plan."""
    file: str
    """The file's name."""
    file_hash: str
    """Hash of the file's bytes, as `b2sum -l 64` prints it."""

    def group(self, name: str) -> Group:
        return next(one for one in self.groups if one.name == name)

    def setting(self, name: str) -> Setting:
        return next(one for one in self.settings if one.name == name)
