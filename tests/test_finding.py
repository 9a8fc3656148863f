"""Agents found under what a user gives: a folder, a run, a file, an address."""

import json
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from foreign import SMALL, as_danijar
from helpers import golden_case, tiny_dreamer

import thinkslow
from thinkslow import importers
from thinkslow.cli import main
from thinkslow.storage import store
from thinkslow.storage.paths import expanded


def test_the_newest_checkpoint_is_taken_and_an_unfinished_one_is_not(tmp_path):
    log = as_danijar(tmp_path / "log", tiny_dreamer(**SMALL, kernel=3))
    first = next((log / "ckpt").glob("*/agent.pkl"))
    newer = log / "ckpt" / "20260102T000000F000000"
    newer.mkdir()
    (newer / "agent.pkl").write_bytes(first.read_bytes()[:100])
    for given in (log, log / "ckpt", first.parent, first):
        assert importers.find(given).file == first
    (log / "ckpt" / "latest").unlink()  # as a crash leaves it
    assert importers.find(log).file == first
    (log / "ckpt" / "latest").write_text("../../elsewhere")
    assert importers.find(log).file == first


def test_of_sheeprls_versions_and_steps_the_last_is_taken_and_of_two_runs_none(tmp_path):
    source = golden_case("sheeprl_v35-a") / "version_0"
    run = tmp_path / "logs" / "runs" / "dreamer_v3_5" / "crafter" / "one"
    for version, steps in ((0, 900), (1, 200), (1, 1000)):
        inside = run / f"version_{version}" / "checkpoint"
        inside.mkdir(parents=True, exist_ok=True)
        data = (source / "checkpoint" / "ckpt_4096_0.ckpt").read_bytes()
        (inside / f"ckpt_{steps}_0.ckpt").write_bytes(data)
        (inside.parent / "config.yaml").write_bytes((source / "config.yaml").read_bytes())
    assert importers.load(tmp_path / "logs").manifest["training"]["steps"] == 1000
    assert importers.load(run / "version_0").manifest["training"]["steps"] == 900
    (run.parent / "two").mkdir()
    (run.parent / "two" / "latest.pt").touch()
    with pytest.raises(ValueError, match="holds 2 runs"):
        importers.find(tmp_path / "logs")


def test_the_folder_above_one_log_folder_holds_one_run(tmp_path):
    log = as_danijar(tmp_path / "logs" / "one", tiny_dreamer(**SMALL))
    assert importers.find(tmp_path / "logs").file == importers.find(log).file
    as_danijar(tmp_path / "logs" / "two", tiny_dreamer(**SMALL))
    with pytest.raises(ValueError, match="holds 2 runs"):
        importers.find(tmp_path / "logs")


def _run_of_ours(folder: Path) -> Path:
    """A training run with two agents and a save, as far as their places tell."""
    for name in ("agents/200", "agents/1000", "saves/000001"):
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_text("{}")
        (folder / name / "weights.safetensors").touch()
    (folder / "config.json").write_text("{}")
    (folder / "saves" / "latest").write_text("000001")
    (folder / "replay").mkdir()
    return folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("agents/200/manifest.json", "belongs to the agent {run}/agents/200. Give that folder."),
        ("agents/200/weights.safetensors", "belongs to the agent {run}/agents/200."),
        (
            ".",
            "{run} is a training run; its agents are in agents/: the newest is {run}/agents/1000.",
        ),
        ("agents", "belongs to {run}, which is a training run"),
        ("config.json", "the newest is {run}/agents/1000."),
        ("saves/latest", "the newest is {run}/agents/1000."),
        ("saves/000001/weights.safetensors", "the newest is {run}/agents/1000."),
        ("replay", "the newest is {run}/agents/1000."),
        ("..", "is not an agent; 2 agents below it. Give {run}/agents/200 or {run}/agents/1000."),
    ],
)
def test_what_belongs_to_an_agent_or_a_run_says_which_folder_to_give(given, said, tmp_path):
    """They were `not a checkpoint`, and a folder of agents `held no agent`."""
    run = _run_of_ours(tmp_path.resolve() / "run")
    path = Path(os.path.normpath(run / given))
    with pytest.raises(store.Missing, match=re.escape(said.format(run=run))):
        thinkslow.load(path)


