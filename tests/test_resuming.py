"""A run that is stopped, killed or resumed is the run that was not."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import slow
from training import (
    CONFIG,
    LEARNING,
    MODEL,
    Killed,
    begin,
    counters,
    finish,
    killed_at,
    lines,
)

from thinkslow.distributions import Gaussian
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.training.stopping import stoppable
from thinkslow.dreamer.training.trainer import Trainer
from thinkslow.saved import folder as checkpoint
from thinkslow.storage import manifest, store
from thinkslow.weights import named

pytestmark = pytest.mark.usefixtures("environments")


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


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, uninterrupted):
    run = tmp_path / "run"
    script = (
        "import conftest, dataclasses, sys; from pathlib import Path; import training as t\n"
        "if __name__ == '__main__':\n"
        "    trainer = t.begin(Path(sys.argv[1]))\n"
        "    trainer.config = dataclasses.replace(trainer.config, save_every=0.2)\n"
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
