"""Translate messages of the library to flags of the command line.

The library names Python arguments, `repeat=1` or `wrappers=["module:Class"]`. On the command line
these are --repeat 1 or --wrapper module:Class.
"""

import logging
import re
from collections.abc import Sequence

ASSIGNED = re.compile(r"`([a-z_]+)=([^`]*)`")
OTHERWISE = {
    "environment": "env",
    "id": "env",
    "wrappers": "wrapper",
    "options": "env-option",
    "environments": "envs",
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


def typed(arguments: Sequence[str]) -> dict[str, str]:
    """The flags on a command line as they were typed, by the name of their field.

    >>> typed(["CartPole-v1", "--step_limit=9", "--learning.batch-size", "4"])
    {'step_limit': '--step_limit', 'batch_size': '--learning.batch-size'}
    """
    flags = [one.partition("=")[0] for one in arguments if re.match("--[a-z]", one)]
    return {flag.lstrip("-").rpartition(".")[2].replace("-", "_"): flag for flag in flags}


def as_typed(text: str, arguments: Sequence[str]) -> str:
    """The message with the flags of a command line as they were typed.

    `image` stays as it is: it is also the name of an observation.

    >>> as_typed("`step_limit` must be above 0. Pass --step-limit 60.", ["--step_limit", "0"])
    '--step_limit must be above 0. Pass --step_limit 60.'
    >>> as_typed("`environments` must be 1 or more.", ["--envs", "0"])
    '--envs must be 1 or more.'
    """
    for field, flag in typed(arguments).items():
        plain = flag.replace("_", "-")
        for name in (field, *(name for name, other in OTHERWISE.items() if f"--{other}" == plain)):
            if name != "image":
                text = text.replace(f"`{name}`", flag)
        if flag != plain:
            text = re.sub(rf"{re.escape(plain)}(?![\w-])", flag, text)
    return text


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
