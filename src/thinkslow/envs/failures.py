"""Failures of an environment, as data that can cross a pipe and be stored in a record.

The cause comes first: the last line of the traceback, the place where it was raised, and whose code
that is. The whole traceback is kept too.
"""

import dataclasses
import functools
import re
import signal
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib", "stdlib")
)
OURS = Path(__file__).resolve().parents[1]
FATAL, FRAME = "Fatal Python error: ", re.compile(r'File "(.+)", line (\d+) in (.+)')
"""How Python reports the place of a crash in compiled code."""
CODE = re.compile(r"|None|-?\d+")
"""An argument of `sys.exit` that is no message."""
KEPT = 20_000
"""Number of characters of a traceback that are kept."""
MOST = 1_000
"""Number of characters of a message that are kept."""
USERS = "your code"
"""What messages call the user's code."""
OWN = "thinkslow's own code"


class Mismatch(ValueError):
    """An observation does not match the declared space; the message shows both."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why an environment did not answer."""

    call: str
    """The call that failed: `make`, `reset` or `step`."""
    kind: str
    """The exception type; `Hang` if no answer came in time, `Killed` if its process ended."""
    message: str
    where: str = ""
    """File, line and function, and whose code that is; empty if unknown."""
    traceback: str = ""
    """The whole traceback, or the last output of a process that ended."""

    @property
    def line(self) -> str:
        """Everything except the traceback in one line.

        >>> Failure("step", "KeyError", "'key'", "play.py:7 in step, your code").line
        "KeyError: 'key' (in `step`; play.py:7 in step, your code)"
        """
        message = " ".join(self.message.split())
        what = f"{self.kind}: {message}" if message else self.kind
        return f"{what} (in `{self.call}`{f'; {self.where}' if self.where else ''})"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, `line` included."""
        return dataclasses.asdict(self) | {"line": self.line}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Failure":
        """The failure that `to_json` wrote."""
        return cls(**{name: value for name, value in data.items() if name != "line"})


class Nonfinite(NamedTuple):
    """A non-finite number from an environment."""

    key: str
    """The observation's name, or `reward`."""
    environment: int
    episode: int
    """Number of the environment's episode, from 0."""
    step: int
    """Decisions before it in this episode; 0 is the first observation."""


class Failed(RuntimeError):
    """An environment cannot continue; `failure` says why, and the traceback is a note."""

    def __init__(self, message: str, failure: Failure):
        super().__init__(message)
        self.failure = failure
        if failure.traceback:
            self.add_note(failure.traceback)


def failure(error: BaseException, call: str) -> Failure:
    """The data of an exception that was caught where the environment was called."""
    text = "".join(traceback.format_exception(error))
    return Failure(call, type(error).__name__, _said(error), origin(error), text[-KEPT:])


def _said(error: BaseException) -> str:
    """The message of an exception. Its class may be anybody's."""
    try:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception as other:
        said = f"its text cannot be made ({type(other).__name__})"
    if isinstance(error, BaseExceptionGroup):  # of tasks, whose errors are the cause
        first = error.exceptions[0]
        said += f", the first of them {type(first).__name__}: {_said(first)}"
    return _short(said)


def _short(text: str) -> str:
    return text if len(text) <= MOST else f"{text[: MOST // 2]} ... {text[-MOST // 4 :]}"


def origin(error: BaseException) -> str:
    """Where an exception was raised, and whose code that is. The user's code is preferred to a
    library's.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    theirs = [frame for frame in frames if owner(frame.filename) == USERS]
    frame = (theirs or frames)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
    return f"{place}, {owner(frame.filename)}"


def ended(code: int, call: str, words: str) -> Failure:
    """The data of a process that ended unexpectedly, with its last output."""
    if code < 0:
        message = f"its process was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            message += ", as the system does when memory runs out"
    else:
        message = f"its process ended with exit code {code}"
    message += _last(words)
    frames = FRAME.findall(words) if FATAL in words else []
    theirs = [frame for frame in frames if owner(frame[0]) == USERS]
    where = ""
    for file, number, name in (theirs or frames)[:1]:  # the latest call comes first
        where = f"{Path(file).name}:{number} in {name}, {owner(file)}"
    return Failure(call, "Killed", message, where, words)


def said_before(found: Failure, words: Callable[[], str]) -> Failure:
    """The same failure; where code ended Python with a number alone, its last output tells why.

    Args:
        found: what the worker told.
        words: gives the last output of its process.
    """
    if found.kind != "SystemExit" or not CODE.fullmatch(found.message):
        return found
    code = found.message.removeprefix("None") or "0"
    return dataclasses.replace(found, message=f"exit code {code}{_last(words())}")


def _last(words: str) -> str:
    """The last line of an output that is no source, for the end of a message."""
    lines = words.strip().splitlines()
    if not lines:
        return ""
    fatal = [line for line in lines if line.startswith(FATAL)]
    # Source below a warning is indented.
    said = [line for line in lines if line.strip() and not line[0].isspace()]
    last = fatal[-1].removeprefix(FATAL) if fatal else (said or lines)[-1].strip()
    return f"; its last output: {_short(last)}"


@functools.cache
def owner(filename: str) -> str:
    """Say whose code is in a file: `USERS`, our own, Python's, or that of a package."""
    path = Path(filename)
    resolved = path.resolve() if path.is_absolute() else path
    if resolved.is_relative_to(OURS):
        return OWN
    if filename.startswith("<") or any(resolved.is_relative_to(place) for place in LIBRARIES):
        parts = resolved.parts
        if "site-packages" in parts[:-1]:
            return f"code of {parts[parts.index('site-packages') + 1].removesuffix('.py')}"
        return "Python's own code"
    return USERS
