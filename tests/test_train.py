"""A run that is stopped, killed or resumed is the run that was not."""

import dataclasses
import errno
import functools
import json
import logging
import operator
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from counting import Names
from helpers import nightly, slow, smallest_config
from tensorboardX.event_file_writer import EventsWriter

from thinkslow import memory
from thinkslow.cli import train as command
from thinkslow.distributions import Gaussian
from thinkslow.dreamer.config import TrainConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.training import experience
from thinkslow.dreamer.training import run as runs
from thinkslow.dreamer.training import state as module
from thinkslow.dreamer.training.episodes import Episodes
from thinkslow.dreamer.training.logs import Logs
from thinkslow.dreamer.training.run import RunConfig
from thinkslow.dreamer.training.stopping import stoppable
from thinkslow.dreamer.training.trainer import Diverged, Trainer
from thinkslow.envs import Failure, Step, VectorEnv
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space
from thinkslow.storage import lock, manifest, saves, store
from thinkslow.storage.atomic import Full
from thinkslow.storage.events import Events
from thinkslow.weights import named

ENVIRONMENT = "counting:thinkslow-test/Counting-v0"
MODEL = smallest_config()
LEARNING = TrainConfig(
    batch_size=2,
    batch_length=4,
    imagination=3,
    imagination_starts=2,
    replay_ratio=4.0,
    replay_capacity=120,
    warmup=1,
    learning_rate=1e-3,
)
CONFIG = RunConfig(ENVIRONMENT, seed=5, environments=2, size=16, log_every=8, budgets=(24,))


@pytest.fixture(autouse=True)
def _counting_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))


def begin(run: Path, learning: TrainConfig = LEARNING) -> Trainer:
    return Trainer.begin(run, CONFIG, MODEL, learning)


def finish(trainer: Trainer, steps: int) -> dict[str, np.ndarray]:
    try:
        trainer.train(steps=steps)
        return {name: np.asarray(array) for name, array in named(trainer.learner).items()}
    finally:
        trainer.close()


def counters(run: Path) -> dict[str, Any]:
    """What the save that holds counted."""
    save = saves.latest(run / "saves")
    assert save
    return store.read_manifest(save)["counters"]


def lines(run: Path) -> list[dict[str, Any]]:
    """`metrics.jsonl`, held to what JSON allows."""

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refused) for line in text.splitlines()]


class Killed(Exception):
    """Ends a run without a save, as a kill would."""


def killed_at(steps: int):
    def show(progress) -> None:
        if progress.steps >= steps:
            raise Killed

    return show


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parent))
    run = tmp_path_factory.mktemp("whole") / "run"
    weights = finish(begin(run), 60)
    patch.undo()
    return run, weights


@pytest.mark.parametrize("stops", [slow((14,)), (22, 40, 42)])
def test_a_resumed_run_has_the_same_weights_bit_for_bit(tmp_path, uninterrupted, stops):
    run = tmp_path / "run"
    finish(begin(run), stops[0])
    for stop in stops[1:]:
        finish(Trainer.resume(run), stop)
    weights = finish(Trainer.resume(run), 60)
    for name, array in uninterrupted[1].items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


@pytest.mark.slow
def test_a_resumed_run_writes_the_same_metrics(tmp_path, uninterrupted):
    run = tmp_path / "run"
    trainer = begin(run)
    trainer.train(steps=30)
    with pytest.raises(Killed):
        trainer.train(steps=60, show=killed_at(40))
    trainer.close()
    assert counters(run)["steps"] == 30
    finish(Trainer.resume(run), 60)
    assert (run / "metrics.jsonl").read_text() == (uninterrupted[0] / "metrics.jsonl").read_text()


@pytest.mark.usefixtures("jumping_clock")
def test_a_clock_that_jumps_changes_no_run(tmp_path, uninterrupted):
    """TensorBoard's own writer ended when the clock was set back by a month; the run waited."""
    folder, weights = uninterrupted
    run = tmp_path / "run"
    for name, array in finish(begin(run), 60).items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)
    assert lines(run) == lines(folder)
    assert counters(run) == counters(folder)
    assert sorted(os.listdir(run / "saves")) == sorted(os.listdir(folder / "saves"))


