"""The processes of a `VectorEnv` and the memory that they share.

Simulators take a while to start. `started_early` starts them before they are needed, for example
before JAX is imported; the next `VectorEnv` with the same arguments takes them.
"""

import contextlib
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import IO, Any

from thinkslow import standard_streams
from thinkslow.envs.worker import PATIENCE_S, Worker, nameless_memory


class Crew:
    """One process for each of `count` environments, started but not yet waited for.

    Args:
        making: the arguments of `make`.
        count: the number of processes.
    """

    def __init__(self, making: Mapping[str, Any], count: int):
        self.making = dict(making)
        standard_streams.reserve()
        self.file = nameless_memory()
        self.workers: list[Worker] = []
        self._owner = os.getpid()
        # Also if this object is garbage collected, and when the interpreter ends.
        self._finalizer = weakref.finalize(self, _close, self.workers, self.file, self._owner)
        try:
            self.workers.extend(self.start() for _ in range(count))
        except BaseException:
            self.close()
            raise

    def start(self) -> Worker:
        """One more process, to replace one that died."""
        return Worker(self.making, memory=self.file)

    @property
    def closed(self) -> bool:
        """Whether the processes have ended."""
        return not self._finalizer.alive

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """End all processes; those that do not end in time are killed. A second call does nothing,
        nor does a call in a fork of the process that started them.

        Args:
            patience_s: seconds that they have.
        """
        if os.getpid() == self._owner and self._finalizer.detach() is not None:
            _close(self.workers, self.file, self._owner, patience_s)


_EARLY: list[Crew] = []


@contextlib.contextmanager
def started_early(making: Mapping[str, Any], count: int) -> Iterator[Crew]:
    """Start processes now that a `VectorEnv` inside the body will need.

    Args:
        making: its arguments of `make`.
        count: its number of environments.

    If none takes them, they are killed when the body ends.
    """
    crew = Crew(making, count)
    _EARLY.append(crew)
    try:
        yield crew
    finally:
        if crew in _EARLY:
            _EARLY.remove(crew)
            crew.close(patience_s=0.0)


def crew_of(making: Mapping[str, Any], count: int) -> Crew:
    """Processes for these environments: early ones, otherwise new ones."""
    for crew in _EARLY:
        if crew.making == dict(making) and len(crew.workers) == count:
            _EARLY.remove(crew)
            return crew
    return Crew(making, count)


def _close(
    workers: list[Worker], file: IO[bytes], owner: int, patience_s: float = PATIENCE_S
) -> None:
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.leave()
    until = time.monotonic() + patience_s
    for worker in workers:
        worker.close(until)
    file.close()
