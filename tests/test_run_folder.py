"""The folder of a run: its settings, who may write in it, and what it is refused for."""

import dataclasses
import functools
import json
import operator
import os
import re
import shutil

import jax
import jax.random as jr
import numpy as np
import pytest
from helpers import nightly, slow
from training import (
    CONFIG,
    LEARNING,
    MODEL,
    begin,
    finish,
)

from thinkslow.dreamer.config import TrainConfig
from thinkslow.dreamer.training import run as runs
from thinkslow.dreamer.training import state as module
from thinkslow.dreamer.training.trainer import Trainer
from thinkslow.envs import VectorEnv
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space
from thinkslow.storage import lock, store

pytestmark = pytest.mark.usefixtures("environments")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"run": {"budgets": []}, "revision": "e7adcc1"}',
            "or use revision e7adcc1, which wrote it",
        ),
        (
            '{"run": {"budgets": []}}',
            "lacks model, learning, observations, actions. Copy it again, "
            "or begin a run in another",
        ),
        ("[]", "it must be a mapping; got []. Copy it again"),
        ("5", "it must be a mapping; got 5. Copy it again"),
    ],
)
def test_the_settings_of_a_run_of_another_version_say_what_to_do(content, said, tmp_path):
    """It was told `'observations'` alone."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(store.Damaged, match=re.escape(said)):
        runs.read(tmp_path)


def test_a_run_without_its_saves_does_not_begin_again(tmp_path):
    """To free some space its saves were deleted: --resume began at 0, over its metrics."""
    runs.check_saved(tmp_path)  # it was killed before it had anything
    for steps in ("900", "1000", "seed"):
        (tmp_path / "agents" / steps).mkdir(parents=True)
    with pytest.raises(store.Missing, match=r"no save to continue from.*newest.*agents/1000"):
        runs.check_saved(tmp_path)
    (tmp_path / "saves/000001").mkdir(parents=True)
    (tmp_path / "saves/latest").write_text("000001\n")
    runs.check_saved(tmp_path)


@pytest.mark.slow
def test_a_run_that_other_code_goes_on_with_says_so_and_keeps_both(tmp_path, monkeypatch, caplog):
    """Nothing told such a run from one of a single version."""
    run = tmp_path / "run"
    monkeypatch.setattr(runs, "made_by", lambda: {"revision": "a1", "jax": "1"})
    finish(begin(run), 14)
    finish(Trainer.resume(run), 18)
    assert "continues with" not in caplog.text
    monkeypatch.setattr(runs, "made_by", lambda: {"revision": "b2", "jax": "1"})
    finish(Trainer.resume(run), 22)
    assert "by revision a1 so far, and continues with revision b2" in caplog.text
    made = store.read_manifest(run / "agents" / "22")["training"]["made_by"]
    assert [one["revision"] for one in made] == ["a1", "b2"]


def test_an_agent_that_could_not_be_read_again_is_not_trained(tmp_path):
    """After hours of training on observations named `a\\nb`, its agents were refused as damaged."""
    config = dataclasses.replace(CONFIG, environment="odd_episodes:odd-test/LineEnd-v0")
    with pytest.raises(ValueError, match=r"read again: a name in `observations` .*'a\\nb'"):
        Trainer.begin(tmp_path / "run", config, MODEL, LEARNING)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("seen", "name", "environment"),
    [
        ("a\u00a0b", "mine", {}),
        ("k" * 201, "mine", {}),
        ("\ud800", "mine", {}),
        ("x", "a/b", {}),
        ("x", "mine", {"size": 0}),
        ("x", "mine", {"id": "module:" + "E" * 300}),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(seen, name, environment, tmp_path):
    spaces = {seen: Space((2,), "float32")}, {"action": Space((), "int32", 3)}
    model = MODEL.build(*spaces, key=jr.key(0))
    with pytest.raises(ValueError, match="read again"):
        checkpoint.save(
            tmp_path / "a", model, name=name, environment={"id": "x", **environment}, training={}
        )
    assert not (tmp_path / "a").exists()


def test_a_name_with_spaces_can_be_read_again(tmp_path):
    """It was saved, and refused when it was read."""
    spaces = {" a  b": Space((2,), "float32")}, {"action": Space((), "int32", 3)}
    model = MODEL.build(*spaces, key=jr.key(0))
    checkpoint.save(tmp_path / "a", model, name="a", environment={"id": "x"}, training={})
    assert dict(checkpoint.load(tmp_path / "a").model.observation_spaces) == spaces[0]


def test_what_is_asked_of_xla_is_told_apart(monkeypatch):
    """An evaluation was continued with fast mathematics, and nothing said so."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    before = runs.made_by()
    assert "XLA_FLAGS" not in before
    monkeypatch.setenv("XLA_FLAGS", " --xla_cpu_enable_fast_math=true ")
    said = "XLA_FLAGS --xla_cpu_enable_fast_math=true"
    assert runs.told_apart(runs.made_by(), before) == said
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_cuda_data_dir=/opt/cuda --xla_dump_to=/tmp/x")
    assert runs.made_by() == before, "folders of a machine were taken for settings"