def test_events_on_a_full_disk_are_an_error_and_no_endless_wait(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    events = Events(tmp_path)
    monkeypatch.setattr(EventsWriter, "write_event", full)
    for _ in range(20):
        with pytest.raises(OSError, match="No space"):
            events.add_scalar("score", 1.0, 0)
    events.close()


@pytest.mark.usefixtures("jumping_clock")
def test_minutes_are_those_that_pass(tmp_path):
    trainer = begin(tmp_path / "run")
    try:
        trainer.train(minutes=0.005)
        assert trainer.steps > 2 * CONFIG.environments
    finally:
        trainer.close()


@pytest.mark.slow
def test_a_run_that_resumes_between_two_updates_is_the_same(tmp_path):
    """It failed with AttributeError, again at every resume, when a log line came first."""
    rare = dataclasses.replace(LEARNING, replay_ratio=0.6)  # an update every 14 decisions
    whole, run = tmp_path / "whole", tmp_path / "run"
    weights = finish(begin(whole, rare), 80)
    finish(begin(run, rare), 46)
    for stop in (50, 80):
        resumed = finish(Trainer.resume(run), stop)
    for name, array in weights.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
    assert lines(run) == lines(whole)
    ends = [counters(folder) for folder in (run, whole)]
    for each in ends:
        del each["replay"]  # its files are numbered by save
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_run_killed_after_its_last_save_still_keeps_its_last_agent(tmp_path, monkeypatch):
    """It said that it had all its steps, and the agent of the end was never written."""
    run = tmp_path / "run"
    trainer = begin(run)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "keep", killed_at(0))
        with pytest.raises(Killed):
            trainer.train(steps=14)
    trainer.close()
    assert counters(run)["steps"] == 14
    assert not (run / "agents" / "14").exists()
    finish(Trainer.resume(run), 14)
    kept = store.read(run / "agents" / "14")[0]
    for name, array in named(trainer.learner.model).items():
        np.testing.assert_array_equal(kept[name], array, err_msg=name)


@pytest.mark.slow
def test_a_first_agent_comes_after_a_save_and_a_kill_between_them_loses_neither(
    tmp_path, monkeypatch
):
    run = tmp_path / "run"
    trainer = Trainer.begin(run, dataclasses.replace(CONFIG, budgets=(3,)), MODEL, LEARNING)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "write_agent", killed_at(0))
        with pytest.raises(Killed):
            trainer.train(steps=6)
    trainer.close()
    assert counters(run)["steps"] == 4
    Trainer.resume(run).close()
    assert (run / "agents" / "4" / store.MANIFEST).exists()


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


@pytest.mark.parametrize("theirs", ["metrics.jsonl", "agents/notes"])
def test_a_folder_with_another_projects_files_is_refused(tmp_path, theirs):
    """The metrics of a log folder of DreamerV3's own were emptied."""
    file = tmp_path / theirs
    file.parent.mkdir(exist_ok=True)
    file.write_text("of days")
    with pytest.raises(FileExistsError, match=f"holds {theirs.partition('/')[0]}, .*another"):
        begin(tmp_path)
    assert file.read_text() == "of days"


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, uninterrupted):
    run = tmp_path / "run"
    script = (
        "import conftest, sys; from pathlib import Path; import test_train as t\n"
        "if __name__ == '__main__':\n"
        "    trainer = t.begin(Path(sys.argv[1]))\n"
        "    trainer.config = t.dataclasses.replace(trainer.config, save_every=0.2)\n"
        "    trainer.train(steps=10**9)\n"
    )
    (tmp_path / "main.py").write_text(script)
    process = subprocess.Popen([sys.executable, str(tmp_path / "main.py"), str(run)])
    try:
        deadline = time.monotonic() + 120
        while not (run / "saves" / "latest").exists():
            assert time.monotonic() < deadline, "the run saved nothing in two minutes"
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved = counters(run)["steps"]
    assert saved > 0
    trainer = Trainer.resume(run)
    steps = max(60, saved)
    weights = finish(trainer, steps)
    if steps == 60:
        for name, array in uninterrupted[1].items():
            np.testing.assert_array_equal(weights[name], array, err_msg=name)


