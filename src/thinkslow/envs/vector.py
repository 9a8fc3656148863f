"""Environments side by side, one process each, observations in shared memory.

The convention is DreamerV3's: the step after a last one is a reset, whose action is ignored and
whose reward is 0. Episode seeds follow from the seed, the environment's index and the number of
its episode, so that a run is the same whenever it is made. A process that dies is started anew
and its episode ends, marked.
"""

import mmap
import weakref
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from thinkslow.envs.worker import Died, Worker, nameless_memory, size_of, views
from thinkslow.spaces import Space

DEATHS = 3
"""Of one environment without a completed step in between, after which the cause is raised."""


class Step(NamedTuple):
    """One step of every environment; arrays over the environments."""

    observation: dict[str, np.ndarray]
    reward: np.ndarray
    """float32; of the action that led here, 0 at a first step."""
    is_first: np.ndarray
    is_last: np.ndarray
    """The episode ends here, for whatever reason."""
    is_terminal: np.ndarray
    """It ends because the task does: nothing comes after."""
    crashed: np.ndarray
    """It ends because the process died; the observation is the one before."""


class VectorEnv:
    """`count` environments of one id, stepped together.

    >>> with VectorEnv("CartPole-v1", 2) as envs:
    ...     first = envs.reset()
    ...     step = envs.step(np.array([0, 1]))
    >>> step.observation["vector"].shape, step.reward
    ((2, 4), array([1., 1.], dtype=float32))

    **Errors:** at construction, what `make` raises; later `RuntimeError` with the worker's own
    traceback if an environment keeps dying.
    """

    def __init__(self, id: str, count: int, *, seed: int = 0, size: int = 64, repeat: int = 1):
        if count < 1:
            raise ValueError(f"`count` must be 1 or more; got {count}.")
        self.id, self.count, self.seed = id, count, seed
        self._options = {"size": size, "repeat": repeat}
        self._file = nameless_memory()
        self._workers: list[Worker] = []
        # Also when this is forgotten, and when the interpreter ends.
        self._finalizer = weakref.finalize(self, _close, self._workers, self._file)
        try:
            self._workers.extend(self._start() for _ in range(count))
            self.observation_space: dict[str, Space]
            self.action_space: Space
            self.observation_space, self.action_space = self._workers[0].ready()
            size_bytes = size_of(self.observation_space, count)
            self._file.truncate(size_bytes)
            memory = mmap.mmap(self._file.fileno(), size_bytes)
            self._observation = views(memory, self.observation_space, count)
            for index, worker in enumerate(self._workers):
                if index:
                    worker.ready()
                worker.attach(self.observation_space, count, index)
        except Died as death:
            self.close()
            cause = str(death).strip().splitlines()[-1]  # of a traceback, what went wrong
            raise RuntimeError(f"{id} could not be made. {cause}") from None
        except BaseException:
            self.close()
            raise
        self._started = False
        self._episodes = [0] * count
        self._seeds = [0] * count
        self._actions: list[list[Any]] = [[] for _ in range(count)]
        self._deaths = [0] * count
        self._last = np.zeros(count, bool)
        self._crashed = np.zeros(count, bool)

    def reset(self, seeds: Sequence[int] | None = None) -> Step:
        """A new episode everywhere, with these seeds or with the next of the run's own."""
        self._check_open()
        if seeds is not None and len(seeds) != self.count:
            raise ValueError(
                f"`seeds` must be one per environment, {self.count}; got {len(seeds)}."
            )
        self._started = True
        for index in range(self.count):
            self._begin(index, None if seeds is None else int(seeds[index]))
        return self._collect([True] * self.count)

    def step(self, actions: np.ndarray) -> Step:
        """Play one action in each environment; where the episode was over, begin a new one."""
        self._check_started()
        if len(actions) != self.count:
            raise ValueError(
                f"`actions` must be one per environment, {self.count}; got {len(actions)}."
            )
        first = self._last.tolist()
        for index, over in enumerate(first):
            if over:
                self._begin(index, None)
            else:
                action = np.asarray(actions[index]).tolist()
                self._actions[index].append(action)
                self._workers[index].send(("step", action))
        return self._collect(first)

    def state(self) -> dict[str, Any]:
        """Where every environment is: enough, as JSON, for `restore`."""
        self._check_started()
        return {
            "episodes": list(self._episodes),
            "seeds": list(self._seeds),
            "actions": [list(actions) for actions in self._actions],
            "crashed": self._crashed.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> Step:
        """Bring back a state by playing each unfinished episode again; returns its last step.

        Exact where an episode follows from its seed and its actions. The episodes that come
        after follow from this object's own `seed`.

        **Errors:** `ValueError` for another number of environments.
        """
        self._check_open()
        if len(state["seeds"]) != self.count:
            raise ValueError(
                f"The state is of {len(state['seeds'])} environments; this has {self.count}."
            )
        self._started = True
        self._episodes = list(state["episodes"])
        self._seeds = list(state["seeds"])
        self._actions = [list(actions) for actions in state["actions"]]
        for index in range(self.count):
            self._replay(index)
        first = [not actions for actions in self._actions]
        step = self._collect([True] * self.count)
        step.is_first[:] = first
        for index in np.flatnonzero(state["crashed"]):
            step.is_first[index] = False
            self._end(int(index), step)
        return self._remember(step)

    def close(self) -> None:
        """End all processes; safe to call twice."""
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

    def _start(self) -> Worker:
        return Worker(self.id, memory=self._file, **self._options)

    def _begin(self, index: int, seed: int | None) -> None:
        if seed is None:
            entropy = [self.seed, index, self._episodes[index]]
            seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
            self._episodes[index] += 1
        self._seeds[index], self._actions[index] = seed, []
        self._replay(index)

    def _replay(self, index: int) -> None:
        self._workers[index].send(("replay", self._seeds[index], self._actions[index]))

    def _collect(self, replayed: Sequence[bool]) -> Step:
        """What the environments answer; a death ends an episode, unless it was a replay's.

        Nobody has seen what a replay leads to, so that it is simply done again.
        """
        before = {name: array.copy() for name, array in self._observation.items()}
        count = self.count
        step = Step(
            observation={},
            reward=np.zeros(count, np.float32),
            is_first=np.array(replayed),
            is_last=np.zeros(count, bool),
            is_terminal=np.zeros(count, bool),
            crashed=np.zeros(count, bool),
        )
        for index in range(count):
            outcome = self._receive(index, replayed[index])
            if outcome is None:
                self._actions[index].pop()  # it had no effect that anybody saw
                for name, array in self._observation.items():
                    array[index] = before[name][index]
                self._end(index, step)
            else:
                step.reward[index], step.is_last[index], step.is_terminal[index] = outcome
        step.observation.update({name: a.copy() for name, a in self._observation.items()})
        return self._remember(step)

    def _receive(self, index: int, replayed: bool) -> tuple[float, bool, bool] | None:
        """One answer; `None` if the worker died in a step. Its successor is up."""
        while True:
            try:
                outcome = self._workers[index].receive()
            except Died as death:
                self._restart(index, death)
                if not replayed:
                    return None
                self._replay(index)
            else:
                if not replayed:
                    self._deaths[index] = 0
                return outcome

    def _restart(self, index: int, death: Died) -> None:
        self._deaths[index] += 1
        if self._deaths[index] >= DEATHS:
            raise RuntimeError(
                f"Environment {index} of {self.id} died {DEATHS} times in a row. {death}"
            ) from None
        self._workers[index].close()
        worker = self._workers[index] = self._start()
        try:
            worker.ready()
        except Died as again:
            raise RuntimeError(f"{self.id} could not be made again. {again}") from None
        worker.attach(self.observation_space, self.count, index)

    @staticmethod
    def _end(index: int, step: Step) -> None:
        """Mark an episode as ended by a dead process."""
        step.reward[index], step.is_terminal[index] = 0.0, False
        step.is_last[index] = step.crashed[index] = True

    def _remember(self, step: Step) -> Step:
        self._last, self._crashed = step.is_last.copy(), step.crashed.copy()
        return step


def _close(workers: list[Worker], file: IO[bytes]) -> None:
    for worker in workers:
        worker.leave()
    for worker in workers:
        worker.close()
    file.close()
