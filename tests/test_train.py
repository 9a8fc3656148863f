"""A run that is stopped, killed or resumed is the run that was not."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from thinkslow.distributions import Gaussian
from thinkslow.dreamer import saved as checkpoint
from thinkslow.dreamer.config import MLPConfig, ModelConfig, TrainConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.nets import named
from thinkslow.dreamer.training import experience
from thinkslow.dreamer.training.trainer import Diverged, RunConfig, Trainer
from thinkslow.storage import store

ENVIRONMENT = "counting:thinkslow-test/Counting-v0"
SMALL = MLPConfig(1, 16)
MODEL = ModelConfig(
    deter=16, hidden=16, classes=4, stoch=4, blocks=2, depth=4, decoder_blocks=2, vision="patch",
    encoder=SMALL, decoder=SMALL, reward=SMALL, continuation=SMALL, policy=SMALL, value=SMALL,
    reward_bins=15, value_bins=15,
)  # fmt: skip
LEARNING = TrainConfig(
    batch_size=2, batch_length=4, imagination=3, imagination_starts=2, replay_ratio=4.0,
    replay_capacity=120, warmup=1, learning_rate=1e-3,
)  # fmt: skip
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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parent))
    run = tmp_path_factory.mktemp("whole") / "run"
    weights = finish(begin(run), 60)
    patch.undo()
    return run, weights


@pytest.mark.parametrize("stops", [(14,), (22, 40, 42)])
def test_a_resumed_run_has_the_same_weights_bit_for_bit(tmp_path, uninterrupted, stops):
    run = tmp_path / "run"
    finish(begin(run), stops[0])
    for stop in stops[1:]:
        finish(Trainer.resume(run), stop)
    weights = finish(Trainer.resume(run), 60)
    for name, array in uninterrupted[1].items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def test_a_resumed_run_writes_the_same_metrics(tmp_path, uninterrupted):
    run = tmp_path / "run"
    trainer = begin(run)
    trainer.train(steps=30)
    trainer.save()
    for _ in range(5):  # decisions that the kill will lose
        trainer._advance()
    trainer.close()
    finish(Trainer.resume(run), 60)
    assert (run / "metrics.jsonl").read_text() == (uninterrupted[0] / "metrics.jsonl").read_text()


def test_a_run_that_resumes_before_an_update_still_writes_its_metrics(tmp_path):
    """It failed with AttributeError, again at every resume, when a log line came first."""
    rare = dataclasses.replace(LEARNING, replay_ratio=0.6)  # an update every 14 decisions
    run = tmp_path / "run"
    finish(begin(run, rare), 50)
    trainer = Trainer.resume(run)
    finish(trainer, 58)
    assert trainer.last_metrics


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, uninterrupted):
    run = tmp_path / "run"
    script = (
        "import sys; from pathlib import Path; import test_train as t\n"
        "if __name__ == '__main__':\n"
        "    trainer = t.begin(Path(sys.argv[1]))\n"
        "    trainer.config = t.dataclasses.replace(trainer.config, save_every=0.2)\n"
        "    trainer.train(steps=10**9)\n"
    )
    (tmp_path / "main.py").write_text(script)
    process = subprocess.Popen([sys.executable, str(tmp_path / "main.py"), str(run)])
    try:
        deadline = time.monotonic() + 120
        while not (run / "latest" / "manifest.json").exists():
            assert time.monotonic() < deadline, "the run saved nothing in two minutes"
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved = store.read_manifest(run / "latest")["counters"]["steps"]
    assert saved > 0
    trainer = Trainer.resume(run)
    steps = max(60, saved)
    weights = finish(trainer, steps)
    if steps == 60:
        for name, array in uninterrupted[1].items():
            np.testing.assert_array_equal(weights[name], array, err_msg=name)


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


def test_ctrl_c_saves_before_it_stops(tmp_path):
    trainer = begin(tmp_path / "run")

    def press(progress) -> None:
        if progress.steps == 20:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer.train(steps=1000, show=press)
    trainer.close()
    assert store.read_manifest(tmp_path / "run" / "latest")["counters"]["steps"] == 20


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    trainer = begin(tmp_path / "run")
    trainer.train(steps=30)
    good = {name: np.array(array) for name, array in named(trainer.learner).items()}
    trainer.replay._rows["reward"][:] = np.nan
    with pytest.raises(Diverged, match=r"not finite .*latest"):
        trainer.train(steps=1000)
    trainer.close()
    saved, _ = store.read(tmp_path / "run" / "latest")
    for name, array in good.items():
        np.testing.assert_array_equal(saved[f"learner/{name}"], array, err_msg=name)


def test_budgets_keep_agents_that_load(uninterrupted):
    run, weights = uninterrupted
    assert sorted(path.name for path in (run / "agents").iterdir()) == ["24", "60"]
    saved = checkpoint.load(run / "agents" / "60")
    assert saved.manifest["training"]["steps"] == 60
    for name, array in named(saved.model).items():
        np.testing.assert_array_equal(array, weights[f"model/{name}"], err_msg=name)


def test_the_log_says_how_it_went(uninterrupted):
    text = (uninterrupted[0] / "log.txt").read_text()
    assert "begun at step 0" in text
    assert "step 56, update" in text


def test_metrics_are_one_json_object_a_line(uninterrupted):
    lines = [
        json.loads(text) for text in (uninterrupted[0] / "metrics.jsonl").read_text().splitlines()
    ]
    assert any("episode" in line for line in lines)
    assert all(np.isfinite(line["loss/total"]) for line in lines if "loss/total" in line)


def test_a_folder_that_holds_a_run_is_not_overwritten(uninterrupted):
    with pytest.raises(FileExistsError, match="--resume"):
        begin(uninterrupted[0])


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(store.Missing, match=r"config\.json is missing"):
        Trainer.resume(tmp_path)


@pytest.mark.parametrize("change", [{"run": {}}, {"learning": {"speed": 1}}, {"model": {}}])
def test_a_run_that_describes_no_run_is_damaged(tmp_path, uninterrupted, change):
    described = json.loads((uninterrupted[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    with pytest.raises(store.Damaged, match="does not describe a run of this version"):
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
    np.testing.assert_array_equal(batch.observation["image"], rows["image"][:, 1:])
    np.testing.assert_array_equal(batch.reward, rows["reward"][:, 1:])
    trainer.close()


def test_a_replay_too_small_to_learn_from_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`replay_capacity` must hold two sequences"):
        begin(tmp_path / "run", dataclasses.replace(LEARNING, replay_capacity=19))


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="`environments` must be 1 or more; got 0"):
        dataclasses.replace(CONFIG, environments=0)
    with pytest.raises(ValueError, match="`batch_size` must be 1 or more; got 0"):
        dataclasses.replace(LEARNING, batch_size=0)
