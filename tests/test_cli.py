"""The command line: what goes where, exit codes, and one clear line for every error."""

import dataclasses
import errno
import importlib
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import slow
from jax.errors import JaxRuntimeError

from thinkslow.cli import COMMANDS, doctor, inspect, main, stopping
from thinkslow.envs import families, trial
from thinkslow.envs.families import atari
from thinkslow.envs.families.family import Family
from thinkslow.storage import lock, store

THINKSLOW = (sys.executable, "-m", "thinkslow")
"""The command in a process of its own."""


@pytest.fixture(scope="module")
def original(dreamer, tmp_path_factory) -> Path:
    """A random agent."""
    from thinkslow.saved import folder as checkpoint

    folder = tmp_path_factory.mktemp("agents") / "random"
    checkpoint.save(
        folder,
        dreamer,
        name="random",
        environment={"id": "thinkslow/CollectGoodObjects-v0", "size": 16, "repeat": 1},
        training={"steps": 0, "seed": 0, "preset": "none"},
    )
    return folder


@pytest.fixture
def agent(original, tmp_path) -> Path:
    """A copy to damage."""
    folder = tmp_path / "agent"
    folder.mkdir()
    for name in (store.WEIGHTS, store.MANIFEST):
        (folder / name).write_bytes((original / name).read_bytes())
    return folder


