"""Environments in parallel, one process each, with observations in shared memory.

The convention is that of DreamerV3: the step after a last one is a reset; its action is ignored and
its reward is 0. Episode seeds follow from the seed, the environment's index and the number of its
episode, so runs are reproducible. A process that dies, fails or does not answer in time is
restarted; its episode ends with a mark and with the cause as data.

Gymnasium's `AsyncVectorEnv` has the same convention (`AutoresetMode.NEXT_STEP`) and shared memory.
But it does not restart a dead worker, has no time limits, gives no seeds to the episodes that it
begins itself, cannot restore a state by replay, and runs the user's script again in every spawned
worker.
"""

import contextlib
import logging
import mmap
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from thinkslow.envs.failures import Failed, Failure, Mismatch, Nonfinite
from thinkslow.envs.make import only
from thinkslow.envs.requirements import Unavailable, installing
from thinkslow.envs.snapshots import Snapshot
from thinkslow.envs.steps import Step, end, hash_of, rows_of
from thinkslow.envs.worker import PATIENCE_S, Died, Played, Worker, nameless_memory, size_of, views
from thinkslow.spaces import Space

DEATHS = 3
"""Number of failures of one environment without a completed step, after which the cause is
raised.
"""

LARGEST = float(np.finfo(np.float32).max)

NOT_REPLAYED = Failure(
    "replay",
    "NotReplayed",
    "the seed and the actions of the episode led to another observation",
)

log = logging.getLogger("thinkslow")
_SAID: set[str] = set()
"""Renderers that this process has already reported."""


