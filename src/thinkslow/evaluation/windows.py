"""Windows from common snapshots: the protocol `paired-v2`.

The base agent plays its episodes as under `paired-v1`. Every `EVERY` decisions a snapshot is taken
of the environment and of the agent's carry. From each snapshot every arm plays the same number of
decisions, with the random numbers of the base agent. The windows of an arm, end to end, are as long
as the base agent's episode, and the sum of their rewards is the arm's score. A pair consists of the
base agent's episode and the windows of an arm.

An arm differs from the base agent for one window only, so a pair is less noisy than two whole
episodes. But effects beyond the window are not seen, which biases effects towards zero. Therefore
every arm also plays a fifth of the episodes whole, rounded up to whole blocks, as under
`paired-v1`; `agreement` compares the two.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thinkslow.agent.agent import AbstractAgent
from thinkslow.agent.clean import Clean
from thinkslow.agent.decision import Carry
from thinkslow.envs import Step, VectorEnv
from thinkslow.envs.snapshots import Snapshot
from thinkslow.evaluation import records
from thinkslow.evaluation.blocks import prepared, record, stop_if_failing
from thinkslow.evaluation.play import (
    Played,
    Telling,
    Watcher,
    count_decision,
    count_step,
    decision_keys,
    play,
    taken_by,
)
from thinkslow.evaluation.records import BASE, WINDOWS, Episode, Header
from thinkslow.evaluation.scoring import Scorer
from thinkslow.evaluation.seeds import episode_seed

NAME = WINDOWS
EVERY = 25
"""Decisions between two snapshots, and of each window."""


def refusal(agent: AbstractAgent) -> str | None:
    """Why an arm cannot begin at the base agent's snapshots; None if it can."""
    if agent.inner is None:
        return "it is not an `Agent`, so its carry is unknown"
    one = agent.inner.settings
    if one.lag or one.particles > 1 or one.delay or one.check is not None or one.missing == "hold":
        return "it carries more of the past than the base agent"
    return None


@dataclasses.dataclass
class Window:
    """A moment in parallel episodes of the base agent, at which windows begin."""

    decision: int
    alive: np.ndarray
    """Which episodes are still running."""
    snapshots: list[Snapshot]
    carry: Any
    """State and action in the base agent's carry there."""


class Snapshots:
    """Watches a block of the base agent and takes its snapshots.

    Args:
        envs: the environments that are played.
        carry: the base agent's carry at the start.
        most: number of decisions after which episodes are cut; None: no limit.
    """

    def __init__(self, envs: VectorEnv, carry: Carry, most: int | None):
        self.envs, self.most = envs, most
        self.windows: list[Window] = []
        self._carried = (carry.state, carry.action)
        self._number = 0

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        self._take(np.ones(self.envs.count, bool))

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        self._carried = (thought.state, action)
        self._number += 1
        if self._number % EVERY == 0 and (self.most is None or self._number < self.most):
            self._take(playing & ~step.is_last)

    def _take(self, alive: np.ndarray) -> None:
        if not alive.any():
            return
        found = self.envs.snapshot()
        stand_in = next(one for at, one in enumerate(found) if one is not None and alive[at])
        snapshots = [stand_in if one is None else one for one in found]
        self.windows.append(Window(self._number, alive, snapshots, self._carried))