def missing(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def without_weights(folder: Path) -> None:
    (folder / store.WEIGHTS).unlink()


def truncated(folder: Path) -> None:
    path = folder / store.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def altered(folder: Path) -> None:
    path = folder / store.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def truncated_manifest(folder: Path) -> None:
    path = folder / store.MANIFEST
    path.write_text(path.read_text()[:200])


DAMAGES = {
    missing: "There is no file, folder or bundled agent",
    without_weights: store.WEIGHTS,
    truncated: "truncated",
    altered: "altered",
    truncated_manifest: "not JSON",
}


def one_line(capsys) -> str:
    """The only line on standard error; standard output must be empty."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("thinkslow: ")
    return lines[0]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_the_overview_names_every_command(arguments, capsys):
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(f"  {name} " in out for name in COMMANDS)


def test_no_command_shows_the_overview_as_wrong_usage(capsys):
    assert main([]) == 2
    assert "usage: thinkslow COMMAND" in capsys.readouterr().out


def test_a_name_of_thousands_of_letters_does_not_fill_the_terminal(capsys):
    assert main(["inspect", "x" * 5000]) == 1
    said = one_line(capsys)
    assert "xxx ... xxx" in said
    assert len(said) < 700


def test_an_unknown_command_is_wrong_usage_and_lists_the_known(capsys):
    assert main(["xyzzy"]) == 2
    line = one_line(capsys)
    assert "'xyzzy'" in line
    assert all(name in line for name in COMMANDS)


@pytest.mark.parametrize("arguments", [["--version"], ["-V"], ["version"]])
def test_version_is_that_of_the_installed_package(arguments, capsys):
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--episodes", "1"], "--episodes must be 2 or more; got 1."),
        (["evaluate"], "Say which agent"),
        (["evaluate", "a", "--episodes", "1"], "--episodes must be 2 or more"),
        (["evaluate", "a", "--batch", "0"], "--batch must be 1 or more; got 0."),
        (["evaluate", "a", "--resume", "--out", "no/such"], "no/such holds none"),
        (["evaluate", "a", "--arms", "hard"], "There is no arm 'hard'"),
        (["evaluate", "a", "--steps", "-1"], "--steps must be 0 or more; got -1."),
        (["evaluate", "a", "--horizon", "0"], "--horizon must be 1 or more; got 0."),
        (["evaluate", "a", "--arms", "sgi-3"], "Did you mean sig-3"),
        (["evaluate", "a", "--import", "no_such_module"], "No module named 'no_such_module'"),
        (["evaluate", "a", "--max-kl", "-2"], "--max-kl must be 0 or more; got -2.0."),
        (["evaluate", "a", "--max-kl", "nan"], "--max-kl must be 0 or more; got nan."),
        (["train"], "pass --steps N or --minutes M"),
        (["train", "some/Env-v0", "--steps", "0"], "--steps must be above 0; got 0."),
        (["train", "some/Env-v0", "--minutes", "-1"], "--minutes must be above 0; got -1.0."),
        (["train", "--steps", "9"], "Say what to play"),
        (["evaluate", "a", "--real-time", "0"], "--real-time must be above 0; got 0.0."),
        (["bank", "a", "--wrapper", "Frame"], "--wrapper must be MODULE:CLASS; got 'Frame'."),
        (["ensemble", "a", "--step-limit", "-1"], "--step-limit must be above 0; got -1.0."),
        (["watch", "a", "--shift", "nois:1"], "There is no shift 'nois'"),
        (["train", "some/Env-v0", "--steps", "9", "--preset", "huge"], "no preset 'huge'"),
    ],
)
def test_an_impossible_value_is_refused_in_one_line(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in one_line(capsys)


@pytest.mark.slow
def test_an_unknown_update_lists_the_known():
    """In a process of its own, without the type checks that the tests add."""
    done = subprocess.run(
        [*THINKSLOW, "evaluate", "a", "--update", "leap"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "leap" in done.stderr
    assert "mirror" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "a", "--episodes", "many"], "--episodes: must be a whole number"),
        (["train", "a", "--budgets", "5", "x"], "--budgets: must be a whole number"),
        (["train", "a", "--learning.return-percentiles", "5", "x"], "must be a number, such as"),
        (
            ["evaluate", "a", "s3://bucket/run"],
            "AGENT ...: A path must be on this machine; got the",
        ),
        (["evaluate", ""], "AGENT ...: must be a path; got ''"),
    ],
)
def test_what_is_wrong_with_a_value_is_said_for_one_and_for_several(arguments, said, capsys):
    """Of several it was "Could not find valid parse for arguments", whatever was wrong."""
    assert main(arguments) == 2
    assert said in " ".join(capsys.readouterr().err.replace("|", " ").split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["inspect", "agent", "--no-such-flag"],
        ["evaluate", "agent", "--episodes", "many"],
        ["demo", "--seed", "1.5"],
    ],
)
def test_the_parser_refuses_what_it_cannot_read(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err


@pytest.mark.parametrize("command", ["inspect", slow("evaluate")])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_agent_is_one_line_that_says_what_is_wrong(
    command, damage, agent, tmp_path, capsys
):
    damage(agent)
    out = [] if command == "inspect" else ["--out", str(tmp_path / "out")]
    assert main([command, str(agent), *out]) == 1
    line = one_line(capsys)
    assert DAMAGES[damage] in line
    assert str(agent) in line
    assert not (tmp_path / "out").exists()


def test_an_agent_of_another_shape_names_the_array_and_both_shapes(agent, capsys):
    weights, manifest = store.read(agent)
    manifest["model"]["deter"] = 64
    store.write(agent, weights, manifest)
    assert main(["evaluate", str(agent)]) == 1
    assert "is (4, 8, 24), expected (4, 16, 48)" in one_line(capsys)


def test_inspect_counts_the_parameters(original, capsys):
    assert main(["inspect", str(original), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    weights, _ = store.read(original)
    assert facts["parameters"]["total"] == sum(np.size(array) for array in weights.values())
    assert facts["environment"]["id"] == "thinkslow/CollectGoodObjects-v0"
    assert "weights" not in facts


def test_inspect_prints_a_table_for_people(original, capsys):
    assert main(["inspect", str(original)]) == 0
    assert "parameters total" in capsys.readouterr().out


def test_json_is_exactly_one_object_on_standard_output(original):
    """In a process of its own, so that nothing that a library prints goes unseen."""
    done = subprocess.run(
        [*THINKSLOW, "inspect", str(original), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert isinstance(json.loads(done.stdout), dict)
    assert len(done.stdout.splitlines()) == 1


def test_ctrl_c_ends_with_130_and_one_line(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "run", interrupted)
    assert main(["inspect", "agent"]) == 130
    assert one_line(capsys) == "thinkslow: Stopped."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "nan"], "--minutes must be a number"),
        (["--steps", "9", "--save-every", "nan"], "--save-every must be a number"),
        (["--steps", "9", "--save-every", "0"], "--save-every must be above 0"),
        (["--steps", "9", "--seed", "-1"], "--seed must be between 0"),
    ],
)
def test_numbers_that_no_run_can_have_are_wrong_usage(words, said, capsys):
    """A run of `nan` minutes had no end, and one saved each `nan` seconds no save."""
    assert main(["train", "CartPole-v1", *words]) == 2
    assert said in one_line(capsys)


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


@pytest.mark.parametrize(("columns", "command"), [("0", ["agents"]), ("2", ["report", "--help"])])
def test_a_terminal_without_width_shows_what_is_printed(columns, command):
    """With no column tables were not printed, and with three help never ended."""
    narrow = {**os.environ, "COLUMNS": columns}
    done = subprocess.run([*THINKSLOW, *command], capture_output=True, env=narrow, check=True)
    assert done.stdout.strip()


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


def test_a_run_in_place_of_an_agent_points_at_its_newest(original, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "agents").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert main(["inspect", str(run)]) == 1
    assert "there is none yet" in one_line(capsys)
    (run / "agents" / ".70.tmp-1").mkdir()  # one that is being written
    assert main(["inspect", str(run)]) == 1
    assert "there is none yet" in one_line(capsys)
    shutil.copytree(original, run / "agents" / "60")
    assert main(["evaluate", str(run)]) == 1
    assert str(run / "agents" / "60") in one_line(capsys)


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


def test_a_full_disk_says_how_to_go_on(monkeypatch, capsys):
    def full(options):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/first/metrics.jsonl")

    monkeypatch.setattr(inspect, "run", full)
    assert main(["inspect", "agent"]) == 1
    said = one_line(capsys)
    assert "The disk is full" in said
    assert "metrics.jsonl" in said
    assert "run the command again" in said


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EROFS, "allow access"), (errno.ENOTDIR, "Give another path.")]
)
def test_an_error_of_the_system_is_told_without_its_number(number, remedy, monkeypatch, capsys):
    def barred(options):
        raise OSError(number, os.strerror(number), "/media/out")

    monkeypatch.setattr(inspect, "run", barred)
    assert main(["inspect", "agent"]) == 1
    said = one_line(capsys)
    assert said.startswith(f"thinkslow: /media/out: {os.strerror(number)}. ")
    assert remedy in said
    assert "Errno" not in said


def test_an_option_that_does_not_exist_is_told_before_the_folder_it_differs_from(resumed, capsys):
    """The line was a list of all settings in which a misspelt option made the run another."""
    folder, _ = resumed
    command = ["train", "CartPole-v1", "--run", str(folder), "--steps", "9", "--env-option"]
    assert main([*command, "suton=true"]) == 1
    assert "CartPole-v1 has no option suton. It accepts sutton_barto_reward" in one_line(capsys)
    assert main([*command, "sutton_barto_reward=true"]) == 1
    assert "holds a run already" in one_line(capsys)


@pytest.mark.parametrize(
    "words",
    [
        "watch AGENT --out OUT",
        "gap AGENT --arms none --out OUT",
        "bank AGENT --out OUT",
        "ensemble OUT",
        "import FOREIGN OUT",
        "report OUT",
        "study quick --out OUT",
    ],
)
def test_whatever_writes_a_folder_is_refused_while_another_does(words, original, agent, capsys):
    """Two that wrote one agent's ensemble left a manifest that named a deleted file."""
    foreign = Path(__file__).parent / "data" / "golden" / "danijar_main-b"
    places = {"AGENT": original, "OUT": agent, "FOREIGN": foreign}
    before = sorted(os.listdir(agent))
    held = lock.claim(agent)
    try:
        assert main([str(places.get(word, word)) for word in words.split()]) == 1
    finally:
        held.release()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"thinkslow: {agent} is in use: process {os.getpid()} on this machine")
    assert sorted(os.listdir(agent)) == before


