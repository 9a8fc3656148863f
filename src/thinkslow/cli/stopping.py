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

    Python drops an exception that is raised inside a destructor, or inside the hook that tells of
    it, so such a signal is sent again. Code in C may make it an error of its own, as NumPy does
    while it is imported; the first signal is then raised instead of that.
    """
    before: dict[int, Any] = {}
    stops: list[KeyboardInterrupt] = []
    telling = False

    def stop(error: KeyboardInterrupt) -> None:
        if telling:
            send_again(error)
            return
        if isinstance(error, Ended):
            for each in before:
                again = each == error.number == signal.SIGXCPU  # it comes every second
                signal.signal(each, signal.SIG_IGN if again else signal.SIG_DFL)
        stops.append(error)
        raise error

    def end(number: int, _: object) -> None:
        stop(Ended(number))

    def interrupt(number: int, _: object) -> None:
        stop(KeyboardInterrupt())

    def send_again(error: KeyboardInterrupt) -> None:
        number = exit_code(error) - 128
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()

    def dropped(found: Any) -> None:
        nonlocal telling
        telling = True
        try:
            if isinstance(found.exc_value, KeyboardInterrupt):
                for each in before:
                    signal.signal(each, end)
                send_again(found.exc_value)
            else:
                tell(found)
        finally:
            telling = False

    tell, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
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
