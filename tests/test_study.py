"""Studies in their folders: begun, killed, continued, timed and played in any order."""

import contextlib
import dataclasses
import functools
import json
import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import jax.random as jr
import odd_episodes
import pytest
import studies
from helpers import smallest_config
from studies import PLAN

from thinkslow.cli import main
from thinkslow.dreamer.model import Dreamer
from thinkslow.envs import make
from thinkslow.evaluation import records
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space
from thinkslow.storage import lock
from thinkslow.storage.faults import Damaged
from thinkslow.study import Another, Misplanned, finish, planned, read
from thinkslow.study.executors import Failing, local
from thinkslow.study.rehearsal import keep, known, longest, rehearse
from thinkslow.study.run import begin, joined, run
from thinkslow.study.tasks import found, tasks

COUNTING = "counting:thinkslow-test/Counting-v0"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A plan of two tiny agents on a tiny environment."""
    monkeypatch.setenv("PYTHONPATH", odd_episodes.importable())
    for seed in (1, 2):
        model = Dreamer(
            {"image": Space((16, 16, 3), "uint8")},
            {"action": Space((), "int32", 3)},
            smallest_config(),
            key=jr.key(seed),
        )
        checkpoint.save(
            tmp_path / f"agent-{seed}",
            model,
            name=f"agent-{seed}",
            environment={"id": COUNTING, "size": 16, "repeat": 1},
            training={"steps": 7, "seed": seed, "preset": "test"},
        )
    return PLAN | {
        "agents": {"ours": f"{tmp_path}/agent-*"},
        "arms": ["control-soft", "evidence"],
        # An id of a module: the files of an agent may not name one.
        "settings": {"clean": {"env": COUNTING}, "noisy": {"env": COUNTING, "shift": "noise:5"}},
        "hypotheses": [{"name": "H", "claim": "", "effect": {"arm": "evidence"}}],
    }


def table(folder: Path) -> Any:
    """What was played, without the milliseconds and the machine."""
    result = finish(folder)
    rows = [
        {k: v for k, v in row.items() if not k.startswith("latency")}
        for path in sorted((folder / "cells").glob("*/*"))
        for row in records.read(path).rows()
    ]
    return rows, result["hypotheses"]


@pytest.mark.slow
@pytest.mark.nightly
def test_a_killed_study_goes_on_and_says_the_same(small, tmp_path):
    plan = planned(small, "plan.toml")
    whole = run(plan, tmp_path / "whole", jobs=2)
    assert whole["finished"]
    assert len(whole["cells"]) == 2
    assert len(whole["cells"][0]["arms"]) == 3 * 3  # each agent, and both together

    stored = tmp_path / "plan.json"
    stored.write_text(json.dumps(small))
    program = (
        "import sys, json; from pathlib import Path; from thinkslow.study import planned, run\n"
        "run(planned(json.loads(Path(sys.argv[1]).read_text()), ''), Path(sys.argv[2]), jobs=2)"
    )
    killed = tmp_path / "killed"
    for wanted in (1, 3):  # the whole process group, after some blocks
        process = subprocess.Popen(
            [sys.executable, "-c", program, stored, killed], start_new_session=True
        )
        while process.poll() is None and _blocks(killed) < wanted:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run(plan, killed, jobs=1)
    assert table(killed) == table(tmp_path / "whole")
    assert not subprocess.run(["pgrep", "-f", str(killed)], capture_output=True, check=False).stdout

    with pytest.raises(Another, match=r"plan .*another folder"):
        run(planned(small | {"seed": 5}, "plan.toml"), killed)


def _blocks(folder: Path) -> int:
    return len([*folder.glob("blocks/*/*/*/*/episodes.jsonl")])


@pytest.mark.slow
def test_what_cannot_be_played_ends_the_study_with_its_reason(small, tmp_path):
    plan = planned(small | {"settings": {"clean": {"env": "CartPole-v1"}}}, "plan.toml")
    with pytest.raises(Failing, match=r"does not fit CartPole-v1.*log\.txt"):
        run(plan, tmp_path / "study", jobs=2)


@pytest.mark.parametrize("text", ["", "{", "null", '{"plan": 3}', 10**5 * "["])
def test_a_damaged_study_is_named(tmp_path, text):
    """It was "Expecting value: line 1 column 1", of which nothing was told."""
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(Damaged, match=r"study\.json is"):
        finish(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("plan episodes", "8", "`plan.episodes` must be an integer; got '8'"),
        ("plan looks", [2.5], r"`plan.looks\[0\]` must be an integer; got 2.5"),
        ("plan groups", [{"name": "a"}], r"`plan.groups\[0\]` lacks agents"),
        ("agents", [], r"`agents` must be a mapping; got \[\]"),
    ],
)
def test_a_value_of_another_type_in_a_study_is_named(small, tmp_path, path, value, said):
    """An edited plan ended in an error of Python, far from its file."""
    folder = studies.folder(tmp_path / "study", small, blocks=0)
    content = json.loads((folder / "study.json").read_text())
    *parents, last = path.split()
    functools.reduce(operator.getitem, parents, content)[last] = value
    (folder / "study.json").write_text(json.dumps(content))
    with pytest.raises(Damaged, match=rf"study\.json is no study: {said}.*another folder"):
        finish(folder)


def test_the_length_of_an_episode_is_taken_from_whoever_says_it():
    """Environments that end their episodes themselves counted as a thousand decisions."""

    class Ends(gymnasium.Env):
        max_episode_steps = 250

    class Endless(gymnasium.Env):
        max_episode_steps = float("inf")

    assert longest(Ends()) == 250
    assert longest(Endless()) is None
    assert longest(gymnasium.make("CartPole-v1")) == 500
    with contextlib.closing(make("thinkslow/CollectGoodObjects-v0")) as env:
        assert longest(env.env) == 250


def test_a_dry_run_plays_nothing_and_knows_the_time_of_a_study_that_was_begun(tmp_path, capsys):
    """On a new machine it compiled for minutes."""
    command = ["study", "quick", "--dry-run", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "not known yet" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()
    plan = read("quick")
    times = {"half-trained in its environment": 60.0, "trained in its environment": 90.0}
    (tmp_path / "out").mkdir()
    keep(tmp_path / "out", {"plan": plan.hash, "seconds": times})
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tasks"], found["episodes"], found["minutes"]) == (4, 128, 5.0)
    for other in (
        {"plan": "another", "seconds": times},
        {"plan": plan.hash, "seconds": [60.0, 90.0]},
        {"plan": plan.hash, "seconds": dict.fromkeys(times, "long")},
    ):
        keep(tmp_path / "out", other)
        assert known(plan, tmp_path / "out")["minutes"] is None


@pytest.mark.slow
def test_the_time_is_told_of_what_is_missing_and_nothing_is_kept(small, tmp_path, monkeypatch):
    settings = {"clean": {"env": COUNTING}, "lost": {"env": COUNTING, "shift": "dropped:3"}}
    plan = planned(small | {"settings": settings, "max_decisions": 6}, "plan.toml")
    told: list[str] = []
    first = rehearse(plan, tmp_path / "study", jobs=1, show=told.append)
    assert (first["tasks"], first["episodes"], first["finished"]) == (8, 48, 0)
    assert 0 < first["minutes"] < 20
    assert told == [f"ours in {COUNTING}"]  # a shift is no other kind of task
    assert not (tmp_path / "study").exists()
    (tmp_path / "study").mkdir()
    keep(tmp_path / "study", first)
    assert known(plan, tmp_path / "study", jobs=1) == first
    assert known(plan, tmp_path / "study", jobs=4)["minutes"] < first["minutes"]
    broken = planned(small | {"settings": {"clean": {"env": "CartPole-v1"}}}, "plan.toml")
    with pytest.raises(ValueError, match="does not fit CartPole-v1"):
        rehearse(broken, tmp_path / "study", jobs=1)
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\necho It began well. >&2; kill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(ValueError, match="in clean: its process was ended by SIGKILL, as"):
        rehearse(plan, tmp_path / "study", jobs=1)


@pytest.mark.slow
def test_an_error_of_the_users_code_in_a_rehearsal_is_told_with_its_line(
    small, tmp_path, monkeypatch
):
    """Only errors whose messages are for users were tested."""
    home = tmp_path / "code"
    home.mkdir()
    (home / "limited.py").write_text(
        "from counting import Counting\n\n\n"
        "class Limited(Counting):\n"
        "    @property\n"
        "    def max_steps(self):\n"
        '        raise KeyError("steps")\n'
    )
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(home), os.environ["PYTHONPATH"]]))
    plan = planned(small | {"settings": {"clean": {"env": "limited:Limited"}}}, "plan.toml")
    told = (
        r"cannot play in clean: KeyError: 'steps' \(in `play`; "
        r"limited\.py:7 in max_steps, your code\)$"
    )
    with pytest.raises(ValueError, match=told):
        rehearse(plan, tmp_path / "study", jobs=1)


@pytest.mark.slow
def test_agents_that_something_was_tuned_on_are_not_reported(small, tmp_path):
    with pytest.raises(Misplanned, match="training seed 2"):
        run(planned(small | {"tuned_on": [2]}, "plan.toml"), tmp_path / "study")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork")  # Ray forks to start a program, and no more
def test_a_cluster_of_two_nodes_gives_the_same_table(small, tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    plan = planned(small, "plan.toml")
    run(plan, tmp_path / "here", jobs=2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        run(plan, tmp_path / "there", executor="ray", address=cluster.address)
    finally:
        cluster.shutdown()
    assert table(tmp_path / "there") == table(tmp_path / "here")
    assert joined(plan, found(plan), tmp_path / "there")


@pytest.mark.parametrize("name", ["evaluation.json", "episodes.jsonl", "report.html"])
def test_a_study_does_not_overwrite_another_result(tmp_path, name):
    """In the folder of an evaluation it replaced the episodes and the page."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(Another, match=f"holds {name} of another result"):
        run(read("quick"), tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_study_whose_folder_is_moved_says_so_and_begins_no_other(tmp_path):
    """It tried the task three times, named a missing file, and left a folder with a log behind."""
    task = tasks(plan := planned(PLAN, "plan.toml"), found(plan))[0]
    place = tmp_path / "study"

    def moved() -> None:
        with lock.writing(place):
            place.rename(tmp_path / "moved")
            local(place, [task], 1, lambda: None)

    with pytest.raises(lock.Lost, match="continue in its new place"):
        moved()
    assert not place.exists()


def test_a_study_is_played_with_one_version_of_the_libraries(tmp_path):
    """Another JAX, or other settings of it, went on with a study, and nothing told."""
    plan = planned(PLAN, "plan.toml")
    begin(plan, tmp_path)
    begin(plan, tmp_path)
    path = tmp_path / "study.json"
    stored = json.loads(path.read_text())
    stored["versions"] |= {"jax_default_prng_impl": "rbg"}
    path.write_text(json.dumps(stored))
    with pytest.raises(Another, match="settings of JAX: jax_default_prng_impl is rbg, not None"):
        begin(plan, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("versions", {"thinkslow": "0.2.0"}, r"versions differ \(thinkslow is 0.1.0, not 0.2.0\)"),
        ("agents", [{"name": "partial-0", "weights": "other"}], "weights of partial-0"),
    ],
)
def test_blocks_of_other_weights_or_versions_are_not_put_together(tmp_path, name, value, said):
    """An agent that was trained anew between two commands, or a node with another JAX."""
    studies.folder(tmp_path / "study", studies.QUICK)
    place = tmp_path / "study/blocks/partial/clean/partial-0/001"
    header = records.read(place).header
    records.write_header(place, dataclasses.replace(header, **{name: value}))
    with pytest.raises(Another, match=rf"Blocks 0 and 1 of partial-0 in clean .*{said}.*Delete"):
        finish(tmp_path / "study")
