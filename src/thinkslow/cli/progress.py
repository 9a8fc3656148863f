"""Progress of a command: a bar on a terminal, otherwise a line every 30 s."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from thinkslow.cli.common import console

if TYPE_CHECKING:
    from thinkslow.dreamer.training.episodes import Progress

LINE_EVERY = 30.0
"""Seconds between two lines without a terminal."""
LONG = 10.0
"""Seconds after which a line also says for how long nothing changed."""

log = logging.getLogger("thinkslow")

Show = Callable[["Progress"], None]


@contextmanager
def shown(*, steps: int | None, minutes: float | None) -> Iterator[Show]:
    """A callback for after each decision."""
    pace = Pace(steps, minutes)
    if not console().is_terminal:
        yield lines(pace)
        return
    from rich import progress

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.fields[rate]:>6} decisions/s"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[left]} left"),
        progress.TextColumn("score {task.fields[score]}  update {task.fields[updates]}"),
    )
    with progress.Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task("", total=steps, rate="", score="-", left="?", updates="0")

        def show(state: "Progress") -> None:
            rate, left = pace.of(state)
            bar.update(
                task,
                completed=state.steps,
                rate=rate,
                left=left,
                score=score(state),
                updates=f"{state.updates:,}",
            )

        yield show


def lines(pace: "Pace") -> Show:
    """Print a line every `LINE_EVERY` seconds."""
    said: float | None = None

    def show(state: "Progress") -> None:
        nonlocal said
        rate, left = pace.of(state)
        if said is None:  # the first decision is made; the time before was compiling
            said = time.monotonic()
        if time.monotonic() - said < LINE_EVERY:
            return
        said = time.monotonic()
        of = f" of {pace.steps:,}" if pace.steps else ""
        log.info(
            "%s%s decisions, %s updates, score %s, %s decisions/s, %s left",
            f"{state.steps:,}",
            of,
            f"{state.updates:,}",
            score(state),
            rate,
            left,
        )

    return show


class BlockLines:
    """Progress without a terminal: a line when a part begins, and then every `LINE_EVERY` seconds.
    Text after a comma is a detail of the part.

    Args:
        say: prints one line.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.part, self.line = "", "starting"
        self.began = self.said = time.monotonic()
        self.lock = threading.Lock()

    def __call__(self, what: str, done: int, total: int) -> None:
        with self.lock:
            now, part = time.monotonic(), what.partition(", ")[0]
            line = f"{what} ({done:,} of {total:,} done)"
            if line != self.line:
                self.line, self.began = line, now
            if done == total or (part == self.part and now - self.said < LINE_EVERY):
                return
            self.say(line)
            self.part, self.said = part, now

    def again(self) -> None:
        """Say what still runs, if nothing was said for `LINE_EVERY` seconds."""
        with self.lock:
            now = time.monotonic()
            if now - self.said >= LINE_EVERY:
                spent = now - self.began
                self.say(f"{self.line}, for {spent:.0f} s now" if spent >= LONG else self.line)
                self.said = now


@contextmanager
def block_lines(say: Callable[[str], None]) -> Iterator[BlockLines]:
    """`BlockLines` that also speak while nothing calls them, such as while a program compiles."""
    show, over = BlockLines(say), threading.Event()

    def speak() -> None:
        while not over.wait(LINE_EVERY / 10):
            show.again()

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield show
    finally:
        over.set()
        speaker.join()


def score(state: "Progress") -> str:
    """The score of the last episodes, with four digits."""
    return "-" if state.score is None else f"{state.score:.4g}"


class Pace:
    """The speed of a run, counted from its first decision."""

    def __init__(self, steps: int | None, minutes: float | None):
        self.steps, self.minutes = steps, minutes
        self.began: float | None = None
        self.first = 0

    def of(self, state: "Progress") -> tuple[str, str]:
        """Decisions per second, and the remaining time."""
        if self.began is None:
            self.began, self.first = time.monotonic(), state.steps
            return "?", "?"
        spent = time.monotonic() - self.began
        rate = (state.steps - self.first) / max(spent, 1e-9)
        ends = [60 * self.minutes - spent] if self.minutes else []
        ends += [(self.steps - state.steps) / rate] if self.steps and rate else []
        minutes = min(ends, default=math.nan) / 60
        left = "under 1 min" if minutes < 1 else f"{minutes:.0f} min" if ends else "?"
        return f"{rate:.3g}", left