def play_windows(
    agent: AbstractAgent, envs: VectorEnv, windows: Sequence[Window], seeds: Sequence[int],
    seed: int, *, most: int | None, scorer: Callable[[], Scorer],
    tick: Callable[[int], None] = lambda _: None,
) -> tuple[list[Played], list[dict[str, float | None]]]:  # fmt: skip
    """Let an arm play the windows of a block, and sum over the windows of each episode.

    Args:
        agent: the arm.
        envs: the environments of the block.
        windows: the windows of the base agent's episodes.
        seeds: environment seeds.
        seed: seed of the noise.
        most: number of decisions after which an episode is cut.
        scorer: makes a scorer for the images of one window.
        tick: called with the number of finished windows.

    Returns the played episodes, and for each episode the means over windows of every image measure.

    **Cost:** as many decisions as the base agent's episodes, and one copy of each environment for
    each window.
    """
    act, split = agent.act, agent.model.split
    own = jnp.array(seeds, jnp.uint32)
    first = windows[0].snapshots
    played = [Played(s, one.first_seen) for s, one in zip(seeds, first, strict=True)]
    images: list[list[dict[str, float | None]]] = [[] for _ in seeds]
    warm = False
    for number, window in enumerate(windows):
        step = envs.resume(window.snapshots)
        for index in np.flatnonzero(window.alive & step.crashed):
            failure = step.errors[index]
            played[index].crashed, played[index].error = True, failure.line if failure else None
        alive = window.alive & ~step.crashed
        began = alive.copy()
        start = agent.start(envs.count)
        assert isinstance(start, Carry)  # checked by `refusal`
        state, action = window.carry
        carry = dataclasses.replace(start, state=state, action=action)
        tell = Telling(agent, step.observation)
        watcher = scorer()
        watcher.began(step.observation)
        length = EVERY if most is None else min(EVERY, most - window.decision)
        for later in range(length):
            if not alive.any():
                break
            keys = jax.block_until_ready(decision_keys(seed, own, window.decision + later))
            given, known = (carry, step.observation, step.is_first), tell(step.observation)
            if not warm:  # the first call compiles, so its time is not counted
                jax.block_until_ready(act(*given, keys=keys, **known))
                warm = True
            begun = time.perf_counter()
            carry, action, thought = jax.block_until_ready(act(*given, keys=keys, **known))
            spent = 1e3 * (time.perf_counter() - begun)
            count_decision(played, alive, thought, spent)
            step = envs.step(taken_by(split, action), playing=alive)
            count_step(played, alive, step)
            watcher.decided(alive, thought, action, step)
            alive = alive & ~step.is_last
        for index, found in enumerate(watcher.scores()):
            if began[index]:
                images[index].append(found)
        tick(number + 1)
    return played, [_mean(some) for some in images]


