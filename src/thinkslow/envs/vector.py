"""Environments side by side, one process each, observations in shared memory.

The convention is DreamerV3's: the step after a last one is a reset, whose action is ignored and
whose reward is 0. Episode seeds follow from the seed, the environment's index and the number of
its episode, so that a run is the same whenever it is made. A process that dies is started anew
and its episode ends, marked.
"""

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np

from thinkslow.envs.requirements import Unavailable
from thinkslow.spaces import Space

DEATHS = 3
"""Of one environment without a step in between, after which the cause is raised."""
PATIENCE_S = 5.0
"""How long a worker may take to end before it is killed."""


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

    **Errors:** at construction, what `make` raises; later `RuntimeError` with the worker's own
    traceback if an environment keeps dying.
    """

    def __init__(self, id: str, count: int, *, seed: int = 0, size: int = 64, repeat: int = 1):
        if count < 1:
            raise ValueError(f"`count` must be 1 or more; got {count}.")
        self.id, self.count, self.seed = id, count, seed
        self._options = {"id": id, "size": size, "repeat": repeat}
        self._workers: list[_Worker | None] = [None] * count
        self._memory: SharedMemory | None = None
        atexit.register(self.close)
        try:
            self._workers = [_Worker(self._options) for _ in range(count)]
            spaces, *_ = [worker.ready() for worker in self._workers if worker]
            self.observation_space: dict[str, Space] = spaces[0]
            self.action_space: Space = spaces[1]
            sizes = [_bytes(space) for space in self.observation_space.values()]
            self._memory = SharedMemory(create=True, size=max(1, count * sum(sizes)))
            self._observation = _views(self._memory, self.observation_space, count)
            for index, worker in enumerate(self._workers):
                if worker:
                    worker.attach(self._memory.name, self.observation_space, count, index)
        except BaseException:
            self.close()
            raise
        self._episodes = [0] * count
        self._seeds = [0] * count
        self._actions: list[list[Any]] = [[] for _ in range(count)]
        self._deaths = [0] * count
        self._last = np.zeros(count, bool)
        self._crashed = np.zeros(count, bool)

    def reset(self, seeds: Sequence[int] | None = None) -> Step:
        """A new episode everywhere, with these seeds or with the next of the run's own."""
        if seeds is not None and len(seeds) != self.count:
            raise ValueError(
                f"`seeds` must be one per environment, {self.count}; got {len(seeds)}."
            )
        for index in range(self.count):
            self._begin(index, None if seeds is None else int(seeds[index]))
        return self._collect([True] * self.count)

    def step(self, actions: np.ndarray) -> Step:
        """Play one action in each environment; where the episode was over, begin a new one."""
        first = self._last.tolist()
        for index, over in enumerate(first):
            if over:
                self._begin(index, None)
            else:
                action = np.asarray(actions[index]).tolist()
                self._actions[index].append(action)
                self._send(index, ("step", action))
        return self._collect(first)

    def state(self) -> dict[str, Any]:
        """Where every environment is: enough, as JSON, for `restore`."""
        return {
            "episodes": list(self._episodes),
            "seeds": list(self._seeds),
            "actions": [list(actions) for actions in self._actions],
            "crashed": self._crashed.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> Step:
        """Bring back a state by playing each unfinished episode again; returns its last step.

        Exact where an episode follows from its seed and its actions.

        **Errors:** `ValueError` for another number of environments.
        """
        if len(state["seeds"]) != self.count:
            raise ValueError(
                f"The state is of {len(state['seeds'])} environments; this has {self.count}."
            )
        self._episodes = list(state["episodes"])
        self._seeds = list(state["seeds"])
        self._actions = [list(actions) for actions in state["actions"]]
        for index in range(self.count):
            self._send(index, ("replay", self._seeds[index], self._actions[index]))
        step = self._collect([not actions for actions in self._actions])
        for index in np.flatnonzero(state["crashed"]):
            self._end(index, step)
        self._last = step.is_last.copy()
        self._crashed = step.crashed.copy()
        return step

    def close(self) -> None:
        """End all processes; safe to call twice."""
        for worker in self._workers:
            if worker:
                worker.close()
        self._workers = [None] * self.count
        self._observation = {}
        if self._memory:
            self._memory.close()
            self._memory.unlink()
            self._memory = None
        atexit.unregister(self.close)

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, index: int, seed: int | None) -> None:
        if seed is None:
            entropy = [self.seed, index, self._episodes[index]]
            seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
            self._episodes[index] += 1
        self._seeds[index], self._actions[index] = seed, []
        self._send(index, ("replay", seed, []))

    def _send(self, index: int, message: tuple) -> None:
        worker = self._workers[index]
        if worker is None:
            raise RuntimeError("This VectorEnv is closed. Make another.")
        worker.send(message)

    def _collect(self, first: Sequence[bool]) -> Step:
        before = {name: array.copy() for name, array in self._observation.items()}
        reward = np.zeros(self.count, np.float32)
        last, terminal = np.zeros(self.count, bool), np.zeros(self.count, bool)
        step = Step({}, reward, np.array(first), last, terminal, np.zeros(self.count, bool))
        for index, worker in enumerate(self._workers):
            if worker is None:
                raise RuntimeError("This VectorEnv is closed. Make another.")
            try:
                reward[index], last[index], terminal[index] = worker.receive()
                self._deaths[index] = 0
            except _Died as death:
                self._restart(index, death)
                for name, array in self._observation.items():
                    array[index] = before[name][index]
                self._end(index, step)
        step.observation.update({name: a.copy() for name, a in self._observation.items()})
        self._last, self._crashed = last.copy(), step.crashed.copy()
        return step

    @staticmethod
    def _end(index: int, step: Step) -> None:
        """Mark an episode as ended by a dead process."""
        step.reward[index], step.is_terminal[index] = 0.0, False
        step.is_last[index] = step.crashed[index] = True

    def _restart(self, index: int, death: "_Died") -> None:
        self._deaths[index] += 1
        if self._deaths[index] >= DEATHS or self._memory is None:
            raise RuntimeError(
                f"Environment {index} of {self.id} died {DEATHS} times in a row. {death}"
            )
        old = self._workers[index]
        if old:
            old.close()
        worker = self._workers[index] = _Worker(self._options)
        worker.ready()
        worker.attach(self._memory.name, self.observation_space, self.count, index)


