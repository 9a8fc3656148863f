"""One environment in a process of its own: both ends of the pipe.

The process is started plainly, neither forked (an OpenGL context or a JAX runtime of the parent
would not survive it) nor by `multiprocessing`, which would run the user's script once more in
every worker. It loads no more than the environment, and ends when its parent closes the pipe or
dies, whatever way. Observations go through memory that both map and that has no name, so that
nothing is left behind after a kill.

From the parent `("replay", seed, actions)` or `("step", action)`; back `(kind, content)`:

- `ready`: the spaces; the first message unless the environment cannot be made,
- `unavailable`: the message of `Unavailable`,
- `played`: reward, whether the episode is over, whether the task itself ended it,
- `error`: a traceback; the process ends.
"""

import contextlib
import faulthandler
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import IO, Any

import gymnasium
import numpy as np

from thinkslow.envs.make import Player, make
from thinkslow.envs.requirements import Unavailable
from thinkslow.spaces import Space

Spaces = tuple[dict[str, Space], Space]
"""Of the observations and of the action."""
Outcome = tuple[float, bool, bool]
"""Reward, whether the episode is over, whether the task itself ended it."""

PATIENCE_S = 5.0
"""How long a worker may take to end before it is killed."""
LAST_WORDS = 2000
"""How much of what a dead worker wrote is shown, in characters."""


class Died(Exception):
    """A worker is gone; the text says how, and what it wrote last."""


class Worker:
    """The parent's end. Starting returns at once; `ready` waits until the environment is made."""

    def __init__(self, id: str, *, size: int, repeat: int, memory: IO[bytes]):
        ours, theirs = socket.socketpair()
        self.pipe = Connection(ours.detach())
        self.words = nameless_memory()
        inherited = (theirs.fileno(), memory.fileno())
        call = "from thinkslow.envs.worker import main; main()"
        path = [entry or os.getcwd() for entry in sys.path]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", call, *map(str, inherited)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # simulators print; standard output is the parent's
                stderr=self.words,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        finally:
            theirs.close()
        self.send((id, size, repeat, _registered(id)))

    def ready(self) -> Spaces:
        """What the environment shows and takes."""
        return self._receive("ready")

    def attach(self, spaces: dict[str, Space], count: int, index: int) -> None:
        """Tell where its observations go: row `index` of `count` in the shared memory."""
        self.send((spaces, count, index))

    def send(self, message: tuple) -> None:
        with contextlib.suppress(OSError):  # it died; `receive` tells, in its turn
            self.pipe.send(message)

    def receive(self) -> Outcome:
        """The answer to a replay or a step; raises `Died` if there will be none."""
        return self._receive("played")

    def _receive(self, expected: str) -> Any:
        try:
            kind, content = self.pipe.recv()
        except (EOFError, OSError):
            self.process.wait()
            self.words.seek(0)
            words = self.words.read().decode(errors="replace").strip()[-LAST_WORDS:]
            text = f"Its process ended with code {self.process.returncode}."
            raise Died(f"{text} It wrote:\n{words}" if words else text) from None
        if kind == "unavailable":
            raise Unavailable(content)
        if kind == "error":
            raise Died(content)
        assert kind == expected
        return content

    def leave(self) -> None:
        """Close the pipe, which ends the worker in its own time."""
        self.pipe.close()

    def close(self) -> None:
        """Wait until the process is gone, and kill it if that takes too long."""
        self.leave()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.words.close()


def nameless_memory() -> IO[bytes]:
    """A file in memory that other processes reach by its descriptor only."""
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
    """Bytes of shared memory that `views` needs; never zero, which cannot be mapped."""
    return max(1, count * sum(map(_bytes, spaces.values())))


def _bytes(space: Space) -> int:
    # Rounded up, so that every array starts aligned.
    size = int(np.prod(space.shape, dtype=int)) * np.dtype(space.dtype).itemsize
    return -(-size // 64) * 64


def _registered(id: str) -> Any:
    """The parent's registration of an id, where a worker can use it: a class named by text."""
    spec = gymnasium.registry.get(id)
    return spec if spec is not None and isinstance(spec.entry_point, str) else None


def main() -> None:
    """The worker's end: make the environment, then answer until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    pipe, memory = Connection(int(sys.argv[1])), int(sys.argv[2])
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            _serve(pipe, memory)
        except Unavailable as error:
            pipe.send(("unavailable", str(error)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise  # the parent closed the pipe, or is gone
        except Exception:
            pipe.send(("error", traceback.format_exc()))


def _serve(pipe: Connection, memory: int) -> None:
    id, size, repeat, spec = pipe.recv()
    if spec is not None:
        gymnasium.registry.setdefault(id, spec)
    env = make(id, size=size, repeat=repeat)
    try:
        pipe.send(("ready", (env.observations, env.action)))
        spaces, count, index = pipe.recv()
        arrays = views(mmap.mmap(memory, size_of(spaces, count)), spaces, count)
        rows = {name: array[index : index + 1] for name, array in arrays.items()}
        while True:
            kind, *content = pipe.recv()
            outcome = (
                _replay(env, rows, *content) if kind == "replay" else _step(env, rows, *content)
            )
            pipe.send(("played", outcome))
    finally:
        env.close()


def _replay(env: Player, rows: dict[str, np.ndarray], seed: int, actions: Sequence[Any]) -> Outcome:
    """Begin the episode of a seed and play actions of it again."""
    observation, _ = env.reset(seed=seed)
    _show(observation, rows)
    outcome = (0.0, False, False)
    for action in actions:
        outcome = _step(env, rows, action)
    return outcome


def _step(env: Player, rows: dict[str, np.ndarray], action: Any) -> Outcome:
    observation, reward, terminated, truncated, _ = env.step(action)
    _show(observation, rows)
    return reward, terminated or truncated, terminated


def _show(observation: dict[str, np.ndarray], rows: dict[str, np.ndarray]) -> None:
    for name, row in rows.items():
        row[0] = observation[name]