@pytest.mark.parametrize("file", ["evaluation.json", "study.json", "bank.json", "moments.jsonl"])
def test_a_result_in_place_of_an_agent_is_called_one(file, tmp_path):
    (tmp_path / file).write_text("{}")
    (tmp_path / "report.html").touch()
    for path in (tmp_path, tmp_path / "report.html"):
        with pytest.raises(store.Missing, match="a result of `thinkslow"):
            thinkslow.load(path)


def test_an_agent_of_another_project_beside_a_result_is_still_opened(tmp_path):
    """An evaluation may be written into the log folder of its agent."""
    as_danijar(tmp_path, tiny_dreamer(**SMALL))
    (tmp_path / "evaluation.json").write_text("{}")
    assert thinkslow.load(tmp_path).about.name == tmp_path.name


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("https://example.org/agent", "Download it"),
        ("hf://someone/agent", "Download it"),
        ("git@example.org:someone/agent.git", "Download it"),
        ("file:///home/someone/agent", "Give the path alone"),
    ],
)
def test_an_address_in_place_of_an_agent_is_called_one(given, remedy):
    for form in (str, Path):
        with pytest.raises(store.Missing, match=f"is an address. {remedy}"):
            thinkslow.load(form(given))


def test_a_packed_agent_is_to_be_unpacked(tmp_path):
    """A zip of an agent folder `has 0 files data.pkl`, another archive `is not a checkpoint`."""
    run = _run_of_ours(tmp_path / "run")
    for kind in ("zip", "tar", "gztar", "xztar"):
        packed = Path(shutil.make_archive(str(tmp_path / kind), kind, run / "agents"))
        with pytest.raises(store.Damaged, match="npack it"):
            thinkslow.load(packed)


def test_an_address_is_no_path_in_python_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="on this machine; got the address 's3://bucket/run'"):
        expanded("s3://bucket/run")
    assert expanded("a:b//c") == Path("a:b/c")


def test_the_home_of_nobody_is_said(capsys):
    assert main(["inspect", "~no-such-user/agent"]) == 1
    assert "that of '~no-such-user/agent' is unknown" in capsys.readouterr().err


def test_an_archive_that_was_not_copied_to_its_end_is_cut_off(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.pt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({}))
        file.writestr("archive/data/0", bytes(1000))
    data = (tmp_path / "whole.pt").read_bytes()
    for left in (len(data) - 100, 200, 40):
        (tmp_path / "latest.pt").write_bytes(data[:left])
        with pytest.raises(store.Damaged, match=r"cut off.*Copy it again"):
            importers.find(tmp_path / "latest.pt")


def test_a_configuration_that_is_no_file_is_refused(tmp_path):
    log = as_danijar(tmp_path / "log", tiny_dreamer(**SMALL))
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path.name)):
        (log / "config.yaml").unlink(missing_ok=True)
        make(log / "config.yaml")
        with pytest.raises(store.Damaged, match="must be a file"):
            importers.load(log)
        if (log / "config.yaml").is_dir():
            (log / "config.yaml").rmdir()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("unimix", -1.0),
        ("unimix", 1.0),
        ("unimix", float("inf")),
        ("free_nats", -0.5),
        ("classes", 0),
        ("classes", 2.5),
        ("classes", "x" * 10_000),
        ("unimix", [[1]]),
    ],
)
def test_a_size_or_share_that_cannot_be_is_refused_in_one_line(option, value, tmp_path):
    log = as_danijar(tmp_path / "log", tiny_dreamer(**SMALL))
    options = yaml.safe_load((log / "config.yaml").read_text())
    options["agent"]["dyn"]["rssm"][option] = value
    (log / "config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises((store.Damaged, store.Misfit)) as caught:
        importers.load(log)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1001


def test_options_of_any_kind_survive_import_and_inspect(tmp_path, capsys):
    log = as_danijar(tmp_path / "log\x1b[31m[b]", tiny_dreamer(**SMALL))
    with (log / "config.yaml").open("a") as file:
        file.write("when: 2020-01-01\nbad: .nan\nworse: -.inf\nlong: 1:20:30\n")
        file.write("some: !!set {a, b}\nrow: !!omap [x: 1]\n")
    assert main(["import", str(log), str(tmp_path / "ours")]) == 0
    shown = capsys.readouterr()
    assert main(["inspect", str(tmp_path / "ours"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert facts["source"]["options"]["when"] == "2020-01-01"
    assert facts["source"]["options"]["some"] == {"a": None, "b": None}
    assert main(["inspect", str(log)]) == 0
    shown = shown.out + shown.err + capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert facts["name"] == r"log\x1b[31m[b]"
