"""The command line. One module per command, imported when it is asked for.

Exit codes: 0 success, 1 failure with one line that says what to do, 2 wrong usage, 130 Ctrl-C, 143
SIGTERM, 129 SIGHUP, which end a command as Ctrl-C does.
Results go to standard output, progress and logs to standard error; with `--json` standard output
is one JSON object.
"""

import errno
import importlib
import json
import os
import select
import sys
from collections.abc import Sequence

from thinkslow.cli import compilation_cache, stopping
from thinkslow.cli.common import Usage, console
from thinkslow.cli.wording import in_flags

COMMANDS = {
    "demo": "bundled agents on a 3D task, fast against slow: a table and a page",
    "train": "train an agent on an environment; stop and go on at any moment",
    "evaluate": "play an agent with and without thinking under paired seeds",
    "ensemble": "fit plausible parameters to an agent, for pig and disagreement",
    "report": "build the page of an evaluation again",
    "import": "make an agent of another project one of ours",
    "inspect": "what an agent is: sizes, spaces, provenance",
    "envs": "environments that play here, and what to install for the others",
    "doctor": "what works on this machine and how to mend what does not",
}

MODULES = {"import": "import_agent"}
"""Commands whose name no module may have."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Whoever reads standard output may stop when they have what they wanted: that is no failure.
    """
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError as error:
        return 0 if _output_is_closed() else _fail(_one_line(error), 1)
    return code


def _output_is_closed() -> bool:
    """Whether nobody reads standard output any more; what is left for it then goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0 if given else 2
    if given[0] == "--version":
        from importlib.metadata import version

        print(version("thinkslow"))
        return 0
    name, *rest = given
    if name not in COMMANDS:
        return _fail(f"A command must be one of {', '.join(COMMANDS)}; got {name!r}.", 2)
    debug = "--debug" in rest
    try:
        compilation_cache.enable()
        command = importlib.import_module(f"thinkslow.cli.{MODULES.get(name, name)}")
        with stopping.by_signals():
            result = command.run(command.parse(rest))
        if "--json" in rest:
            print(json.dumps(result))
        return 0
    except SystemExit as exit_:  # from the parser: --help, or wrong usage already explained
        return exit_.code if isinstance(exit_.code, int) else 2
    except KeyboardInterrupt as stop:
        return _fail("Stopped.", stopping.exit_code(stop))
    except Usage as error:
        return _fail(str(error), 2)
    except Exception as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        return _fail(_one_line(error), 1)


def overview() -> str:
    """What `thinkslow --help` prints."""
    lines = [f"  {name:10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: thinkslow COMMAND [OPTIONS]",
            "",
            "Give trained world-model agents time to think, and measure whether it helps.",
            "",
            *lines,
            "",
            "thinkslow COMMAND --help explains a command and its options. Start with:",
            "  thinkslow demo",
        ]
    )


def _fail(message: str, code: int) -> int:
    console().print(
        f"[bold red]thinkslow:[/] {_escape(in_flags(message))}", highlight=False, soft_wrap=True
    )
    return code


def _one_line(error: Exception) -> str:
    """The message of an expected error; an unexpected one is named and points at --debug."""
    text = " ".join(str(error).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    said = type(error).__module__ == "thinkslow.storage.atomic"  # which says what it was writing
    if full and not said:
        return (
            f"The disk is full ({text}). Free some space and run the command again; "
            "a training run goes on with --resume from its last save."
        )
    expected = (ValueError, OSError, RuntimeError)
    if isinstance(error, expected) and text and not type(error).__module__.startswith("jax"):
        return text
    return f"{type(error).__name__}: {text or 'no message'}. Pass --debug for the traceback."


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