class VectorEnv:
    """`count` environments of one id, stepped together.

    >>> with VectorEnv("CartPole-v1", 2) as envs:
    ...     first = envs.reset()
    ...     step = envs.step(np.array([0, 1]))
    >>> step.observation["vector"].shape, step.reward
    ((2, 4), array([1., 1.], dtype=float32))

    Args:
        id: as for `make`.
        count: the number of environments, one process each.
        seed: the seeds of the episodes follow from it.
        step_limit_s: seconds that a step may take before its environment counts as hung.
        reset_limit_s: seconds that a reset may take, and making the environment.
        making: further arguments of `make`.

    **Errors:** at construction, the errors of `make`. Later `Failed`, with the traceback of the
    environment's process as a note, if an environment keeps failing; `Mismatch` for an observation
    that does not match its space.
    """

    def __init__(
        self,
        id: str,
        count: int,
        *,
        seed: int = 0,
        step_limit_s: float = 60.0,
        reset_limit_s: float = 300.0,
        **making: Any,
    ):
        if count < 1:
            raise ValueError(f"`count` must be 1 or more; got {count}.")
        for name, value in (("step_limit_s", step_limit_s), ("reset_limit_s", reset_limit_s)):
            if not value > 0:
                raise ValueError(f"`{name}` must be above 0; got {value}.")
        self.id, self.count, self.seed = id, count, seed
        self.limits = {"step": float(step_limit_s), "reset": float(reset_limit_s)}
        self._making = {"id": id, **making}
        self._said: set[str] = set()
        self._hurried: float | None = None
        self._file = nameless_memory()
        self._workers: list[Worker] = []
        # Also if this object is garbage collected, and when the interpreter ends.
        self._finalizer = weakref.finalize(self, _close, self._workers, self._file)
        try:
            self._workers.extend(self._start() for _ in range(count))
            spaces = self._ready(0)
            self.observation_space: dict[str, Space] = spaces.observations
            self.action_spaces: dict[str, Space] = spaces.actions
            if spaces.drawn and spaces.drawn not in _SAID:
                _SAID.add(spaces.drawn)
                log.info("%s draws %s.", id, spaces.drawn)
            size_bytes = size_of(self.observation_space, count)
            self._file.truncate(size_bytes)
            memory = mmap.mmap(self._file.fileno(), size_bytes)
            self._observation = views(memory, self.observation_space, count)
            for index, worker in enumerate(self._workers):
                if index:
                    self._ready(index)
                worker.attach(self.observation_space, count, index)
        except Died as death:
            self.close()
            raise Failed(f"{id} could not be made. {death}", death.failure) from None
        except BaseException:
            self.close()
            raise
        self._started = False
        self._episodes = [0] * count  # number of the next of the run's own seeds
        self._begun = [0] * count  # of all
        self._seeds = [0] * count
        self._actions: list[list[Any]] = [[] for _ in range(count)]
        self._deaths = [0] * count
        self._last = np.zeros(count, bool)
        self._crashes: list[Failure | None] = [None] * count
        self._first_seen = [""] * count

    @property
    def action_space(self) -> Space:
        """The action of environments with a single action.

        **Errors:** `Unavailable` if they have several.
        """
        return only(self.id, self.action_spaces)

    @property
    def pids(self) -> list[int]:
        """The process of each environment; a dead process is replaced."""
        return [worker.process.pid for worker in self._workers]

    @property
    def first_seen(self) -> list[str]:
        """A hash of the first observation of each environment's episode.

        Two episodes with one seed are a pair only if these hashes are equal.
        """
        return list(self._first_seen)

    def reset(self, seeds: Sequence[int] | None = None) -> Step:
        """Begin a new episode in every environment.

        Args:
            seeds: one for each environment; None: the next ones that follow from `seed`.
        """
        self._check_open()
        if seeds is not None and len(seeds) != self.count:
            raise ValueError(
                f"`seeds` must be one per environment, {self.count}; got {len(seeds)}."
            )
        self._settle()
        self._started = True
        with self._undone_if_interrupted():
            for index in range(self.count):
                self._begin(index, None if seeds is None else int(seeds[index]))
            return self._remember(self._collect([True] * self.count))

    def step(
        self,
        actions: np.ndarray | Mapping[str, np.ndarray],
        *,
        playing: np.ndarray | None = None,
    ) -> Step:
        """Play one action in each environment; if its episode is over, begin a new one.

        Args:
            actions: one row for each environment; a dictionary of such arrays if an environment
                has several actions.
            playing: where false, the environment does nothing: it shows its last observation again
                and begins no new episode. None: all play.
        """
        self._check_started()
        rows = rows_of(actions, self.action_spaces, self.count)
        self._check_settled()
        first = self._last.tolist()
        idle = () if playing is None else np.flatnonzero(~playing).tolist()
        with self._undone_if_interrupted():
            for index, over in enumerate(first):
                if index in idle:
                    continue
                if over:
                    self._begin(index, None)
                else:
                    self._actions[index].append(rows[index])
                    self._workers[index].ask("step", rows[index])
            return self._remember(self._collect(first, idle=idle))

    def hurry(self, seconds: float) -> None:
        """Limit the waiting time for pending answers, in order to stop.

        Args:
            seconds: the limit, from now.

        May be called from a signal handler while `step` or `reset` waits.
        """
        self._hurried = time.monotonic() + seconds

    def state(self) -> dict[str, Any]:
        """The state of every environment as JSON, for `restore`."""
        self._check_started()
        return {
            "episodes": list(self._episodes),
            "seeds": list(self._seeds),
            "actions": [list(actions) for actions in self._actions],
            "crashed": [one is not None for one in self._crashes],
            "errors": [None if one is None else one.to_json() for one in self._crashes],
            "first_seen": list(self._first_seen),
            "seen": [hash_of(self._shown, index) for index in range(self.count)],
        }

    def restore(self, state: dict[str, Any]) -> Step:
        """Restore a state by replaying each unfinished episode; returns its last step.

        This is exact if an episode follows from its seed and its actions. If a replay shows another
        observation than the saved one, a new episode begins: `is_first` is set, and `errors` says
        so. Later episodes follow from this object's own `seed`.

        **Errors:** `ValueError` for another number of environments.
        """
        self._check_open()
        if len(state["seeds"]) != self.count:
            raise ValueError(
                f"The state is of {len(state['seeds'])} environments; this has {self.count}."
            )
        self._settle()
        self._started = True
        self._episodes, self._begun = list(state["episodes"]), list(state["episodes"])
        self._seeds = list(state["seeds"])
        self._actions = [list(actions) for actions in state["actions"]]
        for index in range(self.count):
            self._replay(index)
        first = [not actions for actions in self._actions]
        step = self._collect([True] * self.count)
        step.is_first[:] = first
        crashes = [None if one is None else Failure.from_json(one) for one in state["errors"]]
        for index in np.flatnonzero(state["crashed"]):
            step.is_first[index] = False
            end(int(index), step)
        step = step._replace(errors=tuple(crashes))
        found = [hash_of(self._observation, index) for index in range(self.count)]
        unfaithful = [
            i for i, (one, kept) in enumerate(zip(found, state["seen"], strict=True)) if one != kept
        ]
        self._first_seen = list(state["first_seen"])
        return self._remember(self._renewed(unfaithful, step))

    def snapshot(self) -> list[Snapshot | None]:
        """A snapshot of each environment's episode; None for an episode that is over.

        **Cost:** a message to each process. If a simulator cannot be copied, `resume` replays the
        episode.
        """
        self._check_started()
        self._check_settled()
        out: list[Snapshot | None] = []
        for index, worker in enumerate(self._workers):
            if self._last[index]:
                out.append(None)
                continue
            worker.ask("copy")
            try:
                copy = worker.copied(self.limits["step"])
            except Died as death:  # the episode can still be played again
                self._report(index, death.failure)
                self._restart(index, death.failure)
                self._replay(index)
                self._receive(index, True)
                copy = None
            out.append(
                Snapshot(
                    self._seeds[index],
                    tuple(self._actions[index]),
                    self._first_seen[index],
                    hash_of(self._shown, index),
                    {k: a[index].copy() for k, a in self._shown.items()},
                    copy,
                )
            )
        return out

    def resume(self, snapshots: Sequence[Snapshot | None]) -> Step:
        """Restore a snapshot in each environment; it may come from any of them.

        Returns the step at that moment, with reward 0. If a replay reaches another state, the
        episode is marked as `crashed`, with `NotReplayed` in `errors`.

        **Errors:** `ValueError` for another number of snapshots, or one of an episode that is over.
        """
        self._check_open()
        if len(snapshots) != self.count:
            raise ValueError(
                f"`snapshots` must be one per environment, {self.count}; got {len(snapshots)}."
            )
        wanted = [one for one in snapshots if one is not None]
        if len(wanted) < self.count:
            raise ValueError("`snapshots` must be of moments; got one of an episode that is over.")
        self._settle()
        self._started = True
        with self._undone_if_interrupted():
            for index, one in enumerate(wanted):
                self._begun[index] += 1
                self._seeds[index], self._actions[index] = one.seed, list(one.actions)
                self._bring(index, one)
            step = self._collect([True] * self.count, wanted)
            self._first_seen[:] = [one.first_seen for one in wanted]
            step.is_first[:] = [not one.actions for one in wanted]
            step.reward[:] = 0.0
            errors = list(step.errors)
            for index, one in enumerate(wanted):
                if one.copy is None and hash_of(step.observation, index) != one.seen:
                    errors[index] = NOT_REPLAYED
                    end(index, step)
                else:
                    for name, array in one.observation.items():
                        self._observation[name][index] = step.observation[name][index] = array
            return self._remember(step._replace(errors=tuple(errors)))

    def _bring(self, index: int, snapshot: Snapshot) -> None:
        if snapshot.copy is None:
            self._replay(index)
        else:
            self._workers[index].ask("put", snapshot.copy, snapshot.seed)

    def close(self) -> None:
        """End all processes. A second call does nothing."""
        self._finalizer()

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("This VectorEnv is closed. Make another.")

    def _check_started(self) -> None:
        self._check_open()
        if not self._started:
            raise RuntimeError("No episode has begun. Call `reset` first.")

    def _check_settled(self) -> None:
        if any(worker.owes for worker in self._workers):
            raise RuntimeError("The step before was interrupted. Call `reset`, or `restore`.")

    def _start(self) -> Worker:
        return Worker(self._making, memory=self._file)

    def _ready(self, index: int) -> Any:
        spaces, notes = self._workers[index].ready(self.limits["reset"])
        self._say(notes)
        return spaces

    def _say(self, notes: Sequence[str]) -> None:
        """Log each message once."""
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                log.warning("%s: %s.", self.id, note.rstrip("."))

    def _begin(self, index: int, seed: int | None) -> None:
        if seed is None:
            entropy = [self.seed, index, self._episodes[index]]
            seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
            self._episodes[index] += 1
        self._begun[index] += 1
        self._seeds[index], self._actions[index] = seed, []
        self._replay(index)

    def _replay(self, index: int) -> None:
        self._workers[index].ask("replay", self._seeds[index], self._actions[index])

    def _collect(
        self,
        replayed: Sequence[bool],
        brought: Sequence[Snapshot] | None = None,
        *,
        idle: Sequence[int] = (),
    ) -> Step:
        """Collect the answers of the environments. If a process died, its episode ends, unless it
        was replaying.

        The result of a replay has not been used yet, so the replay is repeated, or the snapshot
        `brought` again.
        """
        count = self.count
        errors: list[Failure | None] = [None] * count
        nonfinite: list[Nonfinite] = []
        rewards = [0.0] * count
        step = Step(
            observation={},
            reward=np.zeros(count, np.float32),
            is_first=np.array(replayed),
            is_last=np.zeros(count, bool),
            is_terminal=np.zeros(count, bool),
            crashed=np.zeros(count, bool),
        )
        for index in range(count):
            if index in idle:
                step.is_first[index], step.is_last[index] = False, True
                continue
            snapshot = None if brought is None else brought[index]
            played = self._receive(index, replayed[index], snapshot)
            if isinstance(played, Failure):
                errors[index] = played
                self._actions[index].pop()  # its result was not used
                for name, array in self._observation.items():
                    array[index] = self._shown[name][index]
                end(index, step)
                continue
            rewards[index] = played.reward
            step.is_last[index], step.is_terminal[index] = played.over, played.terminated
            keys = [*played.nonfinite]
            if "reward" not in keys and not abs(played.reward) <= LARGEST:
                keys.append("reward")
            if keys:
                moment = (index, self._begun[index] - 1, len(self._actions[index]))
                nonfinite += [Nonfinite(key, *moment) for key in keys]
            self._say(played.notes)
            if replayed[index]:
                self._first_seen[index] = hash_of(self._observation, index)
        step.observation.update({name: a.copy() for name, a in self._observation.items()})
        with np.errstate(over="ignore"):  # infinite then, and listed
            step.reward[:] = rewards
        return step._replace(errors=tuple(errors), nonfinite=tuple(nonfinite))

    def _receive(
        self, index: int, replayed: bool, brought: Snapshot | None = None
    ) -> Played | Failure:
        """One answer, or the reason why a step has none. The process has then been replaced."""
        while True:
            limit = self.limits["reset" if replayed else "step"]
            if replayed:
                limit += len(self._actions[index]) * self.limits["step"]
            try:
                played = self._workers[index].receive(limit, lambda: self._hurried)
            except Mismatch as error:
                raise Mismatch(f"Environment {index} of {self.id}: {error}") from error
            except Died as death:
                self._report(index, death.failure)
                self._restart(index, death.failure)
                if not replayed:
                    return death.failure
                if brought is None:
                    self._replay(index)
                else:
                    self._bring(index, brought)
            else:
                if not replayed:
                    self._deaths[index] = 0
                return played

    def _report(self, index: int, failure: Failure) -> None:
        """Log a failure, once for each kind."""
        if failure.line not in self._said:
            self._said.add(failure.line)
            what = (
                "the reset is tried again" if failure.call == "reset" else "its episode ends here"
            )
            log.warning(
                "%s, environment %d, episode %d, step %d: %s; %s.",
                self.id,
                index,
                self._begun[index] - 1,
                len(self._actions[index]),
                installing(failure.line),
                what,
            )

    def _restart(self, index: int, failure: Failure) -> None:
        self._deaths[index] += 1
        if self._deaths[index] >= DEATHS:
            raise Failed(
                f"Environment {index} of {self.id} failed {DEATHS} times in a row: "
                f"{installing(failure.line)}",
                failure,
            )
        self._workers[index].close()
        worker = self._workers[index] = self._start()
        try:
            self._ready(index)
        except Died as again:
            raise Failed(f"{self.id} could not be made again. {again}", again.failure) from None
        except Unavailable as again:
            raise Unavailable(f"{self.id} could not be made again. {again}") from None
        worker.attach(self.observation_space, self.count, index)

    def _renewed(self, unfaithful: Sequence[int], step: Step) -> Step:
        """Begin new episodes where a replay reached another state."""
        if not unfaithful:
            return step
        errors: list[Failure | None] = list(step.errors)
        for index in unfaithful:
            errors[index] = NOT_REPLAYED
            log.warning(
                "%s, environment %d: its episode could not be restored, because its seed and "
                "actions led to another observation. A new episode begins.",
                self.id,
                index,
            )
            self._begin(index, None)
        for index in unfaithful:
            played = self._receive(index, True)
            assert isinstance(played, Played)
            self._first_seen[index] = hash_of(self._observation, index)
            for name, array in self._observation.items():
                step.observation[name][index] = array[index]
            step.reward[index] = 0.0
            step.is_first[index] = True
            step.is_last[index] = step.is_terminal[index] = step.crashed[index] = False
        return step._replace(errors=tuple(errors))

    def _remember(self, step: Step) -> Step:
        self._last = step.is_last.copy()
        self._crashes = [
            error if crashed else None
            for error, crashed in zip(step.errors, step.crashed, strict=True)
        ]
        self._shown = {name: array.copy() for name, array in step.observation.items()}
        return step

    @contextlib.contextmanager
    def _undone_if_interrupted(self) -> Iterator[None]:
        """Restore the counters to their values before a step that was not completed.

        `state` then returns the step before it.
        """
        books: Any = (
            self._episodes,
            self._begun,
            self._seeds,
            self._first_seen,
            self._actions,
        )
        kept = [list(book) for book in books]
        lengths = [len(actions) for actions in self._actions]
        try:
            yield
        except BaseException:
            for book, before in zip(books, kept, strict=True):
                book[:] = before
            for actions, length in zip(self._actions, lengths, strict=True):
                del actions[length:]
            raise

    def _settle(self) -> None:
        """After an interruption, read and discard the pending answers of the workers."""
        for index, worker in enumerate(self._workers):
            if worker.owes:
                with contextlib.suppress(Mismatch):
                    self._receive(index, False)


def _close(workers: list[Worker], file: IO[bytes]) -> None:
    for worker in workers:
        worker.leave()
    until = time.monotonic() + PATIENCE_S
    for worker in workers:
        worker.close(until)
    file.close()