def test_a_study_is_refused_before_its_time_is_measured(tmp_path, capsys):
    """A folder that could not be written was found after minutes of playing."""
    (tmp_path / "file").touch()
    assert main(["study", "quick", "--out", str(tmp_path / "file")]) == 1
    err = capsys.readouterr().err
    assert "File exists" in err
    assert "estimate the time" not in err


def test_an_unexpected_error_is_named_and_points_at_debug(monkeypatch, capsys):
    def broken(options):
        raise KeyError("gone")

    monkeypatch.setattr(inspect, "run", broken)
    assert main(["inspect", "agent"]) == 1
    # It may have arisen in a part of the user's, which is named by its line.
    said = one_line(capsys)
    assert said.startswith("thinkslow: KeyError: 'gone' (test_cli.py:")
    assert said.endswith(", in broken). Pass --debug for the traceback.")
    with pytest.raises(KeyError):
        main(["inspect", "agent", "--debug"])


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 9 TiB"), JaxRuntimeError("RESOURCE_EXHAUSTED: Out of 9 TiB")],
)
def test_memory_that_is_not_enough_is_told_with_what_to_lower(monkeypatch, capsys, error):
    def large(options):
        raise error

    monkeypatch.setattr(inspect, "run", large)
    assert main(["inspect", "agent"]) == 1
    assert re.search(r"not enough memory \(.*9 TiB\).*--batch.*--learning\.batch", one_line(capsys))