def test_settings_of_jax_that_change_numbers_are_told_apart():
    """A run that went on with JAX_ENABLE_X64=1 got other weights, and nothing said why."""
    before = runs.made_by()
    with jax.enable_x64(True):
        now = runs.made_by()
    assert runs.told_apart(now, before) == "jax_enable_x64 True"
    assert runs.told_apart(before, now) == "jax_enable_x64 not set"
    assert not any(name.startswith("jax_") for name in before)


@pytest.mark.parametrize(
    "theirs", ["metrics.jsonl", "agents/notes", "evaluation.json", "study.json", "bank.json"]
)
def test_a_folder_with_another_projects_files_is_refused(tmp_path, theirs):
    """The metrics of a log folder of DreamerV3's own were emptied."""
    file = tmp_path / theirs
    file.parent.mkdir(exist_ok=True)
    file.write_text("of days")
    with pytest.raises(FileExistsError, match=f"holds {theirs.partition('/')[0]}, .*another"):
        begin(tmp_path)
    assert file.read_text() == "of days"


def test_one_folder_has_one_trainer(tmp_path):
    """Two of them destroyed the run for good."""
    run = tmp_path / "run"
    trainer = begin(run)
    trainer.train(steps=20)
    with pytest.raises(lock.Locked, match=rf"process {os.getpid()} .*another folder"):
        Trainer.resume(run)
    trainer.close()
    finish(Trainer.resume(run), 22)
    assert not (run / lock.NAME).exists()


@pytest.mark.slow
def test_a_run_whose_folder_is_deleted_says_so_and_loses_nothing(
    tmp_path, monkeypatch, uninterrupted
):
    """It went on without a word, and what it saved afterwards could not be resumed."""
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)
    run = tmp_path / "run"
    trainer = begin(run)
    trainer.train(steps=20)

    def delete(progress) -> None:
        if progress.steps == 40:
            shutil.rmtree(run)

    with pytest.raises(lock.Lost, match=r"deleted.*40.*--resume"):
        trainer.train(steps=60, show=delete)
    trainer.close()
    weights = finish(Trainer.resume(run), 60)
    for name, array in uninterrupted[1].items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)
    assert (run / "metrics.jsonl").read_text() == (uninterrupted[0] / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        slow({"ACTIONS": "5"}, "5 actions now, the run was trained with 4"),
        nightly({"WIDTH": "6"}, r"\(6,\) as `speed` now, the run was trained with float32, \(2,\)"),
    ],
)
def test_an_environment_that_has_changed_is_named_when_its_run_goes_on(
    tmp_path, monkeypatch, change, message
):
    monkeypatch.setenv("ACTIONS", "4")
    config = dataclasses.replace(CONFIG, environment="counting:thinkslow-test/Changing-v0")
    finish(Trainer.begin(tmp_path / "run", config, MODEL, LEARNING), 8)
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        Trainer.resume(tmp_path / "run")
    monkeypatch.setenv("ACTIONS", "4")
    monkeypatch.delenv("WIDTH", raising=False)
    finish(Trainer.resume(tmp_path / "run"), 10)


def test_a_run_that_describes_no_actions_is_not_continued(uninterrupted):
    """It was "not enough values to unpack"."""
    described = runs.read(uninterrupted[0])
    without = dataclasses.replace(described, actions={})
    with pytest.raises(ValueError, match="the run was trained with no action"):
        runs.check_spaces(without, described.observations, described.actions)