class _Died(Exception):
    """A worker is gone; the text says what it said last."""


class _Worker:
    """The parent's end of one environment process."""

    def __init__(self, options: dict[str, Any]):
        # Not fork: a GL context or a JAX runtime in the parent would not survive it.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, options, os.getpid()), daemon=True
        )
        self.process.start()
        theirs.close()

    def ready(self) -> tuple[dict[str, Space], Space]:
        """The spaces, once the environment is made."""
        try:
            return self.receive()
        except _Died as death:
            text = f"An environment process ended before it was ready. {death}"
            raise RuntimeError(text) from None

    def attach(self, name: str, spaces: dict[str, Space], count: int, index: int) -> None:
        self.send((name, spaces, count, index))

    def send(self, message: tuple) -> None:
        with contextlib.suppress(OSError):  # it died; `receive` tells, in its turn
            self.pipe.send(message)

    def receive(self) -> Any:
        try:
            kind, content = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(PATIENCE_S)
            raise _Died(f"Its process ended with code {self.process.exitcode}.") from None
        if kind == "unavailable":
            raise Unavailable(content)
        if kind == "error":
            raise _Died(content)
        return content

    def close(self) -> None:
        self.pipe.close()  # which the worker notices, and ends
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


def _work(pipe: Connection, options: dict[str, Any], parent: int) -> None:
    """The life of a worker: make the environment, then answer until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent(parent)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # simulators print; results are the parent's
    from thinkslow.envs.make import make

    try:
        try:
            env = make(**options)
        except Unavailable as error:
            pipe.send(("unavailable", str(error)))
            return
        pipe.send(("spaces", (env.observations, env.action)))
        name, spaces, count, index = pipe.recv()
        memory = SharedMemory(name)
        views = {key: array[index] for key, array in _views(memory, spaces, count).items()}
        try:
            _answer(pipe, env, views)
        finally:
            del views
            memory.close()
            env.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent closed the pipe
    except Exception:
        pipe.send(("error", traceback.format_exc()))


def _answer(pipe: Connection, env: Any, views: dict[str, np.ndarray]) -> None:
    while True:
        kind, *content = pipe.recv()
        if kind == "replay":
            seed, actions = content
            observation, _ = env.reset(seed=seed)
            outcome = (0.0, False, False)
        else:
            actions = content
        for action in actions:
            observation, reward, terminated, truncated, _ = env.step(action)
            outcome = (reward, terminated or truncated, terminated)
        for name, view in views.items():
            view[...] = observation[name]
        pipe.send(("step", outcome))


def _die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, even by kill -9."""
    if sys.platform != "linux":
        return  # elsewhere the closed pipe ends it
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _bytes(space: Space) -> int:
    # Rounded up, so that every array starts aligned.
    size = int(np.prod(space.shape, dtype=int)) * np.dtype(space.dtype).itemsize
    return -(-size // 64) * 64


def _views(memory: SharedMemory, spaces: dict[str, Space], count: int) -> dict[str, np.ndarray]:
    """The arrays `[count, *shape]` of each observation inside the shared memory."""
    out, start = {}, 0
    for name, space in spaces.items():
        out[name] = np.ndarray((count, *space.shape), space.dtype, memory.buf, start)
        start += count * _bytes(space)
    return out
