"""A run: its limits, metrics, agents and what it is refused for."""

import dataclasses
import errno
import logging
import re
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import Names
from helpers import nightly, slow
from tensorboardX.event_file_writer import EventsWriter
from training import (
    CONFIG,
    LEARNING,
    MODEL,
    begin,
    finish,
    lines,
)

from thinkslow import memory
from thinkslow.cli import train as command
from thinkslow.dreamer.training import experience
from thinkslow.dreamer.training.episodes import Episodes
from thinkslow.dreamer.training.logs import Logs
from thinkslow.dreamer.training.trainer import Diverged, Trainer
from thinkslow.envs import Failure, Step
from thinkslow.saved import folder as checkpoint
from thinkslow.storage import saves, store
from thinkslow.storage.atomic import Full
from thinkslow.storage.events import Events
from thinkslow.weights import named

pytestmark = pytest.mark.usefixtures("environments")


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


def test_a_run_copied_by_hard_links_leaves_the_other_as_it_is(tmp_path):
    """`cp -al`, then `--resume` of the copy: its metrics and log also went into the first run."""
    for folder in (first := tmp_path / "first", copy := tmp_path / "copy"):
        folder.mkdir()
    for name in ("metrics.jsonl", "log.txt"):
        (first / name).write_text("{}\n")
        (copy / name).hardlink_to(first / name)
    logs = Logs(copy, length=3)
    logs.write({"step": 1}, {}, 1)
    logs.close()
    assert [(first / name).read_text() for name in ("metrics.jsonl", "log.txt")] == ["{}\n"] * 2
    assert (copy / "metrics.jsonl").read_text() == '{}\n{"step": 1}\n'


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