def test_a_run_whose_first_reset_fails_leaves_its_folder_free(tmp_path, monkeypatch):
    """It left a config.json, so that the next run was told to continue it."""

    def fails(self):
        raise ArithmeticError("no map")

    with monkeypatch.context() as patch:
        patch.setattr(VectorEnv, "reset", fails)
        with pytest.raises(ArithmeticError):
            begin(tmp_path / "run")
    begin(tmp_path / "run").close()


def test_a_folder_that_holds_a_run_is_not_overwritten(uninterrupted):
    with pytest.raises(FileExistsError, match=r"60 decisions.*--resume --run"):
        begin(uninterrupted[0])


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(store.Missing, match=r"config\.json is missing"):
        Trainer.resume(tmp_path)


@pytest.mark.parametrize("change", [{"run": {}}, {"learning": {"speed": 1}}, {"model": {}}])
def test_a_run_that_describes_no_run_is_damaged(tmp_path, uninterrupted, change):
    described = json.loads((uninterrupted[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    with pytest.raises(store.Damaged, match="run of this version"):
        Trainer.resume(tmp_path)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("run environment", 5, "`run.environment` must be a text; got 5"),
        ("run making", [], "`run.making` must be a mapping"),
        ("run budgets", "x", "`run.budgets` must be a list"),
        ("run budgets", [10, "x"], r"`run.budgets\[1\]` must be an integer; got 'x'"),
        ("run save_every", 10**400, "`run.save_every` must be a number"),
        ("run environments", 10**400, "`run.environments` must be an integer"),
        ("run size", 10**6, "`size` must be between 1 and 16384; got 1000000"),
        ("run repeat", 2000, "`repeat` must be between 1 and 1000; got 2000"),
        ("run max_steps", 5, "`run` has .'max_steps'., which this version does not know"),
        ("learning batch_size", 2.5, "`learning.batch_size` must be an integer"),
        ("learning horizon", True, "`learning.horizon` must be an integer"),
        ("learning precision", "half", "`learning.precision` must be auto or float32 or"),
        ("learning return_percentiles", [5], "`learning.return_percentiles` must be a list of 2"),
        ("learning return_percentiles", [5, None], r"`learning.return_percentiles\[1\]` must be"),
        ("model policy", {"layers": 1}, "`model.policy` lacks units"),
        ("model policy", None, "`model.policy` must be a mapping"),
        ("model", [], "`model` must be a mapping"),
        ("actions action", 3, "`actions.action` must be a mapping; got 3"),
        ("actions action shape", 3, "`actions.action.shape` must be a list"),
    ],
)
def test_a_setting_of_another_type_in_a_run_is_named(tmp_path, uninterrupted, path, value, said):
    """A number as the environment was an AttributeError, and half a sequence was accepted."""
    described = json.loads((uninterrupted[0] / "config.json").read_text())
    *parents, last = path.split()
    functools.reduce(operator.getitem, parents, described)[last] = value
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(store.Damaged, match=rf"{said}.*begin a run in another"):
        runs.read(tmp_path)


def test_a_setting_that_a_run_lacks_is_told_with_its_default(tmp_path, uninterrupted, caplog):
    """An older version wrote fewer; in silence the run went on with another learning rate."""
    described = json.loads((uninterrupted[0] / "config.json").read_text())
    del described["learning"]["learning_rate"], described["run"]["seed"]
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert runs.read(tmp_path).learning.learning_rate == TrainConfig().learning_rate
    assert (
        "lacks settings of `learning`; the defaults are used: learning_rate 4e-05." in caplog.text
    )
    assert "lacks settings of `run`; the defaults are used: seed 0." in caplog.text


@pytest.mark.parametrize("text", ["", "{", "null", 10**5 * "[", None, '{"run": {}, "run": {}}'])
def test_settings_that_cannot_be_read_are_named_and_not_waited_for(tmp_path, text):
    """Nested JSON was a RecursionError without a name; a pipe was waited for."""
    config = tmp_path / "config.json"
    os.mkfifo(config) if text is None else config.write_text(text)
    with pytest.raises(store.Damaged, match=r"config\.json"):
        Trainer.resume(tmp_path)
