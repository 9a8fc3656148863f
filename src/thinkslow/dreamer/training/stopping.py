"""End a run after a signal: after the present decision, and with a save."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from thinkslow import ending
from thinkslow.dreamer.training.logs import log


class Stop:
    """Whether a signal asked the run to end, and which signal."""

    signal: int | None = None

    def raise_if_asked(self) -> None:
        """End the process as the signal would have: by `KeyboardInterrupt`, or with exit code 128 +
        n.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


@contextmanager
def stoppable(asked: Callable[[], None] = lambda: None) -> Iterator[Stop]:
    """Record the first Ctrl-C or signal that ends a job, for the training loop to check.

    The second signal ends the run at once, without a save. The third has the system's default
    effect, for code that Python cannot interrupt. Outside the main thread no signal is handled.
    `asked()` is called at the first signal.
    """
    stop = Stop()

    def handle(number: int, _: object) -> None:
        if number == signal.SIGXCPU == stop.signal:  # it comes again every second
            return
        if stop.signal is not None:
            stop.signal = number
            for each in before:
                signal.signal(each, signal.SIG_DFL)
            stop.raise_if_asked()
        stop.signal = number
        asked()
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        log.warning("%s: stopping after this decision and saving; again to stop at once.", name)

    before = {}
    try:
        for number in (signal.SIGINT, *ending.SIGNALS):
            # A run that was started with nohup continues when its terminal closes.
            heeded = number in (signal.SIGINT, signal.SIGTERM)
            if heeded or not ending.is_taken(number):
                before[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