def _mean(windows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of every measure over the windows that have it; NaN if one was non-finite."""
    out: dict[str, float | None] = {}
    for column in dict.fromkeys(name for one in windows for name in one):
        known = [value for one in windows if (value := one.get(column)) is not None]
        out[column] = float(np.mean(known)) if known else None
    return out


def play_all(
    folder: Path, header: Header, played: list[Episode], whole: list[Episode],
    named: Mapping[str, Mapping[str, AbstractAgent]], envs: VectorEnv,
    show: Callable[[str, int, int], None], pictures: Mapping[str, Any],
) -> None:  # fmt: skip
    """Play the missing episodes, block by block: the base agent, then every arm from its snapshots.

    Args:
        folder: the folder of the evaluation.
        header: the settings of the evaluation.
        played: finished episodes; new ones are added.
        whole: finished whole episodes, for the comparison; new ones are added.
        named: arms by agent, fitted to the environments.
        envs: the environments of the evaluation.
        show: called with the progress.
        pictures: by agent, the recorder of images of its first episode.
    """
    cleans: dict[str, Clean] = {}
    done = 0
    for name, arms in named.items():
        ready: dict[str, AbstractAgent] = {}
        for block, first in enumerate(range(0, header.episodes, header.count)):
            numbers = range(first, min(first + header.count, header.episodes))
            lacking = {arm: _lacking(played, name, arm, numbers) for arm in arms}
            if block in header.whole_blocks:
                others = {arm: _lacking(whole, name, arm, numbers) for arm in arms if arm != BASE}
            else:
                others = {}
            if any(lacking.values()) or any(others.values()):
                one = _Block(folder, header, name, first, envs, show, done)
                if not ready:
                    show(f"{name}, compiling once", done, header.expected)
                    ready = {
                        arm: prepared(agent, name, envs, header, cleans)
                        for arm, agent in arms.items()
                    }
                played += one.play(ready, lacking, pictures[name] if block == 0 else None)
                for arm in arms:
                    stop_if_failing(played, name, arm, header, folder)
                whole += one.play_whole(ready, others)
            done += len(numbers) * len(arms)
            show(name, done, header.expected)


def _lacking(episodes: Sequence[Episode], name: str, arm: str, numbers: Sequence[int]) -> list[int]:
    there = {one.episode for one in episodes if (one.agent, one.arm) == (name, arm)}
    return [number for number in numbers if number not in there]


class _Block:
    """A block of parallel episodes of one agent, with all its arms."""

    def __init__(
        self, folder: Path, header: Header, name: str, first: int, envs: VectorEnv,
        show: Callable[[str, int, int], None], done: int,
    ):  # fmt: skip
        self.folder, self.header, self.name, self.first = folder, header, name, first
        self.envs, self.show, self.done = envs, show, done
        self.numbers = range(first, first + envs.count)
        self.seeds = [episode_seed(header.seed, number) for number in self.numbers]
        self.training_seed = next(
            fact["training_seed"] for fact in header.agents if fact["name"] == name
        )

    def play(
        self, ready: Mapping[str, AbstractAgent], lacking: Mapping[str, Sequence[int]],
        pictures: Any | None,
    ) -> list[Episode]:  # fmt: skip
        """The base agent's episodes with their snapshots, and every arm's windows."""
        base, out = ready[BASE], []
        start = base.start(self.envs.count)
        assert isinstance(start, Carry)  # checked by `refusal`
        snapshots = Snapshots(self.envs, start, self.header.max_decisions)
        watchers: list[Watcher] = [snapshots, *([pictures.recorder] if pictures else [])]
        found = self._whole(BASE, base, watchers)
        if lacking[BASE]:
            out += self._keep(found, lacking[BASE])
        if pictures:
            pictures.take(BASE, base)
        cut = [one.cut for one in found]
        for arm, agent in ready.items():
            if arm == BASE or not lacking[arm]:
                continue
            played, images = play_windows(
                agent, self.envs, snapshots.windows, self.seeds, self.header.seed,
                most=self.header.max_decisions, scorer=self._scorer(agent),
                tick=self._tick(arm, len(snapshots.windows)),
            )  # fmt: skip
            for one, over in zip(played, cut, strict=True):
                one.cut = over
            out += self._keep(self._rows(arm, agent, played, images), lacking[arm])
            if pictures:
                pictures.take(arm, agent)
        return out

    def play_whole(
        self, ready: Mapping[str, AbstractAgent], lacking: Mapping[str, Sequence[int]]
    ) -> list[Episode]:
        """Whole episodes of every arm, for the comparison."""
        out = []
        for arm, numbers in lacking.items():
            if numbers:
                found = self._whole(arm, ready[arm], [])
                out += self._keep(found, numbers, records.WHOLE)
        return out

    def _whole(self, arm: str, agent: AbstractAgent, watchers: Sequence[Watcher]) -> list[Episode]:
        scorer = self._scorer(agent)()
        played = play(
            agent, self.envs, self.seeds, self.header.seed,
            max_decisions=self.header.max_decisions, watchers=[scorer, *watchers],
            tick=lambda decision, over: self.show(
                f"{self.name}: {arm}, decision {decision:,}", self.done, self.header.expected
            ),
        )  # fmt: skip
        return self._rows(arm, agent, played, scorer.scores())

    def _tick(self, arm: str, count: int) -> Callable[[int], None]:
        return lambda over: self.show(
            f"{self.name}: {arm}, window {over} of {count}", self.done, self.header.expected
        )

    def _scorer(self, agent: AbstractAgent) -> Callable[[], Scorer]:
        images = self.header.images[self.name]
        return lambda: Scorer(agent.model, images, self.envs.count)

    def _rows(
        self, arm: str, agent: AbstractAgent, played: Sequence[Played],
        images: Sequence[Mapping[str, float | None]],
    ) -> list[Episode]:  # fmt: skip
        return [
            record(
                self.name, arm, number, self.training_seed, one, shown,
                deadline_ms=getattr(agent, "deadline_ms", None),
            )
            for number, one, shown in zip(self.numbers, played, images, strict=True)
        ]  # fmt: skip

    def _keep(
        self, found: Sequence[Episode], lacking: Sequence[int], file: str = records.EPISODES
    ) -> list[Episode]:
        new = [one for one in found if one.episode in lacking]
        records.append(self.folder, new, file)
        return new
