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
from functools import partial
from typing import Any

import jax
import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.inputs import Carry
from thinkslow.envs import Step, VectorEnv
from thinkslow.envs.snapshots import Snapshot
from thinkslow.evaluation.blocks import Block, Sitting
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
from thinkslow.evaluation.records import BASE, WINDOWS, Episode
from thinkslow.evaluation.scoring import Scorer
from thinkslow.trees import put

NAME = WINDOWS
EVERY = 25
"""Decisions between two snapshots, and of each window."""


def refusal(agent: AbstractAgent) -> str | None:
    """Why an arm cannot begin at the base agent's snapshots; None if it can."""
    if agent.inner is None:
        return "it is not an `Agent`, so its carry is unknown"
    one = agent.inner.settings
    several = one.particles > 1 or one.futures > 1
    if one.lag or several or one.delay or one.check is not None or one.missing == "hold":
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
    agent: AbstractAgent,
    envs: VectorEnv,
    windows: Sequence[Window],
    seeds: Sequence[int],
    seed: int,
    *,
    most: int | None,
    scorer: Callable[[], Scorer],
    tick: Callable[[int], None] = lambda _: None,
) -> tuple[list[Played], list[dict[str, float | None]]]:
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
    own = put(seeds, np.uint32)
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


def play_all(sitting: Sitting, named: Mapping[str, Mapping[str, AbstractAgent]]) -> None:
    """Play the missing episodes, block by block: the base agent, then every arm from its snapshots.

    Args:
        sitting: what is played.
        named: arms by agent, fitted to the environments.
    """
    header, done = sitting.header, 0
    for name, arms in named.items():
        ready: dict[str, AbstractAgent] = {}
        for number, first in enumerate(range(0, header.episodes, header.count)):
            block = _Windows(sitting, name, first, done)
            lacking = {arm: block.lacking(sitting.played, arm) for arm in arms}
            others: dict[str, list[int]] = {}
            if number in header.whole_blocks:
                others = {arm: block.lacking(sitting.whole, arm) for arm in arms if arm != BASE}
            if any(lacking.values()) or any(others.values()):
                if not ready:
                    sitting.show(f"{name}, compiling once", done, header.expected)
                    ready = {arm: sitting.prepared(name, agent) for arm, agent in arms.items()}
                block.play(ready, lacking)
                for arm in arms:
                    sitting.stop_if_failing(name, arm)
                block.play_whole(ready, others)
            done += len(block.wanted) * len(arms)
            sitting.show(name, done, header.expected)


@dataclasses.dataclass(frozen=True)
class _Windows(Block):
    """A block with the windows of all arms of its agent."""

    done: int
    """The number of episodes that were finished before."""

    def play(self, ready: Mapping[str, AbstractAgent], lacking: Mapping[str, list[int]]) -> None:
        """The base agent's episodes with their snapshots, and every arm's windows."""
        sitting, base = self.sitting, ready[BASE]
        pictures = sitting.pictures[self.name] if self.first == 0 else None
        start = base.start(sitting.envs.count)
        assert isinstance(start, Carry)  # checked by `refusal`
        snapshots = Snapshots(sitting.envs, start, sitting.header.max_decisions)
        found = self._whole(BASE, base, [snapshots, *([pictures.recorder] if pictures else [])])
        sitting.keep(found, lacking[BASE])
        if pictures:
            pictures.take(BASE, base)
        for arm, agent in ready.items():
            if arm == BASE or not lacking[arm]:
                continue
            played, images = play_windows(
                agent,
                sitting.envs,
                snapshots.windows,
                self.seeds,
                sitting.header.seed,
                most=sitting.header.max_decisions,
                scorer=partial(self.scorer, agent),
                tick=self._tick(arm, len(snapshots.windows)),
            )
            for one, whole in zip(played, found, strict=True):
                one.cut = whole.cut
            sitting.keep(self.rows(arm, agent, played, images), lacking[arm])
            if pictures:
                pictures.take(arm, agent)

    def play_whole(
        self, ready: Mapping[str, AbstractAgent], lacking: Mapping[str, list[int]]
    ) -> None:
        """Whole episodes of every arm, for the comparison."""
        for arm, numbers in lacking.items():
            if numbers:
                self.sitting.keep(self._whole(arm, ready[arm], []), numbers, whole=True)

    def _whole(self, arm: str, agent: AbstractAgent, watchers: Sequence[Watcher]) -> list[Episode]:
        header, scorer = self.sitting.header, self.scorer(agent)

        def tick(decision: int, over: int) -> None:
            self._say(f"{self.name}: {arm}, decision {decision:,}")

        played = play(
            agent,
            self.sitting.envs,
            self.seeds,
            header.seed,
            max_decisions=header.max_decisions,
            watchers=[scorer, *watchers],
            tick=tick,
        )
        return self.rows(arm, agent, played, scorer.scores())

    def _tick(self, arm: str, count: int) -> Callable[[int], None]:
        return lambda over: self._say(f"{self.name}: {arm}, window {over} of {count}")

    def _say(self, what: str) -> None:
        self.sitting.show(what, self.done, self.sitting.header.expected)
