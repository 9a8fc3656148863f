"""The processes of a `VectorEnv` and the episodes that they play.

A process that dies is replaced. A reset or a replay is then asked again; a step ends its episode.
"""

import contextlib
import dataclasses
import logging
import mmap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from thinkslow.envs.crew import crew_of
from thinkslow.envs.failures import Failed, Failure, Mismatch
from thinkslow.envs.requirements import Unavailable, installing
from thinkslow.envs.snapshots import Snapshot
from thinkslow.envs.steps import Episode, action_of
from thinkslow.envs.worker import Died, Played, Spaces, size_of, views

DEATHS = 3
"""Number of failures of one environment without a completed step, after which the cause is
raised.
"""

TRIED = 8
"""Number of steps that try whether a copy is exact."""

log = logging.getLogger("thinkslow")
_SAID: set[str] = set()
"""Renderers that this process has already reported."""


class Limits(NamedTuple):
    """Seconds that a process may take."""

    step_s: float
    reset_s: float
    """Also for making the environment."""


class Pool:
    """One process for each of `count` environments.

    Args:
        making: the arguments of `make`.
        count: the number of processes.
        seed: the seeds of the episodes follow from it.
        limits: how long an answer may take.

    **Errors:** at construction, those of `make`; `Failed` if an environment cannot be made.
    """

    def __init__(self, making: Mapping[str, Any], count: int, seed: int, limits: Limits):
        self.id, self.count, self.seed, self.limits = making["id"], count, seed, limits
        self.episodes = [Episode() for _ in range(count)]
        self._said: set[str] = set()
        self._hurried: float | None = None
        self._deaths = [0] * count
        self._copies: bool | None = None
        """Whether copies of this simulator are exact; None: not tried yet."""
        self._crew = crew_of(making, count)
        self._workers = self._crew.workers
        try:
            self.spaces = self._ready(0)
            if self.spaces.drawn and self.spaces.drawn not in _SAID:
                _SAID.add(self.spaces.drawn)
                log.info("%s draws %s.", self.id, self.spaces.drawn)
            size_bytes = size_of(self.spaces.observations, count)
            self._crew.file.truncate(size_bytes)
            memory = mmap.mmap(self._crew.file.fileno(), size_bytes)
            self.observation = views(memory, self.spaces.observations, count)
            """The present observations, in shared memory."""
            for index in range(count):
                if index:
                    self._ready(index)
                self._attach(index)
        except Died as death:
            self.close()
            raise Failed(f"{self.id} could not be made. {death}", death.failure) from None
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether the processes have ended."""
        return self._crew.closed

    @property
    def settled(self) -> bool:
        """Whether all questions have been answered."""
        return not any(worker.owes for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """The id of each process."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """End all processes. A second call does nothing."""
        self._crew.close()

    def hurry(self, seconds: float) -> None:
        """Limit the waiting time for pending answers to `seconds` from now."""
        self._hurried = time.monotonic() + seconds

    def begin(self, index: int, seed: int | None) -> None:
        """Ask for a new episode; without a seed, the next of those that follow from the pool's."""
        episode = self.episodes[index]
        if seed is None:
            entropy = [self.seed, index, episode.drawn]
            seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
            episode.drawn += 1
        episode.begun += 1
        episode.seed, episode.actions = seed, []
        self.replay(index)

    def replay(self, index: int) -> None:
        """Ask for the present episode again, from its beginning."""
        episode = self.episodes[index]
        self._workers[index].ask("replay", episode.seed, episode.actions)

    def step(self, index: int, action: Any) -> None:
        """Ask for a step."""
        self.episodes[index].actions.append(action)
        self._workers[index].ask("step", action)

    def bring(self, index: int, snapshot: Snapshot) -> None:
        """Ask for the moment of a snapshot, whose episode is the present one."""
        if snapshot.copy is None:
            self.replay(index)
        else:
            self._workers[index].ask("put", snapshot.copy, snapshot.seed)

    def copy(self, index: int) -> bytes | None:
        """The simulator of an environment at the present moment; None if it cannot be copied.

        A first copy is tried: played from twice, it must lead to the same.
        """
        if self._copies is False:
            return None
        worker = self._workers[index]
        worker.ask("copy")
        try:
            copy = worker.copied(self.limits.step_s)
            if copy is not None and self._copies is None:
                self._copies = self._leads_back(index, copy)
        except Died as death:  # the episode can still be played again
            self._copies = False
            self._report(index, death.failure, "its episodes are played again instead of copied")
            self._replace(index, death.failure)
        else:
            if self._copies is not False:
                return copy
            log.warning(
                "%s: its `state` and `restore` do not lead back to the same moment, so its "
                "episodes are played again instead. Everything that changes in a step belongs to "
                "its state, random numbers too.",
                self.id,
            )
        self.replay(index)
        self.receive(index, replayed=True)
        return None

    def _leads_back(self, index: int, copy: bytes) -> bool:
        """Whether a copy of the present moment, which this goes back to, is exact: a few random
        actions after it show the same twice.

        **Errors:** `Died`.
        """
        worker, step_s = self._workers[index], self.limits.step_s
        before = {name: array[index].copy() for name, array in self.observation.items()}
        seen = []
        for _ in range(2):
            rng = np.random.default_rng(0)
            for _ in range(TRIED):
                worker.ask("step", action_of(self.spaces.actions, rng))
                played = worker.receive(step_s, lambda: self._hurried)
                self.say(played.notes)
                shown = [array[index].tobytes() for array in self.observation.values()]
                seen.append((shown, str(played.reward), played.over, played.terminated))
                if played.over:
                    break
            worker.ask("put", copy, self.episodes[index].seed)
            worker.receive(step_s, lambda: self._hurried)
        for name, array in before.items():
            self.observation[name][index] = array
        return seen[: len(seen) // 2] == seen[len(seen) // 2 :]

    def receive(
        self, index: int, *, replayed: bool, brought: Snapshot | None = None
    ) -> Played | Failure:
        """One answer, or the reason why a step has none. The process has then been replaced.

        The result of a replay has not been used yet, so the replay is repeated, or the snapshot
        `brought` again.
        """
        while True:
            limit_s = self.limits.step_s
            if replayed:
                limit_s = self.limits.reset_s + len(self.episodes[index].actions) * limit_s
            try:
                played = self._workers[index].receive(limit_s, lambda: self._hurried)
            except Mismatch as error:
                raise Mismatch(f"{self._moment(index)}: {error}") from error
            except Died as death:
                again = "it is brought back to its moment again"
                self._report(index, death.failure, again if replayed else "its episode ends here")
                self._replace(index, death.failure)
                if not replayed:
                    return death.failure
                if brought is None:
                    self.replay(index)
                else:
                    self.bring(index, brought)
            else:
                if not replayed:
                    self._deaths[index] = 0
                return played

    def settle(self) -> None:
        """After an interruption, read and discard the pending answers of the processes."""
        for index, worker in enumerate(self._workers):
            if worker.owes:
                with contextlib.suppress(Mismatch):
                    self.receive(index, replayed=False)

    @contextlib.contextmanager
    def undone_if_interrupted(self) -> Iterator[None]:
        """Restore the episodes to their state before a step that was not completed."""
        kept = [dataclasses.replace(episode) for episode in self.episodes]
        lengths = [len(episode.actions) for episode in kept]
        try:
            yield
        except BaseException:
            self.episodes = kept
            for episode, length in zip(kept, lengths, strict=True):
                del episode.actions[length:]
            raise

    def say(self, notes: Sequence[str]) -> None:
        """Log each message once."""
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                log.warning("%s: %s.", self.id, note.rstrip("."))

    def _report(self, index: int, failure: Failure, what: str) -> None:
        """Log a failure and what follows from it, once for each kind; for debugging its traceback
        too.
        """
        if failure.line not in self._said:
            self._said.add(failure.line)
            if failure.call == "reset":
                what = "the reset is tried again"
            log.warning("%s: %s; %s.", self._moment(index), installing(failure.line), what)
            if failure.traceback:
                log.debug("%s", failure.traceback.rstrip())

    def _moment(self, index: int) -> str:
        """Where an environment is now, for messages."""
        episode = self.episodes[index]
        return (
            f"{self.id}, environment {index}, episode {episode.begun - 1}, "
            f"step {len(episode.actions)}"
        )

    def _replace(self, index: int, failure: Failure) -> None:
        """Replace a process that died.

        **Errors:** `Failed` if it died too often, or cannot be made again.
        """
        self._deaths[index] += 1
        if self._deaths[index] >= DEATHS:
            raise Failed(
                f"Environment {index} of {self.id} failed {DEATHS} times in a row: "
                f"{installing(failure.line)}",
                failure,
            )
        self._workers[index].close()
        self._workers[index] = self._crew.start()
        self._made_again(index)

    def restart(self) -> None:
        """Replace every process by a new one.

        **Errors:** `Failed` or `Unavailable` if one cannot be made again.
        """
        for index, worker in enumerate(self._workers):
            worker.close()
            self._workers[index] = self._crew.start()
        for index in range(len(self._workers)):
            self._made_again(index)

    def _made_again(self, index: int) -> None:
        try:
            self._ready(index)
        except Died as again:
            raise Failed(f"{self.id} could not be made again. {again}", again.failure) from None
        except Unavailable as again:
            raise Unavailable(f"{self.id} could not be made again. {again}") from None
        self._attach(index)

    def _ready(self, index: int) -> Spaces:
        spaces, notes = self._workers[index].ready(self.limits.reset_s)
        self.say(notes)
        return spaces

    def _attach(self, index: int) -> None:
        self._workers[index].attach(self.spaces.observations, self.count, index)