@pytest.mark.nightly
def test_an_agent_with_a_gaussian_latent_trains_and_resumes_bit_for_bit(tmp_path):
    model = dataclasses.replace(MODEL, classes=None)

    def started(name: str) -> Trainer:
        return Trainer.begin(tmp_path / name, CONFIG, model, LEARNING)

    whole = finish(started("whole"), 44)
    finish(started("parts"), 30)
    parts = finish(Trainer.resume(tmp_path / "parts"), 44)
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)
    loaded = checkpoint.load(tmp_path / "parts" / "agents" / "44").model
    assert isinstance(loaded, Dreamer)
    prior = loaded.dyn.prior(jnp.zeros(MODEL.deter))
    assert isinstance(prior, Gaussian)
    assert prior.mean.shape == (4,)


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize(
    ("sent", "ends"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGTERM, SystemExit),
        slow(signal.SIGHUP, SystemExit),
    ],
)
def test_a_signal_saves_before_it_stops(tmp_path, sent, ends):
    """SIGTERM, with which a batch system ends a job, lost all since the last save."""
    trainer = begin(tmp_path / "run")

    def press(progress) -> None:
        if progress.steps == 20:
            os.kill(os.getpid(), sent)

    before = signal.getsignal(sent)
    with pytest.raises(ends) as raised:
        trainer.train(steps=1000, show=press)
    trainer.close()
    if ends is SystemExit:
        assert raised.value.code == 128 + sent
    assert counters(tmp_path / "run")["steps"] == 20
    assert signal.getsignal(sent) == before


def test_a_limit_of_processor_time_leaves_time_to_save():
    """The system sends its signal again every second, which would be the second signal."""
    with stoppable() as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGXCPU)
    with pytest.raises(SystemExit) as raised:
        stop.raise_if_asked()
    assert raised.value.code == 128 + signal.SIGXCPU


@pytest.mark.slow
def test_a_second_signal_ends_the_run_at_once_and_leaves_the_last_save(tmp_path):
    run = tmp_path / "run"
    trainer = begin(run)
    trainer.train(steps=30)

    def press_twice(progress) -> None:
        if progress.steps == 40:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as raised:
        trainer.train(steps=1000, show=press_twice)
    trainer.close()
    assert raised.value.code == 143
    assert counters(run)["steps"] == 30
    finish(Trainer.resume(run), 32)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    trainer = begin(tmp_path / "run", dataclasses.replace(LEARNING, learning_rate=1e30))
    with pytest.raises(Diverged, match=r"non-finite.*saves.*learning.rate"):
        trainer.train(steps=1000)
    trainer.close()
    save = saves.latest(tmp_path / "run" / "saves")
    assert save
    arrays, manifest = store.read(save)
    assert all(np.isfinite(array).all() for name, array in arrays.items() if "seen" not in name)
    assert manifest["counters"]["updates"] == arrays["learner/updates"] > 0


@pytest.mark.parametrize("fault", [slow("reward"), slow("nan"), nightly("inf")])
def test_a_value_that_is_not_finite_is_found_where_it_enters(tmp_path, monkeypatch, fault, caplog):
    """It stopped the run as a loss that diverged, or its log line stopped the save."""
    monkeypatch.setenv("FAULT", fault)
    config = dataclasses.replace(CONFIG, environment="counting:thinkslow-test/Faulty-v0")
    run = tmp_path / "run"
    finish(Trainer.begin(run, config, MODEL, LEARNING), 90)
    trainer = Trainer.resume(run)
    weights = finish(trainer, 120)
    assert trainer.updates > 10
    assert all(np.isfinite(array).all() for array in weights.values())
    episodes = [line["episode"] for line in lines(run) if "episode" in line]
    marked = [episode["nonfinite"] for episode in episodes if "nonfinite" in episode]
    assert marked == [1] * len(marked)
    assert 0 < len(marked) < len(episodes)
    if fault == "reward":
        assert all((one["score"] is None) == ("nonfinite" in one) for one in episodes)
    name = "reward" if fault == "reward" else "speed"
    said = [one for one in caplog.messages if f"episode 1, step 3: `{name}` is non-finite" in one]
    assert len(said) == CONFIG.environments, "each environment is named once"


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


@pytest.mark.slow
def test_a_run_whose_replay_is_deleted_writes_it_again(tmp_path, uninterrupted):
    run = tmp_path / "run"
    trainer = begin(run)
    trainer.train(steps=30)
    shutil.rmtree(run / "replay")
    finish(trainer, 40)
    weights = finish(Trainer.resume(run), 60)
    for name, array in uninterrupted[1].items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def test_a_run_that_has_all_its_steps_says_so(tmp_path, uninterrupted, caplog):
    trainer = Trainer.resume(uninterrupted[0])
    finish(trainer, 60)
    assert "60 of 60 steps" in caplog.text
    assert trainer.steps == 60


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


