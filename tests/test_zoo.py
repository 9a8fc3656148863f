"""The bundled agents: small, and all that they need to think is with them."""

import dataclasses
import json
import os
from pathlib import Path

import bundle
import pytest

from thinkslow import zoo
from thinkslow.agent.agent import Agent
from thinkslow.agent.choices import Values
from thinkslow.cli import main
from thinkslow.dreamer.config import train_preset
from thinkslow.loading import agent_of
from thinkslow.saved import folder as checkpoint
from thinkslow.storage import store
from thinkslow.weights import named

COUNTING = "counting:thinkslow-test/Counting-v0"
LIMIT = 12_800_000
"""Bytes of all bundled agents together."""


@pytest.fixture(autouse=True)
def importable(monkeypatch) -> None:
    """Processes of a `VectorEnv` find the environment of these tests."""
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))


def test_the_bundled_agents_together_stay_small():
    files = [path for name in zoo.names() for path in zoo.path(name).iterdir()]
    assert sum(path.stat().st_size for path in files) < LIMIT


@pytest.mark.parametrize("name", zoo.names())
def test_a_bundled_agent_has_an_ensemble_a_critic_and_the_range_of_its_returns(name):
    saved = checkpoint.load(zoo.path(name))
    assert saved.members is not None
    assert saved.members.count == saved.manifest["ensemble"]["members"] == 4
    assert float(saved.model.value(saved.model.initial()).mean()) > 0
    agent = agent_of(saved)
    known = saved.manifest["training"]["returns"]
    assert agent.returns == max(1.0, known["high"] - known["low"]) >= 1
    slow = agent.thinking("values")
    assert isinstance(slow, Agent)
    assert slow.settings.choice == Values()


@pytest.mark.nightly  # in CI, agents think by an ensemble that a command has fitted
def test_a_bundled_agent_thinks_by_its_ensemble(tmp_path, capsys):
    """Episodes of nine decisions, for the sake of time, in place of its task's 250."""
    arms = ["--arms", "pig-3", "--gate", "disagreement", "--share", "0.9", "--env", COUNTING]
    few = ["--episodes", "2", "--batch", "1", "--json"]
    agent = str(zoo.path("collect-early"))
    assert main(["evaluate", agent, *arms, *few, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    rows = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    thought = [row for row in rows if row["arm"].startswith("pig-3")]
    assert any(row["thought_share"] > 0 and row["belief_kl"] > 0 for row in thought)


def test_inspect_says_that_a_critic_is_left_out(capsys):
    assert main(["inspect", str(Path(__file__).parent / "agents" / "collect-gaussian")]) == 0
    assert "cannot be trained" in capsys.readouterr().out


@pytest.mark.nightly  # what only maintainers run; the command that fits an ensemble is tested in CI
def test_bundling_keeps_the_critic_and_fits_an_ensemble(dreamer, monkeypatch, tmp_path):
    learning = dataclasses.asdict(train_preset("tiny")) | {"precision": "float32"}
    agent = tmp_path / "run" / "agents" / "7"
    agent.parent.mkdir(parents=True)
    training = {"steps": 7, "seed": 3, "preset": "tiny", "configuration": learning}
    checkpoint.save(
        agent,
        dreamer,
        name="7",
        training=training,
        environment={"id": COUNTING, "size": 16, "repeat": 1},
    )
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    monkeypatch.setattr(bundle, "FOLDER", tmp_path / "zoo")
    saved = checkpoint.load(bundle.bundle(tmp_path / "run", 7, "small"))
    assert saved.name == "small"
    assert saved.manifest["training"]["command"].endswith("--learning.precision float32")
    assert {kind for _, kind in saved.manifest["weights"].values()} == {"float16"}
    assert saved.members is not None
    assert saved.manifest["ensemble"]["decisions"] == 4000
    assert set(named(saved.model)) == set(named(dreamer))
    assert sorted(os.listdir(tmp_path / "zoo" / "small")) == sorted(
        [store.ENSEMBLE, store.MANIFEST, store.WEIGHTS]
    )
