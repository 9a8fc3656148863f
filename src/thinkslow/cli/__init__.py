"""The command line. There is one module per command, imported when the command is used.

Exit codes: 0 success, 1 failure with one line that says what to do, 2 wrong usage, 130 Ctrl-C, 143
SIGTERM, 129 SIGHUP. These signals, SIGUSR1, SIGUSR2 and SIGXCPU end a command as Ctrl-C does.
Results go to standard output, progress and logs to standard error. With `--json` standard output
is one JSON object.
"""

import gc
import importlib
import io
import logging
import os
import re
import select
import shutil
import sys
from collections.abc import Sequence

from thinkslow import standard_streams
from thinkslow.cli import compilation_cache, huge_pages, stopping
from thinkslow.cli.failures import one_line
from thinkslow.cli.usage import Usage
from thinkslow.cli.wording import CAUSE_ALONE, as_typed, in_flags, printable
from thinkslow.registry import nearest
from thinkslow.storage import jsontext

COMMANDS = {
    "demo": "play two bundled agents with and without thinking",
    "evaluate": "play an agent with and without thinking, under paired seeds",
    "watch": "step through one episode: what an agent sees, believes and does",
    "train": "train an agent; training can be stopped and resumed at any time",
    "study": "play a study declared in advance: verdicts on its hypotheses",
    "bank": "try every action at single decisions, and judge arms there",
    "gap": "measure the errors of beliefs, before and after thinking",
    "report": "rebuild the page of an evaluation or a study",
    "arms": "list the ways to think and their parts",
    "agents": "list the bundled agents",
    "envs": "list the environments that can be played here",
    "inspect": "show an agent's sizes, spaces and provenance",
    "import": "convert a checkpoint from another DreamerV3 code base",
    "ensemble": "fit an ensemble to an agent, for pig-* and disagreement",
    "doctor": "check what works on this machine",
}

MODULES = {"import": "import_agent"}
"""Commands whose name is a Python keyword, with their module."""
LONG = re.compile(r"\S{1000,}")
"""A word, such as an id, of which a message shows the ends only."""

XLA_FATAL = "3"
"""XLA's own log: only what ends the process. Its other errors also come as exceptions, except
"Very slow compile? If you want to file a bug, ...", which a loaded machine gives after two minutes.
"""

NARROWEST = 20
"""Columns of the narrowest terminal. At a width of 0, as some terminals report, tables were not
printed at all, and at one of 1 to 3 help never ended.
"""
GARBAGE = (50_000, 20, 20)
"""Thresholds of the garbage collector in a command. Imported modules and traced programs are many
objects that stay, and looking for cycles among them took a tenth of a start.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    A reader of standard output that stops early, such as `head`, is not a failure.

    Args:
        arguments: the words of the command; None: those of this process.
    """
    if arguments is None:  # this process is the command's own
        gc.set_threshold(*GARBAGE)
        if sys.argv[1:2] == ["train"]:
            huge_pages.use()
    _repair_streams()
    if arguments is None:
        standard_streams.tolerate()
        _widen()
    try:
        code = _run(arguments)
        if arguments is None:
            gc.freeze()  # the process ends: to look for cycles once more took a tenth of its time
        sys.stdout.flush()
    except BrokenPipeError as error:
        return 0 if _output_is_closed() else _fail(one_line(error), 1)
    return code


def _repair_streams() -> None:
    """Let output that is closed be discarded, and letters that its encoding lacks be escaped."""
    standard_streams.reserve()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _widen() -> None:
    """Write as if for `NARROWEST` columns where there are fewer."""
    width = shutil.get_terminal_size().columns
    if width < NARROWEST or os.environ.get("COLUMNS", "80").strip("0") == "":
        os.environ["COLUMNS"] = str(max(width, NARROWEST))


def _output_is_closed() -> bool:
    """Whether the reader of standard output is gone; further output is then discarded."""
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
    if given[0] in ("--version", "-V", "-v", "version"):
        from importlib.metadata import version

        print(version("thinkslow"))
        return 0
    if given[0] == "help":  # as git has it: help COMMAND
        given = [*given[1:2], "--help"]
        if len(given) == 1:
            print(overview())
            return 0
    name, *rest = given
    if name not in COMMANDS:
        return _fail(f"There is no command {name!r}{nearest(name, COMMANDS)}", 2)
    try:
        os.getcwd()
    except FileNotFoundError:
        return _fail("The working folder was deleted. Change to one that exists (cd).", 1)
    debug = "--debug" in rest
    if not debug:  # JAX's GPU plugin logs a long message if there is no GPU
        logging.getLogger("jax._src.xla_bridge").addFilter(CAUSE_ALONE)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", XLA_FATAL)
    logger = logging.getLogger("thinkslow")
    level = logger.level
    if debug:  # with the tracebacks of environments, which the command survives
        logger.setLevel(logging.DEBUG)
    try:
        compilation_cache.enable()
        command = importlib.import_module(f"thinkslow.cli.{MODULES.get(name, name)}")
        with stopping.by_signals():
            result = command.run(command.parse(rest))
        if "--json" in rest:
            print(jsontext.dumps(result))
        return 0
    except SystemExit as exit_:  # from the parser: --help, or wrong usage already explained
        return exit_.code if isinstance(exit_.code, int) else 2
    except KeyboardInterrupt as stop:
        unwritten = stop.__cause__  # what was played could not be stored after the signal
        also = f" {as_typed(one_line(unwritten), rest)}" if isinstance(unwritten, OSError) else ""
        return _fail(f"Stopped.{also}", stopping.exit_code(stop))
    except Usage as error:
        return _fail(as_typed(str(error), rest), 2)
    except Exception as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        return _fail(as_typed(one_line(error), rest), 1)
    finally:
        logger.setLevel(level)


def overview() -> str:
    """What `thinkslow --help` prints."""
    lines = [f"  {name:10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: thinkslow COMMAND [OPTIONS]",
            "",
            "Give a trained world-model agent time to think, and measure whether it helps.",
            "",
            *lines,
            "",
            "`thinkslow COMMAND --help` explains a command and shows examples.",
            "",
            "examples:",
            "  thinkslow demo",
            "  thinkslow evaluate collect-good --arms none,evidence,control-soft",
            "  thinkslow train thinkslow/CollectGoodObjects-v0 --minutes 30 --run runs/first",
        ]
    )


def _fail(message: str, code: int) -> int:
    short = LONG.sub(lambda word: f"{word[0][:200]} ... {word[0][-200:]}", in_flags(message))
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    coloured = sys.stderr.isatty() and not plain
    start = "\x1b[1;31mthinkslow:\x1b[0m" if coloured else "thinkslow:"
    print(start, printable(short), file=sys.stderr)
    return code
