"""Translate messages of the library to flags of the command line.

The library names Python arguments, `repeat=1` or `wrappers=["module:Class"]`. On the command line
these are --repeat 1 or --wrapper module:Class.
"""

import logging
import re

ASSIGNED = re.compile(r"`([a-z_]+)=([^`]*)`")
OTHERWISE = {
    "environment": "env",
    "id": "env",
    "wrappers": "wrapper",
    "options": "env-option",
    "learning_rate": "learning.learning-rate",
    "batch_size": "learning.batch-size",
    "replay_capacity": "learning.replay-capacity",
}
"""Arguments whose flag has another name."""


def in_flags(text: str) -> str:
    """The message with flags instead of arguments.

    >>> in_flags("Pass `repeat=1`, or `allow_nonfinite=True`.")
    'Pass --repeat 1, or --allow-nonfinite.'
    >>> in_flags('Wrap it: `wrappers=["module:Class"]`. Give it: `options={"NAME": VALUE}`')
    'Wrap it: --wrapper module:Class. Give it: --env-option NAME=VALUE'
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found[1], found[2].strip("[](){}").replace('": ', "=").replace('"', "")
        name = OTHERWISE.get(name, name.replace("_", "-"))
        return f"--{name}" if value == "True" else f"--{name} {value}"

    return ASSIGNED.sub(flag, text)


def printable(text: str) -> str:
    r"""The text without the escape codes that foreign names and messages may contain.

    >>> printable("a\x1b]0;b\x07\nc")
    'a?]0;b?\nc'
    """
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


class InFlags(logging.Formatter):
    """A formatter that translates log messages and removes escape codes."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(in_flags(super().format(record)))


class CauseAlone(logging.Filter):
    """One line instead of a traceback: what was being done, and the error."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            error = " ".join(str(record.exc_info[1]).split())
            record.msg, record.args = f"{record.msg % record.args}: {error}", ()
            record.exc_info = record.exc_text = None
        return True


CAUSE_ALONE = CauseAlone()
