"""The command line: what goes where, exit codes, and one clear line for every error."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import THINKSLOW, one_line

from thinkslow.cli import COMMANDS, main
from thinkslow.storage import lock, store


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


@pytest.mark.parametrize(("columns", "command"), [("0", ["agents"]), ("2", ["report", "--help"])])
def test_a_terminal_without_width_shows_what_is_printed(columns, command):
    """With no column tables were not printed, and with three help never ended."""
    narrow = {**os.environ, "COLUMNS": columns}
    done = subprocess.run([*THINKSLOW, *command], capture_output=True, env=narrow, check=True)
    assert done.stdout.strip()


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
    (tmp_path / "evaluation.json").touch()
    assert main(["study", "quick", "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "holds evaluation.json of another result" in err
    assert "estimate the time" not in err
    assert sorted(os.listdir(tmp_path)) == ["evaluation.json", "file"]


def test_every_public_name_is_there():
    import thinkslow

    for name in thinkslow.__all__:
        assert getattr(thinkslow, name) is not None
    assert set(thinkslow.__all__) <= set(dir(thinkslow))
    with pytest.raises(AttributeError, match="nonsense") as raised:
        _ = thinkslow.nonsense
    assert raised.value.obj is thinkslow  # Python then names the nearest


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
