"""One environment in a separate process: both ends of the pipe.

The process is not forked (an OpenGL context or a JAX runtime of the parent would not survive) and
not started by `multiprocessing`, which would run the user's script again in every worker. It loads
only the environment, and always ends when its parent closes the pipe or dies. Observations go
through anonymous shared memory, so nothing is left behind after a kill. Only the last output of a
simulator is kept.

From the parent `("replay", seed, actions)`, `("step", action)`, `("copy",)` for the moment of the
episode, or `("put", copy, seed)` to bring one back; back `(kind, content)`:

- `ready`: the spaces and what there is to say; the first message unless it cannot be made,
- `refused`: an exception for the parent to raise, with its traceback: it cannot be made here, or
  it shows what it does not declare,
- `played`: a `Played`, also to a `put`,
- `copied`: a copy as bytes, or None,
- `failed`: a `Failure`; the process ends.
"""

import contextlib
import ctypes
import faulthandler
import gc
import mmap
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import IO, Any, NamedTuple

import gymnasium
import numpy as np

from thinkslow import ending
from thinkslow.envs.failures import OWN, Failure, Mismatch, ended, failure, origin, said_before
from thinkslow.envs.make import Environment, make
from thinkslow.envs.requirements import Unavailable
from thinkslow.spaces import Space

