"""What every protocol does with a block of parallel episodes: prepare the agents, record the
episodes, and stop if most of them failed.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.checks import Clean
from thinkslow.envs import VectorEnv
from thinkslow.evaluation import records
from thinkslow.evaluation.calibrate import calibrated_in
from thinkslow.evaluation.clean import measured_clean, wants_clean, with_clean
from thinkslow.evaluation.play import Played
from thinkslow.evaluation.records import Episode, Header
from thinkslow.evaluation.scoring import Scorer
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.shadow import Pictures

Show: TypeAlias = Callable[[str, int, int], None]
"""Called with the present part, the number of finished episodes, and of all episodes."""


class Failing(RuntimeError):
    """Most episodes of an arm ended because the environment failed."""


@dataclasses.dataclass
class Sitting:
    """One process that plays what is missing of an evaluation."""

    folder: Path
    header: Header
    envs: VectorEnv
    show: Show
    played: list[Episode]
    """Finished episodes; new ones are added."""
    whole: list[Episode]
    """Under `paired-v2`, finished episodes that every arm also plays whole; new ones are added."""
    pictures: Mapping[str, Pictures]
    """By agent, the recorder of images of its first episode."""
    cleans: dict[str, Clean] = dataclasses.field(default_factory=dict)
    """By agent, the usual errors on clean frames, measured once for all its arms."""
    renews: bool = False
    """Whether every further arm begins in new processes of the environments."""

    def prepared(self, name: str, agent: AbstractAgent) -> AbstractAgent:
        """The calibrated arm of an agent."""
        header, most = self.header, self.header.max_decisions
        if wants_clean(agent):
            if name not in self.cleans:
                self.cleans[name] = measured_clean(
                    agent, header.environment, header.seed, self.envs.count, max_decisions=most
                )
            agent = with_clean(agent, self.cleans[name])
        return calibrated_in(agent, self.envs, header.seed, max_decisions=most)

    def keep(
        self, found: Sequence[Episode], numbers: Sequence[int], *, whole: bool = False
    ) -> list[Episode]:
        """Write the episodes with these numbers, and return them."""
        new = [one for one in found if one.episode in numbers]
        records.append(self.folder, new, records.WHOLE if whole else records.EPISODES)
        (self.whole if whole else self.played).extend(new)
        return new

    def stop_if_failing(self, name: str, arm: str) -> None:
        """**Errors:** `Failing` if more than half of an arm's episodes have failed."""
        mine = [one for one in self.played if (one.agent, one.arm) == (name, arm)]
        failed = [one for one in mine if one.crashed]
        if 2 * len(failed) > self.header.episodes:
            raise Failing(
                f"{self.header.environment['id']} failed in {len(failed)} of "
                f"{self.header.episodes} episodes of {name}, {arm}: "
                f"{failed[-1].error or 'its process died'}. Fix the environment, then evaluate in "
                f"another folder. The episodes so far are in {self.folder}."
            )


@dataclasses.dataclass(frozen=True)
class Block:
    """Parallel episodes of one agent, one in each environment."""

    sitting: Sitting
    name: str
    """The name of the agent."""
    first: int
    """The number of the first episode."""

    @property
    def numbers(self) -> range:
        """The numbers of the episodes; the last ones may be beyond the evaluation."""
        return range(self.first, self.first + self.sitting.envs.count)

    @property
    def wanted(self) -> range:
        """The numbers that belong to the evaluation."""
        return range(self.first, min(self.numbers.stop, self.sitting.header.episodes))

    @property
    def seeds(self) -> list[int]:
        return [episode_seed(self.sitting.header.seed, number) for number in self.numbers]

    def lacking(self, episodes: Sequence[Episode], arm: str) -> list[int]:
        """The wanted numbers that are not among the episodes of an arm."""
        there = {one.episode for one in episodes if (one.agent, one.arm) == (self.name, arm)}
        return [number for number in self.wanted if number not in there]

    def scorer(self, agent: AbstractAgent) -> Scorer:
        """A scorer of the images of these episodes."""
        images = self.sitting.header.images[self.name]
        return Scorer(agent.model, images, self.sitting.envs.count)

    def rows(
        self,
        arm: str,
        agent: AbstractAgent,
        played: Sequence[Played],
        images: Sequence[Mapping[str, float | None]],
    ) -> list[Episode]:
        """The records of the played episodes."""
        facts = next(one for one in self.sitting.header.agents if one["name"] == self.name)
        deadline_ms = getattr(agent, "deadline_ms", None)
        return [
            _record(
                one,
                shown,
                agent=self.name,
                arm=arm,
                episode=number,
                training_seed=facts["training_seed"],
                late_share=_share_above(one, deadline_ms),
            )
            for number, one, shown in zip(self.numbers, played, images, strict=True)
        ]


def _record(played: Played, images: Mapping[str, float | None], **names: Any) -> Episode:
    # No decision is made in windows of which no snapshot can be brought back.
    count, spent = played.length or math.nan, played.latency_ms or [math.nan]
    low, middle, high = np.percentile(spent, [10, 50, 90])
    return Episode(
        **names,
        environment_seed=played.environment_seed,
        score=records.finite(played.score),
        rewards_size=records.finite(played.rewards_size),
        length=played.length,
        crashed=played.crashed,
        error=played.error,
        cut=played.cut,
        nonfinite=played.nonfinite,
        nonfinite_first=played.nonfinite_first,
        first_observation=played.first_observation,
        thought_share=records.finite(played.thoughts / count),
        belief_kl=records.finite(played.moved / count),
        latency_ms=records.finite(middle),
        latency_ms_mean=records.finite(np.mean(spent)),
        latency_ms_p10=records.finite(low),
        latency_ms_p90=records.finite(high),
        images={column: records.finite(value) for column, value in images.items()},
    )


def _share_above(played: Played, deadline_ms: float | None) -> float | None:
    """The share of the decisions that took longer; None without a deadline or a decision."""
    if deadline_ms is None or not played.length:
        return None
    return float(np.mean(np.array(played.latency_ms) > deadline_ms))
