"""Paired evaluation: what is paired is equal, what is reported is what happened."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from counting import LENGTH
from helpers import tiny_classic

from thinkslow.agent.agent import Agent
from thinkslow.agent.presets import ARMS, Arm
from thinkslow.agent.thinking import Thinking
from thinkslow.dreamer import saved as checkpoint
from thinkslow.dreamer.config import MLPConfig, ModelConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.envs import VectorEnv
from thinkslow.evaluation import metrics
from thinkslow.evaluation.curves import read_curve
from thinkslow.evaluation.protocol import episode_seed, evaluate, play, unable
from thinkslow.spaces import Space

ENVIRONMENT = {"id": "counting:thinkslow-test/Counting-v0", "size": 16, "repeat": 1}
SMALL = MLPConfig(1, 16)
MODEL = ModelConfig(
    deter=16, hidden=16, classes=4, stoch=4, blocks=2, depth=4, decoder_blocks=2, vision="patch",
    encoder=SMALL, decoder=SMALL, reward=SMALL, continuation=SMALL, policy=SMALL, value=SMALL,
    reward_bins=15, value_bins=15,
)  # fmt: skip
CHOSEN = {
    "none": ARMS["none"],
    "evidence": Arm(Thinking(terms=(("evidence", 1.0),), steps=2, latent="soft"), "refined"),
    "zero": Arm(Thinking(terms=(("sig", 1.0),), steps=0), "no steps"),
    "hurried": Arm(
        Thinking(terms=(("evidence", 1.0),), steps=2, latent="soft"), "in time", deadline_ms=1e6
    ),
    "control-lag": Arm(Thinking(lag=2), "the last two frames again"),
}


def saved_agent(folder: Path, image: int = 16) -> checkpoint.Saved:
    observations = {"image": Space((image, image, 3), "uint8")}
    model = Dreamer(observations, {"action": Space((), "int32", 3)}, MODEL, key=jr.key(0))
    checkpoint.save(
        folder, model, name=folder.name, environment=ENVIRONMENT,
        training={"steps": 7, "seed": 3, "preset": "test"},
    )  # fmt: skip
    return checkpoint.load(folder)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    patch = pytest.MonkeyPatch()
    here = str(Path(__file__).parent)
    patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    folder = tmp_path_factory.mktemp("evaluation")
    summary = evaluate(
        [saved_agent(folder / "agent")], CHOSEN, environment=ENVIRONMENT, episodes=3, seed=1,
        batch=2, out=folder / "out",
    )  # fmt: skip
    patch.undo()
    return folder, summary


def records(folder: Path) -> list[dict]:
    return [
        json.loads(line) for line in (folder / "out" / "episodes.jsonl").read_text().splitlines()
    ]


def test_every_arm_plays_the_same_environment_seeds(evaluated):
    seeds = {
        arm: [row["environment_seed"] for row in records(evaluated[0]) if row["arm"] == arm]
        for arm in CHOSEN
    }
    assert seeds["none"] == [episode_seed(1, index) for index in range(3)]
    assert all(seeds[arm] == seeds["none"] for arm in CHOSEN)


def test_an_arm_of_no_steps_plays_the_very_episodes_of_the_base(evaluated):
    rows = records(evaluated[0])
    base = [row for row in rows if row["arm"] == "none"]
    zero = [row for row in rows if row["arm"] == "zero"]
    for one, other in zip(base, zero, strict=True):
        assert one | {"arm": ""} == other | {"arm": ""}


def test_an_arm_with_a_deadline_plays_and_says_so(evaluated):
    (arm,) = (arm for arm in evaluated[1]["arms"] if arm["arm"] == "hurried")
    assert arm["deadline_ms"] == 1e6
    assert arm["thought_share"] == 1
    assert arm["latency_ms"]["median"] > 0


def test_the_summary_holds_the_means_and_differences_of_the_records(evaluated):
    folder, summary = evaluated
    rows = records(folder)
    for arm in summary["arms"]:
        mine = [row for row in rows if row["arm"] == arm["arm"]]
        assert arm["episodes"] == len(mine) == 3
        for measure in ("score", "psnr", "ssim", "mse"):
            assert arm[measure]["mean"] == pytest.approx(np.mean([row[measure] for row in mine]))
    (difference,) = (
        row
        for row in summary["comparisons"]
        if (row["arm"], row["metric"], row["baseline"]) == ("evidence", "psnr", "none")
    )
    after, before = (
        np.array([row["gain"]["psnr"] for row in rows if row["arm"] == arm])
        for arm in ("evidence", "none")
    )
    assert difference["difference"] == pytest.approx(np.mean(after))
    np.testing.assert_array_equal(before, 0)  # the base agent gains nothing on itself
    assert difference["pairs"] == 3


def test_a_refinement_is_compared_with_beliefs_from_real_evidence(evaluated):
    rows = [row for row in evaluated[1]["comparisons"] if row["metric"] == "psnr"]
    assert {row["baseline"] for row in rows if row["arm"] == "evidence"} == {"none", "control-lag"}
    mine = [row for row in records(evaluated[0]) if row["arm"] == "control-lag"]
    assert all(row["belief_kl"] > 0 for row in mine)


def test_scores_and_lengths_are_those_of_the_episodes(evaluated):
    for row in records(evaluated[0]):
        assert row["length"] == LENGTH
        assert 0 <= row["score"] <= LENGTH
        assert not row["crashed"]


def test_the_summary_on_disk_is_the_summary_returned(evaluated):
    folder, summary = evaluated
    assert json.loads((folder / "out" / "summary.json").read_text()) == json.loads(
        json.dumps(summary)
    )


@pytest.fixture
def played(tmp_path, monkeypatch):
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    saved = saved_agent(tmp_path / "agent")
    with VectorEnv(ENVIRONMENT["id"], 2, size=16) as envs:
        yield saved, play(Agent(saved.model), envs, [11, 12], 0)


def test_the_frame_after_a_state_is_the_one_its_action_led_to(played):
    """Rows of the picture light up with the count, and action 2 counts on."""
    _, episodes = played
    lit = (episodes.frames[..., 0, 0] == 200).sum(-1)
    counted = np.argmax(episodes.actions, -1) == 2
    np.testing.assert_array_equal(np.diff(lit, axis=0), counted)
    np.testing.assert_array_equal(episodes.rewards, counted.sum(0))


def test_open_loop_scores_compare_with_the_frame_that_came(played):
    from thinkslow.evaluation.protocol import _image_scores

    saved, episodes = played
    scores = _image_scores(saved.model, episodes, 0, LENGTH)
    model = saved.model
    state = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), episodes.states)
    for action in jnp.asarray(episodes.actions[:3, 0]):
        memory, prior = model.predict(state, action, jnp.zeros((), bool))
        state = type(state)(memory, prior.mode())
    predicted = np.asarray(model.decode(state)["image"].mode())
    expected = metrics.psnr(predicted, episodes.frames[3, 0])
    assert scores["open_loop"]["3"]["psnr"] == pytest.approx(float(expected), rel=1e-5)


def test_an_agent_of_another_image_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    saved = saved_agent(tmp_path / "agent", image=24)
    with pytest.raises(ValueError, match=r"does not fit .*its image is 24x24x3, .* 16x16x3"):
        evaluate([saved], CHOSEN, environment=ENVIRONMENT, episodes=2, seed=0, out=tmp_path / "out")


def test_what_an_agent_cannot_play_is_known_before_it_plays(tmp_path):
    """`ambiguity` was refused only when the first decision was compiled."""
    saved = saved_agent(tmp_path / "agent")
    assert unable(saved, ARMS["ambiguity-3"]) == (
        "its decoder's variance is fixed, so that the term is constant"
    )
    assert unable(saved, ARMS["pig-3"]) == "it has no ensemble: thinkslow ensemble AGENT"
    for name in ("sig-3", "evidence", "control-particles-16", "evidence-in-doubt"):
        assert unable(saved, ARMS[name]) is None


def test_impossible_evaluations_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`episodes` must be 2 or more"):
        evaluate([], CHOSEN, environment=ENVIRONMENT, episodes=1, seed=0, out=tmp_path)
    with pytest.raises(ValueError, match="must include `none`"):
        evaluate(
            [], {"zero": CHOSEN["zero"]}, environment=ENVIRONMENT, episodes=2, seed=0, out=tmp_path
        )


def test_a_curve_is_the_mean_score_by_decision(tmp_path):
    lines = [{"episode": {"step": step, "score": step / 10}} for step in range(400)]
    file = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps(line) + "\n" for line in [{"step": 1}, *lines])
    file.write_text(whole + '{"episode": {"st')  # a run that is being written
    curve = read_curve(file)
    assert curve is not None
    assert len(curve["step"]) == 200
    np.testing.assert_allclose(curve["score"], np.array(curve["step"]) / 10)


@pytest.mark.slow
def test_an_agent_of_2023_is_evaluated_like_any_other(tmp_path, monkeypatch):
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    checkpoint.save(
        tmp_path / "old", tiny_classic(), name="old", environment=ENVIRONMENT,
        training={"steps": 7, "seed": 3, "preset": "test"},
    )  # fmt: skip
    evaluate(
        [checkpoint.load(tmp_path / "old")], CHOSEN, environment=ENVIRONMENT, episodes=2, seed=1,
        batch=2, out=tmp_path / "out",
    )  # fmt: skip
    rows: dict[str, list[dict]] = {arm: [] for arm in CHOSEN}
    for row in records(tmp_path):
        rows[row.pop("arm")].append(row)
    assert rows["none"] == rows["zero"]
    assert [row["length"] for row in rows["evidence"]] == [LENGTH, LENGTH]
    assert any(row["gain"]["psnr"] != 0 for row in rows["evidence"])