PATIENCE_S = 5.0
"""Seconds that workers have to end before they are killed."""
LAST_WORDS = 4000
"""How much of what a worker writes is kept, in bytes."""
GLANCE_S = 0.5
"""Seconds between two checks whether the parent still waits."""
COMPUTING = {"JAX_PLATFORMS": "cpu", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""For environments written in JAX, unless the user sets it: the GPU is for the agent."""
END_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""


class Spaces(NamedTuple):
    """The observations and actions of an environment."""

    observations: dict[str, Space]
    actions: dict[str, Space]
    drawn: str = ""
    """Its renderer, if one was chosen."""


class Played(NamedTuple):
    """The result of a step, besides the observation."""

    reward: float
    over: bool
    terminated: bool
    nonfinite: tuple[str, ...] = ()
    """Observations, and `reward`, that were NaN or infinite."""
    notes: tuple[str, ...] = ()
    """New messages about the environment since the last answer."""


Hurried = Callable[[], float | None]
"""The moment of `time.monotonic` that may bring the end of a wait forward."""


class _Awake:
    """Seconds that this process has waited, without those in which it was suspended.

    A batch system may suspend a whole job, or a user a whole container, for hours.
    """

    suspended = 0.0

    def now(self) -> float:
        return time.monotonic() - self.suspended

    def glanced(self, since: float) -> float:
        """The present moment, one glance after another at `since`."""
        now = self.now()
        lost = max(0.0, now - since - 2 * GLANCE_S)
        self.suspended += lost
        return now - lost


AWAKE = _Awake()


class Died(Exception):
    """A worker has ended or does not answer; `failure` gives the reason."""

    def __init__(self, failure: Failure):
        super().__init__(failure.line)
        self.failure = failure


class Worker:
    """The parent's end. Starting returns at once; `ready` waits until the environment is made."""

    def __init__(self, arguments: Mapping[str, Any], *, memory: IO[bytes]):
        ours, theirs = socket.socketpair()
        self.pipe = Connection(ours.detach())
        self._answered = select.poll()  # `Connection.poll` makes a selector for each question
        self._answered.register(self.pipe, select.POLLIN)
        self.owes = "make"
        """The last request that the worker has not answered; empty: none."""
        self._asked = AWAKE.now()
        inherited = (theirs.fileno(), memory.fileno())
        # Linux ends the child with the *thread* that made it, so a permanent thread must request
        # it.
        stays = threading.current_thread() is threading.main_thread()
        call = "import gc; gc.disable(); from thinkslow.envs.worker import main; main()"
        path = [entry or os.getcwd() for entry in sys.path]
        numbers = map(str, (*inherited, os.getpid(), int(stays)))
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", call, *numbers],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # simulators print; standard output is the parent's
                stderr=subprocess.PIPE,
                env={**COMPUTING, **os.environ, "PYTHONPATH": os.pathsep.join(path)},
                start_new_session=True,  # the parent handles Ctrl-C
            )
        finally:
            theirs.close()
        self.words = Words(self.process)
        self._send((dict(arguments), _registered(arguments["id"])))

    def ready(self, limit_s: float) -> tuple[Spaces, tuple[str, ...]]:
        """The observations, actions and messages of the environment."""
        return self._receive("ready", limit_s)

    def attach(self, spaces: dict[str, Space], count: int, index: int) -> None:
        """Send the place of its observations: row `index` of `count` in the shared memory."""
        self._send((spaces, count, index))

    def ask(self, kind: str, *content: Any) -> None:
        """Send a `replay` or a `step`, which `receive` answers."""
        self.owes, self._asked = "reset" if kind == "replay" else kind, AWAKE.now()
        self._send((kind, *content))

    def receive(self, limit_s: float, hurried: Hurried = lambda: None) -> Played:
        """The answer to a replay or a step.

        `limit_s` counts from the question; `hurried()` may bring the end forward, as a moment of
        `time.monotonic`.

        **Errors:** `Died` if there will be no answer, or none in time.
        """
        return Played(*self._receive("played", limit_s, hurried))

    def copied(self, limit_s: float) -> bytes | None:
        """The answer to `copy`."""
        return self._receive("copied", limit_s)

    def _send(self, message: tuple) -> None:
        with contextlib.suppress(OSError):  # it died; the next `receive` reports it
            _tell(self.pipe, message)

    def _receive(self, expected: str, limit_s: float, hurried: Hurried = lambda: None) -> Any:
        call, now = self.owes, AWAKE.now()
        try:
            while not self._answered.poll(1_000 * GLANCE_S):
                # What it forked may hold its end of the pipe open.
                if self.process.poll() is not None and not self._answered.poll(0):
                    raise EOFError
                now, soon = AWAKE.glanced(now), hurried()
                waited = now - self._asked
                if waited >= limit_s or (soon is not None and time.monotonic() >= soon):
                    raise Died(self._hang(call, f"no answer within {waited:.0f} s"))
            kind, content = _heard(self.pipe)
        except (EOFError, OSError):
            raise Died(self._end(call)) from None
        self.owes = ""
        if kind == "refused":
            error, told = content
            error.add_note(told)  # shown with a traceback, so with --debug
            raise error
        if kind == "failed":
            raise Died(said_before(content, self.words.last))
        assert kind == expected
        return content

    def _end(self, call: str) -> Failure:
        """Why nothing more comes from the pipe: the process has ended, or it closed the pipe."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return self._hang(call, "it closed the pipe to this process, and has not ended")
        return ended(code, call, self.words.last())

    def _hang(self, call: str, what: str) -> Failure:
        return Failure(call, "Hang", what, traceback=self.words.last())

    def leave(self) -> None:
        """Close the pipe, which ends the worker in its own time."""
        self.pipe.close()

    def close(self, until: float | None = None) -> None:
        """Wait until the process is gone, and kill it, and what it started, if that takes too
        long: past the moment `until`, or if it hangs already."""
        self.leave()
        until = time.monotonic() + PATIENCE_S if until is None else until
        left = until - time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A worker that has not answered may never notice that the pipe is closed.
            self.process.wait(max(0.0, min(left, GLANCE_S) if self.owes else left))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.words.close()


def _tell(pipe: Connection, message: tuple) -> None:
    """Send a message by the plain pickler.

    `Connection.send` builds one in Python each time, which costs as much as a small environment.
    """
    pipe.send_bytes(pickle.dumps(message))


def _heard(pipe: Connection) -> Any:
    return pickle.loads(pipe.recv_bytes())


class Words:
    """The last output of a process on standard error, read as it arrives.

    A thread reads it, so a process that writes much does not block or fill the memory.
    """

    def __init__(self, process: subprocess.Popen):
        assert process.stderr is not None
        self._stream = process.stderr
        self._last = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def last(self) -> str:
        """The last output of a process that has ended or hangs."""
        self._thread.join(GLANCE_S)
        return self._last.decode(errors="replace").strip()

    def close(self) -> None:
        self._thread.join(GLANCE_S)
        if not self._thread.is_alive():
            self._stream.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while more := os.read(self._stream.fileno(), 65536):
                self._last = (self._last + more)[-LAST_WORDS:]


def nameless_memory() -> IO[bytes]:
    """A file in memory that other processes can open only by its descriptor."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("thinkslow"), "r+b")
    return tempfile.TemporaryFile()


def views(memory: mmap.mmap, spaces: dict[str, Space], count: int) -> dict[str, np.ndarray]:
    """The arrays `[count, *shape]` of each observation inside the shared memory."""
    out, start = {}, 0
    for name, space in spaces.items():
        out[name] = np.ndarray((count, *space.shape), space.dtype, memory, start)
        start += count * _bytes(space)
    return out


def size_of(spaces: dict[str, Space], count: int) -> int:
    """Number of bytes of shared memory that `views` needs; at least 1, because 0 bytes cannot be
    mapped.
    """
    return max(1, count * sum(map(_bytes, spaces.values())))