def test_a_plugin_of_jax_that_fails_is_one_line(caplog, capsys):
    """Where JAX for GPUs is installed and no GPU is there, it printed a page."""
    assert main(["agents", "--json"]) == 0
    try:
        raise RuntimeError("cuInit failed:\nno device")
    except RuntimeError:
        logging.getLogger("jax._src.xla_bridge").exception("calling %s.initialize()", "jax_cuda")
    assert caplog.records[-1].exc_info is None
    assert "calling jax_cuda.initialize(): cuInit failed: no device" in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("JAX_DEBUG_NANS", "1", FloatingPointError("invalid value (nan) encountered in stage")),
        ("JAX_TRANSFER_GUARD", "disallow", JaxRuntimeError("Disallowed host-to-device transfer")),
    ],
)
def test_a_variable_that_makes_jax_strict_is_named(monkeypatch, capsys, name, value, refused):
    """Only the function of ours was named, or the shape of an array."""

    def run(options):
        raise refused

    monkeypatch.setattr(inspect, "run", run)
    assert main(["inspect", "agent"]) == 1
    assert name not in one_line(capsys)
    monkeypatch.setenv(name, {"1": "False", "disallow": "allow"}[value])
    assert main(["inspect", "agent"]) == 1
    assert name not in one_line(capsys), "a usual value was named"
    monkeypatch.setenv(name, value)
    assert main(["inspect", "agent"]) == 1
    assert f"because of {name}={value}: unset it" in one_line(capsys)


@pytest.mark.parametrize("fails", ["assert None", "raise RuntimeError('no backend rocm')"])
def test_a_device_that_jax_does_not_have_is_named(monkeypatch, capsys, fails):
    """It was "AssertionError: no message", and for `gpu` only that there is no rocm."""
    bridge = compile(f"def run(options):\n    {fails}\n", "jax/_src/xla_bridge.py", "exec")
    exec(bridge, found := {})
    monkeypatch.setattr(inspect, "run", found["run"])
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert main(["inspect", "agent"]) == 1
    assert "no device of JAX_PLATFORMS=cuda. Unset" in one_line(capsys)


