"""Signals and Ctrl-C end a command, whatever it does, with one line."""

import errno
import importlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from commands import one_line
from helpers import slow

from thinkslow.cli import inspect, main, stopping
from thinkslow.storage import store


def test_ctrl_c_ends_with_130_and_one_line(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "run", interrupted)
    assert main(["inspect", "agent"]) == 130
    assert one_line(capsys) == "thinkslow: Stopped."


ENDING = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", ENDING)
def test_other_signals_end_a_command_as_ctrl_c_does(number, monkeypatch, capsys):
    """SIGTERM ended an evaluation on the spot, without a word of where its episodes are."""
    ended = []

    def told(options):
        try:
            signal.raise_signal(number)
        finally:
            ended.append(True)

    monkeypatch.setattr(inspect, "run", told)
    before = signal.getsignal(number)
    assert main(["inspect", "agent"]) == 128 + number
    assert one_line(capsys) == "thinkslow: Stopped."
    assert ended
    assert signal.getsignal(number) == before


def test_a_command_under_nohup_goes_on_when_its_terminal_closes(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(inspect, "run", lambda _: signal.raise_signal(signal.SIGHUP))
    try:
        assert main(["inspect", "agent"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("where", ["destructor", "hook"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_python_drops_is_not_lost(number, where, monkeypatch, capsys):
    """A bank went on after SIGHUP, with a traceback, as if nothing had been sent.

    So did a command whose signal came while Python told of an exception that it had dropped.
    """

    class Met:
        def __del__(self) -> None:
            if where == "hook":
                raise ValueError
            signal.raise_signal(number)

    def told(options):
        Met()
        time.sleep(5)

    monkeypatch.setattr(sys, "unraisablehook", lambda found: signal.raise_signal(number))
    monkeypatch.setattr(inspect, "run", told)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run may ignore it
    try:
        assert main(["inspect", "agent"]) == 128 + number
    finally:
        signal.signal(signal.SIGINT, before)
    assert one_line(capsys) == "thinkslow: Stopped."


def test_a_dropped_signal_is_not_lost_where_threads_start_slowly(monkeypatch, capsys):
    """It was sent again before the hook was left, and dropped for good."""

    class Met:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def told(options):
        Met()
        time.sleep(5)

    start = threading.Timer.start

    def slowly(timer: threading.Timer) -> None:
        start(timer)
        if not slow:
            slow.append(timer)
            time.sleep(0.3)

    slow: list[threading.Timer] = []
    monkeypatch.setattr(threading.Timer, "start", slowly)
    monkeypatch.setattr(inspect, "run", told)
    assert main(["inspect", "agent"]) == 128 + signal.SIGTERM
    assert one_line(capsys) == "thinkslow: Stopped."


def interrupted(when: str, *words: str) -> list[str]:
    """A command whose process runs `when` before its first line, and heeds Ctrl-C, which a test run
    in the background ignores.
    """
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    start = "from thinkslow.__main__ import main; sys.exit(main())"
    return [sys.executable, "-c", f"{heed}\n{when}\n{start}", *words]


def test_ctrl_c_once_more_at_the_end_shows_no_traceback():
    """It showed that of JAX's clean-up."""
    press = "import atexit; atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    command = interrupted(press, "--version")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


PRESS_ONCE = """
pressed = int(os.environ["PRESSED"])
class Press:
    def find_spec(self, *_):
        global pressed
        pressed -= 1
        if not pressed:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
"""


def test_ctrl_c_at_any_import_of_a_start_shows_no_traceback():
    """In the first tenth of a second it showed that of an import."""
    command, ends = interrupted(PRESS_ONCE, "arms", "--help"), []
    for pressed in itertools.count(3, 12):  # 1 and 2 load the entry
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**os.environ, "PRESSED": str(pressed)},
            check=False,
        )
        if not done.returncode:
            break
        ends.append((done.returncode, done.stdout, done.stderr))
    assert len(ends) > 5
    assert set(ends) <= {(-signal.SIGINT, "", ""), (130, "", "thinkslow: Stopped.\n")}


@pytest.mark.slow
def test_a_real_interrupt_ends_a_command_with_130(tmp_path):
    """The signal arrives while the command waits for a file that never ends."""
    folder = tmp_path / "agent"
    folder.mkdir()
    os.mkfifo(folder / store.MANIFEST)
    # A test run in the background ignores interrupts, and its children with it. A pipe is refused
    # as a manifest, so that waiting for one is put in the place of reading.
    waits = (
        "from thinkslow.storage import store; "
        "store.read_manifest = lambda folder: (folder / store.MANIFEST).read_bytes()"
    )
    with subprocess.Popen(
        interrupted(waits, "inspect", str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            pipe = opened_by_reader(folder / store.MANIFEST)
            # A signal that comes between Python's look for one and its wait is seen only after
            # the wait, which is why users press Ctrl-C again.
            for _ in range(6):
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)
                    break
            out, err = process.communicate(timeout=5)
            os.close(pipe)
        finally:
            process.kill()
    assert (process.returncode, out, err.strip()) == (130, "", "thinkslow: Stopped.")


def opened_by_reader(path: Path) -> int:
    """The writing end of a named pipe, once someone reads it."""
    for _ in range(600):
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.05)
    raise TimeoutError(f"Nobody read {path} within 30 s.")


@pytest.mark.parametrize("given", [slow("out"), "."])
def test_an_interrupted_evaluation_says_where_its_episodes_are(
    original, tmp_path, monkeypatch, capsys, given
):
    """The working folder has no name to be numbered, and was refused as a `PosixPath`."""
    monkeypatch.chdir(tmp_path)

    def interrupted(*_: object, out: Path, **__: object) -> None:
        out.mkdir(exist_ok=True)
        (out / "evaluation.json").touch()
        (out / "episodes.jsonl").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(
        importlib.import_module("thinkslow.evaluation.protocol"), "evaluate", interrupted
    )
    assert main(["evaluate", str(original), "--out", given]) == 130
    assert str(Path(given, "episodes.jsonl")) in "".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_became_an_error_still_ends_a_command(number):
    """Ctrl-C while NumPy was imported ended a command with an ImportError and exit code 1."""

    def stopped():
        with stopping.by_signals():
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt:
                raise ImportError("an error while initializing the extension") from None

    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a command starts
    try:
        with pytest.raises(KeyboardInterrupt) as stop:
            stopped()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopping.exit_code(stop.value) == 128 + number


def test_what_cannot_be_written_after_a_signal_is_told(monkeypatch, capsys):
    """A disk that was full when `watch` wrote what it had played was told as "Stopped." alone."""

    def run(options):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise OSError(errno.ENOSPC, "No space left on device", "player.html") from None

    monkeypatch.setattr(inspect, "run", run)
    assert main(["inspect", "agent"]) == 128 + signal.SIGTERM
    assert "Stopped. The disk is full" in one_line(capsys)


def test_a_limit_of_processor_time_ends_a_command_once():
    """The system sends SIGXCPU again every second, also while the command saves."""

    def stopped():
        with stopping.by_signals():
            try:
                signal.raise_signal(signal.SIGXCPU)
            finally:
                signal.raise_signal(signal.SIGXCPU)

    with pytest.raises(stopping.Ended):
        stopped()