@pytest.mark.slow
def test_an_environment_that_does_not_come_back_begins_another_episode(tmp_path):
    """Its next observations were learnt as what followed from those before the stop."""
    config = dataclasses.replace(CONFIG, environment="counting:thinkslow-test/Unseeded-v0")
    run = tmp_path / "run"
    trainer = Trainer.begin(run, config, MODEL, LEARNING)
    trainer.train(steps=14)
    seen = trainer.step.observation["image"]
    trainer.close()
    trainer = Trainer.resume(run)
    assert not np.array_equal(trainer.step.observation["image"], seen)
    assert trainer.step.is_first.all()
    finish(trainer, 50)
    episodes = [line["episode"] for line in lines(run) if "episode" in line]
    assert [one["length"] for one in episodes] == [9, 9]


@pytest.mark.slow
def test_the_first_update_comes_when_it_was_said_to(tmp_path):
    """It was told too early for a low replay ratio."""
    trainer = begin(tmp_path / "run", dataclasses.replace(LEARNING, replay_ratio=0.4))
    first = trainer.first_update
    trainer.train(steps=first - CONFIG.environments)
    assert trainer.updates == 0
    finish(trainer, first)
    assert trainer.updates == 1


@pytest.mark.nightly
def test_what_an_environment_shows_may_have_any_name(tmp_path):
    """What it called `action`, `reward`, ... took the place of that field, and was learnt as it."""
    config = dataclasses.replace(CONFIG, environment="counting:thinkslow-test/Names-v0")
    finish(Trainer.begin(tmp_path / "run", config, MODEL, LEARNING), 60)
    trainer = Trainer.resume(tmp_path / "run")
    rows, _ = trainer.replay.sample(np.random.default_rng(0), 8, 5)
    batch = experience.batch(rows, trainer.learner.model)
    for index, name in enumerate(Names.CALLED):
        np.testing.assert_array_equal(batch.observation[name], np.full((8, 4, 3), 7.0 + index))
    assert set(np.unique(batch.previous_action)) == {0.0, 1.0}
    np.testing.assert_array_equal(batch.previous_action.sum(-1), 1.0)
    assert set(np.unique(batch.reward)) == {0.0, 1.0}
    assert batch.is_first.dtype == bool
    finish(trainer, 62)
    told = next(line for line in lines(tmp_path / "run") if "loss/total" in line)
    assert {f"loss/reconstruction/{name}" for name in Names.CALLED} < told.keys()
    assert {"loss/value", "loss/policy", "loss/rew", "loss/con"} < told.keys()


def test_a_save_holds_an_episode_of_any_length(tmp_path, monkeypatch):
    """Its actions would not fit into a manifest, which a reader takes up to some megabytes of."""
    monkeypatch.setattr(manifest, "LARGEST_MANIFEST", 20_000)
    run = tmp_path / "run"
    trainer = begin(run)
    trainer.train(steps=14)
    state = trainer.envs.state()
    longer = {**state, "played": ["x" * 50_000]}
    monkeypatch.setattr(trainer.envs, "state", lambda: longer)
    finish(trainer, 16)
    finish(Trainer.resume(run), 18)


@pytest.mark.slow
def test_a_run_compiles_its_decision_and_its_update_once(tmp_path, caplog):
    """It compiled them three times and twice: arrays came back laid out otherwise."""
    model = dataclasses.replace(MODEL, stoch=3)  # no other test has compiled its programs
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        finish(Trainer.begin(tmp_path / "run", CONFIG, model, LEARNING), 40)
        finish(Trainer.resume(tmp_path / "run"), 60)
    for name in ("act", "update"):
        done = [text for text in caplog.messages if f"XLA compilation of jit({name})" in text]
        assert len(done) == 1, done


def test_budgets_keep_agents_that_load(uninterrupted):
    run, weights = uninterrupted
    assert sorted(path.name for path in (run / "agents").iterdir()) == ["24", "60"]
    saved = checkpoint.load(run / "agents" / "60")
    assert saved.manifest["training"]["steps"] == 60
    for name, array in named(saved.model).items():
        np.testing.assert_array_equal(array, weights[f"model/{name}"], err_msg=name)


def test_the_log_says_how_it_went(uninterrupted):
    text = (uninterrupted[0] / "log.txt").read_text()
    assert "Started at decision 0" in text
    assert "step 56, update" in text


def test_metrics_are_one_json_object_a_line(uninterrupted):
    found = lines(uninterrupted[0])
    assert any("episode" in line for line in found)
    assert all(np.isfinite(line["loss/total"]) for line in found if "loss/total" in line)


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