def test_what_xla_says_to_its_own_developers_needs_debug(monkeypatch):
    """On a loaded machine it asked the user to file a bug, because compiling took two minutes."""
    for flags, level in ((["--debug"], None), ([], "3")):
        monkeypatch.setattr(os, "environ", {**os.environ})
        os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
        assert main(["agents", "--json", *flags]) == 0
        assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == level


def test_brackets_in_a_message_are_printed_as_they_are(monkeypatch, capsys):
    def broken(options):
        raise ValueError("`shape` must be [64, 64]; got [red].")

    monkeypatch.setattr(inspect, "run", broken)
    assert main(["inspect", "agent"]) == 1
    assert one_line(capsys).startswith("thinkslow: `shape` must be [64, 64]; got [red]")


def test_every_public_name_is_there():
    import thinkslow

    for name in thinkslow.__all__:
        assert getattr(thinkslow, name) is not None
    assert set(thinkslow.__all__) <= set(dir(thinkslow))
    with pytest.raises(AttributeError, match="nonsense") as raised:
        _ = thinkslow.nonsense
    assert raised.value.obj is thinkslow  # Python then names the nearest


@pytest.fixture
def healthy(monkeypatch):
    """A machine on which everything that takes long is fine."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)  # doctor reads it
    fine = doctor.Finding("renderer", True, "drew a frame")
    monkeypatch.setattr(doctor, "drawing", lambda limit_s: [fine])
    monkeypatch.setattr(doctor, "agents", lambda: [])


def test_doctor_says_that_the_demo_can_run(healthy, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "can run here" in out
    assert "No GPU" in out


def test_doctor_prints_one_object(healthy, capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is True
    assert {one["what"] for one in report["findings"]} >= {"python", "jax", "renderer", "disk"}


@pytest.mark.parametrize("flags", [[], slow(["--json"])])
def test_doctor_names_missing_debian_packages_and_the_command(flags, healthy, monkeypatch, capsys):
    from thinkslow.envs import rendering

    monkeypatch.undo()
    monkeypatch.setattr(rendering, "missing_packages", lambda: ["libegl1", "libgl1"])
    assert main(["doctor", *flags]) == 1
    out = capsys.readouterr().out
    assert "sudo apt-get install -y libegl1 libgl1" in out
    if flags:
        assert json.loads(out)["works"] is False


def test_doctor_survives_a_renderer_that_crashes(monkeypatch):
    monkeypatch.setattr(trial, "CALL", "import os; os.abort()")
    found = doctor.renderer(60.0)
    assert not found.ok
    assert "SIGABRT" in found.found
    assert "apt-get" in found.remedy
    monkeypatch.setattr(trial, "CALL", "import time; time.sleep(1000)")
    assert "no step within 0.5 s" in doctor.renderer(0.5).found
    monkeypatch.setattr(trial, "CALL", "print('not JSON')")
    assert not doctor.renderer(60.0).ok


def test_doctor_steps_every_family_and_names_what_mends_it(monkeypatch):
    def family(name: str, example: str, **given: Any) -> Family:
        plain = dataclasses.replace(atari.FAMILY, module="json", registers=None, repeats=None)
        return dataclasses.replace(plain, name=name, example=example, packages=name, **given)

    ways = (
        family("sound", "CartPole-v1"),
        family("sunk", "tiny_envs:tiny/Unborn-v0"),
        family("bare", "CartPole-v1", pattern="CartPole", libraries={"libgone.so": "libgone1"}),
    )
    monkeypatch.setattr(families, "FAMILIES", (*ways, dataclasses.replace(ways[0], module="gone")))
    monkeypatch.setattr(doctor, "renderer", lambda limit_s: doctor.Finding("renderer", True, ""))
    found = {one.what: one for one in doctor.drawing(60.0) if one.what.startswith("family")}
    assert found["family sound"].ok
    assert "3 steps of CartPole-v1" in found["family sound"].found
    assert "no memory for the map" in found["family sunk"].found
    assert found["family sunk"].remedy
    assert trial.tried("CartPole-v1", 0.01).found == "no step within 0.01 s"


def test_doctor_finds_an_altered_bundled_agent(agent, monkeypatch):
    from thinkslow import zoo

    altered(agent)
    monkeypatch.setattr(zoo, "FOLDER", agent.parent)
    monkeypatch.setattr(zoo, "DEMO", (agent.name,))
    (found,) = doctor.agents()
    assert found.needed
    assert not found.ok
    assert "altered" in found.found


def test_doctor_warns_of_a_full_disk_but_the_demo_can_run(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOM", 1e9)
    found = doctor.disk(tmp_path)
    assert not found.ok
    assert not found.needed


def test_terms_of_ones_own_replace_the_objective_of_every_arm_that_refines():
    from thinkslow.cli import evaluate

    options = evaluate.parse(["agent", "--arms", "sig-3,control-mode", "--terms", "2*evidence,sig"])
    arms = evaluate.chosen(options)
    changed = arms["sig-3+terms=2*evidence,sig"]
    weights = {term.name: weight for term, weight in changed.thinking.terms}
    assert weights == {"evidence": 2.0, "sig": 1.0}
    assert arms["control-mode"].thinking.terms == ()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--terms", "much*sig"], "A weight must be a finite number; got 'much'"),
        (["--terms", "surprise"], "There is no term 'surprise'"),
        (["--max-kl", "-1"], "--max-kl must be 0 or more; got -1.0"),
        (["--update", "gradient:big"], "must be a number; got 'big'"),
        (["--members", "noise:many"], "must be a number; got 'many'"),
        (["--deadline-ms", "-1"], "--deadline-ms must be 0 or more; got -1.0"),
        (["--deadline-ms", "9", "--gate", "entropy"], "goes with neither a --gate nor `particles`"),
    ],
)
def test_impossible_thinking_is_wrong_usage(flags, complaint, capsys):
    assert main(["evaluate", "collect-half", "--arms", "sig-3", *flags]) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_an_unknown_preset_is_wrong_usage(capsys):
    assert main(["train", "--preset=huge", "--minutes", "1"]) == 2
    assert "Available: " in one_line(capsys)


@pytest.fixture
def resumed(tmp_path, monkeypatch):
    """A folder with a run of CartPole, and what it is continued with."""
    from thinkslow.dreamer.config import model_preset, train_preset
    from thinkslow.dreamer.training import run
    from thinkslow.dreamer.training.trainer import Trainer

    class Resumed(Exception):
        pass

    def resume(folder, changes):
        seen.update(changes)
        raise Resumed(folder)

    seen: dict[str, Any] = {}
    config = run.RunConfig(
        "CartPole-v1", seed=3, environments=2, making={"options": {"fog": False}}, step_limit=90.0
    )
    learning = dataclasses.replace(train_preset("tiny"), batch_size=4)
    described = run.describe(config, model_preset("tiny"), learning, {}, {})
    (tmp_path / "config.json").write_text(described)
    monkeypatch.setattr(Trainer, "resume", resume)
    return tmp_path, seen


def test_a_run_may_continue_with_other_limits(resumed, capsys):
    """A run could not be given more time for a slow simulator."""
    folder, seen = resumed
    command = ["train", "--resume", "--run", str(folder), "--steps", "9"]
    flags = ["--reset-limit", "1200", "--budgets", "5", "--save-every", "7", "--csv", "--seed", "3"]
    assert main([*command, *flags]) == 1
    assert "Resumed" in one_line(capsys)
    assert seen == {"reset_limit": 1200, "step_limit": 90, "budgets": (5,), "save_every": 7}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--seed=0", "--seed is 3, not 0"),
        ("--envs=4", "--envs is 2, not 4"),
        ("--env_option=fog=True", "--env_option is {'fog': False}, not {'fog': True}"),
        ("--learning.batch-size=8", "--learning.batch-size is 4, not 8"),
        ("--learning.batch_size=8", "--learning.batch_size is 4, not 8"),
        ("Pendulum-v1", "is CartPole-v1, not Pendulum-v1"),
        ("--step_limit=0", "--step_limit must be above 0"),
    ],
)
def test_what_is_learnt_may_not_change_and_flags_are_named_as_typed(typed, said, resumed, capsys):
    """The default, such as seed 0, was ignored without a word."""
    folder, _ = resumed
    assert main(["train", typed, "--resume", "--run", str(folder), "--steps", "9"]) == 2
    assert said in one_line(capsys)


def test_the_same_training_command_continues_its_run_and_another_is_refused(resumed, capsys):
    folder, _ = resumed
    command = ["train", "CartPole-v1", "--steps", "9", "--run", str(folder), "--envs", "2"]
    same = [*command, "--seed", "3", "--learning.batch-size", "4", "--step-limit", "30"]
    assert main([*same, "--env-option", "fog=False"]) == 1
    assert "Resumed" in capsys.readouterr().err
    assert main([*command, "--seed", "0"]) == 1
    err = one_line(capsys)
    for said in ("--seed is 3, not 0", "not None", "--resume --run"):
        assert said in err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["train", "CartPole-v1", "--steps", "9", "--run", ""], "must be a path"),
        (["evaluate", "collect-half", "--out", ""], "must be a path"),
        (["evaluate", "collect-half", "--terms", "nan*evidence"], "finite number"),
        (["evaluate", "collect-half", "--share", "0.5"], "--gate SCORE"),
        (["train", "CartPole-v1", "--steps", "9", "--learning.replay-ratio", "inf"], "finite"),
        (
            ["train", "CartPole-v1", "--steps", "9", "--learning.return-percentiles", "9", "5"],
            "must rise",
        ),
        (["train", "CartPole-v1", "--steps", "9", "--envs", "0"], "--envs must be 1"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_at_once(command, said, capsys):
    """An empty --run wrote into the working folder; a weight that is NaN failed as JSON."""
    assert main(command) == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_the_preset_decides_how_to_learn_however_it_is_given():
    from thinkslow.cli import train

    spaced = train.parse(["CartPole-v1", "--minutes", "1", "--preset", "size1m"])
    joined = train.parse(["CartPole-v1", "--minutes", "1", "--preset=size1m"])
    assert spaced.learning == joined.learning
    assert joined.learning.batch_length == 64


def test_a_working_folder_that_was_deleted_is_told(tmp_path, monkeypatch, capsys):
    """It was "No such file or directory", of which nothing was said."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["inspect", "collect-half"]) == 1
    assert "The working folder was deleted" in one_line(capsys)