def _bytes(space: Space) -> int:
    # Rounded up, so that every array starts aligned.
    size = int(np.prod(space.shape, dtype=int)) * np.dtype(space.dtype).itemsize
    return -(-size // 64) * 64


def _registered(id: str) -> Any:
    """The parent's registration of an id, in a form that a worker can use: a class named by
    text.
    """
    spec = gymnasium.registry.get(id)
    return spec if spec is not None and isinstance(spec.entry_point, str) else None


def main() -> None:
    """The main function of a worker: make the environment, then answer until the pipe closes."""
    file, memory, parent, stays = map(int, sys.argv[1:])
    end_with(parent, kernel=bool(stays))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for each in ending.SIGNALS:  # it is for the parent to save and to end
        signal.signal(each, lambda *_: None)
    faulthandler.enable()
    pipe = Connection(file)
    # Between a fork and `_forked`, a signal to the new process would be lost.
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ending.SIGNALS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, ending.SIGNALS),
        after_in_child=lambda: _forked(pipe),
    )
    served = _Served()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            _serve(pipe, memory, served)
        except (Unavailable, Mismatch) as error:
            _tell(pipe, ("refused", (type(error)(str(error)), traceback.format_exc())))
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            if not served.idle:  # the environment's own, not of a parent that is gone
                _tell(pipe, ("failed", failure(error, served.call)))
        except BaseException as error:  # the environment's, which may even exit
            _tell(pipe, ("failed", failure(error, served.call)))
    if served.env is not None:  # after the message: closing may hang
        served.env.close()


def end_with(parent: int, *, kernel: bool) -> None:
    """Make this process end when its parent does."""
    if kernel and sys.platform == "linux":
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before that
        os._exit(1)


def _forked(pipe: Connection) -> None:
    """In a process that the environment forked: it neither answers, nor outlives a signal."""
    pipe.close()
    for each in ending.SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ending.SIGNALS)


class _Served:
    """Whether the worker waits for its parent or is inside a call of the environment."""

    call = "make"
    idle = False
    env: Environment | None = None


def _serve(pipe: Connection, memory: int, served: _Served) -> None:
    arguments, spec = _heard(pipe)
    if spec is not None:
        gymnasium.registry.setdefault(arguments["id"], spec)
    try:
        env = served.env = make(**arguments)
    except ValueError as error:  # our own word about the arguments is no failure
        if isinstance(error, Unavailable | Mismatch) or not origin(error).endswith(OWN):
            raise
        raise Unavailable(str(error)) from error
    gc.freeze()  # looking for cycles among imported modules took a tenth of a start
    gc.enable()
    _tell(pipe, ("ready", (Spaces(env.observations, env.actions, env.drawn), tuple(env.notes))))
    said, served.idle = len(env.notes), True
    spaces, count, index = _heard(pipe)
    arrays = views(mmap.mmap(memory, size_of(spaces, count)), spaces, count)
    rows = {name: array[index : index + 1] for name, array in arrays.items()}
    begun = False
    while True:
        kind, *content = _heard(pipe)
        served.call, served.idle = "reset" if kind == "replay" else kind, False
        begun = begun or kind == "replay"
        if kind == "copy":
            copy = env.copy()
            served.idle = True
            _tell(pipe, ("copied", copy))
            continue
        if kind == "put":
            copy, seed = content
            if not begun:  # a new process has no world yet that could be restored
                env.reset(seed=seed)
                begun = True
            env.put_back(copy)
            served.idle = True
            _tell(pipe, ("played", tuple(Played(0.0, False, False))))
            continue
        played = _replay(env, rows, *content) if kind == "replay" else _step(env, rows, *content)
        served.idle = True
        _tell(pipe, ("played", (*played[:-1], tuple(env.notes[said:]))))
        said = len(env.notes)


def _replay(
    env: Environment, rows: dict[str, np.ndarray], seed: int, actions: Sequence[Any]
) -> Played:
    """Begin the episode of a seed and play actions of it again."""
    observation, _ = env.reset(seed=seed)
    _show(observation, rows)
    played = Played(0.0, False, False, env.nonfinite)
    for action in actions:
        played = _step(env, rows, action)
    return played


def _step(env: Environment, rows: dict[str, np.ndarray], action: Any) -> Played:
    observation, reward, terminated, truncated, _ = env.step(action)
    _show(observation, rows)
    return Played(reward, terminated or truncated, terminated, env.nonfinite)


def _show(observation: dict[str, np.ndarray], rows: dict[str, np.ndarray]) -> None:
    for name, row in rows.items():
        row[0] = observation[name]