def test_a_batch_starts_from_the_latent_stored_one_step_before(tmp_path):
    """The first row of a window is the starting state: its latent, and its action led on."""
    trainer = begin(tmp_path / "run")
    trainer.train(steps=24)
    rows, _ = trainer.replay.sample(np.random.default_rng(0), 2, 5)
    batch = experience.batch(rows, trainer.learner.model)
    np.testing.assert_array_equal(batch.start.memory, rows["deter"][:, 0])
    np.testing.assert_array_equal(jnp.argmax(batch.start.latent, -1), rows["stoch"][:, 0])
    np.testing.assert_array_equal(batch.previous_action, rows["action"][:, :-1])
    np.testing.assert_array_equal(batch.observation["image"], rows["observation/image"][:, 1:])
    np.testing.assert_array_equal(batch.reward, rows["reward"][:, 1:])
    trainer.close()


def test_a_replay_too_small_to_learn_from_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`replay_capacity` must be \d+ or more.*got 19"):
        begin(tmp_path / "run", dataclasses.replace(LEARNING, replay_capacity=19))


def test_a_replay_that_the_memory_cannot_hold_is_said_at_the_start(tmp_path, monkeypatch, caplog):
    """The system killed such a run hours later, once its replay was full."""
    trainer = begin(tmp_path / "fits")
    assert "replay" not in caplog.text
    monkeypatch.setattr(memory, "allowed", lambda: int(1.2 * trainer.replay.nbytes))
    trainer.close()
    begin(tmp_path / "run").close()
    assert re.search(r"replay takes .* GiB when it is full.*Lower `replay_capacity`", caplog.text)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"`environments`.*got 0"):
        dataclasses.replace(CONFIG, environments=0)
    with pytest.raises(ValueError, match=r"`batch_size`.*got 0"):
        dataclasses.replace(LEARNING, batch_size=0)


def test_metrics_on_a_full_disk_name_their_file(tmp_path, monkeypatch):
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    logs = Logs(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(logs, "metrics", SimpleNamespace(write=full))
        with pytest.raises(Full, match=r"metrics\.jsonl needs more disk space"):
            logs.write({"step": 1}, {}, 1)
    logs.close()


def test_an_episode_that_failed_is_in_no_mean_and_no_curve(tmp_path, monkeypatch):
    class Kept:
        def __init__(self) -> None:
            self.scalars: list[tuple[str, float]] = []

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            self.scalars.append((tag, scalar_value))

        def close(self) -> None:
            pass

    kept, run = Kept(), tmp_path / "run"
    trainer = begin(run)
    assert trainer.logs is not None
    trainer.logs.writers.append(kept)
    failed = np.array([True, False])
    fails = trainer.step._replace(
        reward=np.array([50.0, 3.0], np.float32),
        is_first=~np.ones(2, bool),
        is_last=np.ones(2, bool),
        crashed=failed,
        errors=(Failure("step", "KeyError", "'door'", "play.py:7 in step, your code"), None),
    )
    with monkeypatch.context() as patch:
        patch.setattr(trainer.envs, "step", lambda _: fails)
        trainer.train(steps=2)
    trainer.train(steps=4)
    trainer.close()
    records = [one["episode"] for one in lines(run) if "episode" in one]
    assert [(one["score"], one["crashed"]) for one in records] == [(50.0, True), (3.0, False)]
    assert trainer.episodes.mean == 3.0
    assert kept.scalars == [("score", 3.0), ("length", 1)]


def test_episodes_that_failed_are_counted_where_a_run_ends(monkeypatch, tmp_path, caplog):
    """Every episode had failed, and the only word on it had scrolled away hours before."""
    episodes = Episodes(2)
    failure = Failure("step", "KeyError", "'door'", "play.py:7 in step, your code")
    off, on = np.zeros(2, bool), np.ones(2, bool)
    step = Step({}, np.ones(2, np.float32), off, on, off, np.array([True, False]), (failure, None))
    episodes.see(step, 4)
    done = SimpleNamespace(logs=None, episodes=episodes, steps=4, updates=1)
    done.train, done.close = lambda **_: None, lambda: None
    monkeypatch.setattr(command, "_trainer", lambda _: done)
    with caplog.at_level(logging.WARNING):
        command.run(command.Options(env="its-id", steps=4, run=tmp_path))
    assert "1 of 2 episodes in this call ended because the environment failed" in caplog.text
    assert "KeyError: 'door' (in `step`; play.py:7 in step, your code)" in caplog.text
