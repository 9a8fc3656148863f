"""SIGTERM and the other signals that end a job end a command in the same way as Ctrl-C.

Finished work is kept, the processes of the environments end, and the folder is unlocked.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thinkslow import ending


class Ended(KeyboardInterrupt):
    """A signal other than Ctrl-C ended the command."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextmanager
def by_signals() -> Iterator[None]:
    """Raise `Ended` at the first signal. A second signal ends the process at once.

    Python drops an exception that is raised inside a destructor, so such a signal is sent again.
    Code in C may make it an error of its own, as NumPy does while it is imported; the first signal
    is then raised instead of that.
    """
    before: dict[int, Any] = {}
    stops: list[KeyboardInterrupt] = []

    def end(number: int, _: object) -> None:
        for each in before:
            again = each == number == signal.SIGXCPU  # it comes every second
            signal.signal(each, signal.SIG_IGN if again else signal.SIG_DFL)
        stops.append(Ended(number))
        raise stops[-1]

    def interrupt(number: int, _: object) -> None:
        stops.append(KeyboardInterrupt())
        raise stops[-1]

    def dropped(found: Any) -> None:
        if not isinstance(found.exc_value, KeyboardInterrupt):
            tell(found)
            return
        for each in before:
            signal.signal(each, end)
        number = exit_code(found.exc_value) - 128
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()  # once this hook is left

    tell, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as a command starts
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
        for number in ending.SIGNALS:
            # A command that was started with nohup continues when its terminal closes.
            if not ending.is_taken(number):
                before[number] = signal.signal(number, end)
    except ValueError:  # not in the main thread: signals are handled elsewhere
        pass
    try:
        yield
    except Exception as error:
        if stops:
            raise stops[0] from error
        raise
    finally:
        sys.unraisablehook = tell
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(stop: KeyboardInterrupt) -> int:
    """128 plus the number of the signal, as in shells."""
    return 128 + (stop.number if isinstance(stop, Ended) else signal.SIGINT)