def test_output_that_is_closed_or_of_few_letters_is_no_failure():
    """It ended with "NoneType has no attribute isatty", and with the codec's message."""
    agents = [*THINKSLOW, "agents"]
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *agents], capture_output=True, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, b"")
    few = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    unknown = subprocess.run([*THINKSLOW, "arms", "☃"], capture_output=True, env=few, check=False)
    assert unknown.returncode == 2
    assert b"No name or description contains '\\u2603'" in unknown.stderr
    helped = subprocess.run(
        [*THINKSLOW, "arms", "--help"], capture_output=True, env=few, check=False
    )
    assert helped.returncode == 0


def test_a_reader_that_has_seen_enough_is_no_failure():
    """`thinkslow evaluate --help | head -1` once ended with "Broken pipe"."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*THINKSLOW, "evaluate", "--help"]
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_nobody_can_read_ends_no_command():
    """A full disk under `2> log` ended an evaluation, and `report | head -1` ended with 1."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed, Path("/dev/full").open("wb") as full:
        listed = subprocess.run([*THINKSLOW, "study"], stdout=closed, stderr=full, check=False)
        failed = subprocess.run([*THINKSLOW, "no-command"], stderr=full, check=False)
    assert (listed.returncode, failed.returncode) == (0, 2)


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
