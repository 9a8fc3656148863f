"""Paired evaluation: what is paired is equal, what is reported is what happened."""

import json
import math
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from counting import LENGTH
from evaluating import (
    ENVIRONMENT,
    GUESSERS,
    dreamer,
    guessed,
    rows,
    rows_of,
    saved_agent,
    score,
    told,
)
from helpers import ask, codes, nightly, slow, tiny_v1
from odd_episodes import id_of
from odd_players import Guesser, SideBySide

import thinkslow
from thinkslow import bank, gap, registry
from thinkslow.agent.abstract import About, AbstractAgent
from thinkslow.agent.agent import Agent
from thinkslow.agent.arms.arm import Arm
from thinkslow.agent.gates import Gated, Surprise, TwoStage
from thinkslow.agent.thinking import Thinking
from thinkslow.cli import main
from thinkslow.consent import stored
from thinkslow.envs.descriptions import described_environment
from thinkslow.evaluation import Evaluation, Occupied, evaluate, protocol, read
from thinkslow.evaluation.calibrate import calibrated, calibrated_in
from thinkslow.evaluation.curves import read_curve
from thinkslow.evaluation.play import play
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.subjects import settings, told_apart, written
from thinkslow.evaluation.video import record
from thinkslow.loading import agent_of
from thinkslow.objectives import SIG, Entropy, Evidence
from thinkslow.readouts import Soft
from thinkslow.saved import folder as checkpoint

pytestmark = pytest.mark.usefixtures("environments")

CHOSEN = {
    "none": Arm(Thinking()),
    "evidence": Arm(Thinking({Evidence(): 1.0}, steps=2, latent=Soft())),
    "zero": Arm(Thinking({SIG(): 1.0})),
    "hurried": Arm(Thinking({Evidence(): 1.0}, steps=2, latent=Soft()), deadline_ms=1e6),
    "control-lag": Arm(Thinking(lag=2)),
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("evaluation")
    saved = saved_agent(folder / "agent")
    agents = {name: agent_of(saved).thinking(how) for name, how in CHOSEN.items()}
    return evaluate(agents, ENVIRONMENT, episodes=3, seed=1, batch=2, out=folder / "out")


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("sig-3", "paper: state information gain, 3 imagined steps"),
        ("sig-3+steps=2+horizon=8", "`sig-3` with steps=2, horizon=8"),
        ("evidence+terms=reward,0.1*anchor", "`evidence` with terms=reward,0.1*anchor"),
        ("values:horizon=3", "`values` with horizon=3"),
        ("mine", ""),
    ],
)
def test_a_changed_arm_is_not_described_as_the_unchanged_one(label, said):
    """`sig-3` with another objective was described as the paper's."""
    assert settings("agent", label, Agent(dreamer()))["description"].startswith(said)


def test_every_arm_plays_the_same_environment_seeds(evaluated):
    for arm in CHOSEN:
        seeds = [row["environment_seed"] for row in rows_of(evaluated, arm)]
        assert seeds == [episode_seed(1, index) for index in range(3)]


def test_an_arm_of_no_steps_plays_the_very_episodes_of_the_base(evaluated):
    base, zero = (told(rows_of(evaluated, arm)) for arm in ("none", "zero"))
    for one, other in zip(base, zero, strict=True):
        assert one | {"arm": ""} == other | {"arm": ""}


def test_an_arm_with_a_deadline_plays_and_says_so(evaluated):
    (arm,) = (arm for arm in evaluated.summary["arms"] if arm["arm"] == "hurried")
    assert arm["deadline_ms"] == 1e6
    assert arm["thought_share"] == 1
    assert arm["latency_ms"]["median"] > 0


def test_the_summary_holds_the_means_and_differences_of_the_records(evaluated):
    for arm in evaluated.summary["arms"]:
        mine = rows_of(evaluated, arm["arm"])
        assert arm["episodes"] == len(mine) == 3
        for measure in ("score", "psnr", "ssim", "mse", "psnr_ahead_3"):
            expected = np.mean([row[measure] for row in mine])
            assert arm[measure]["mean"] == pytest.approx(expected)
    (difference,) = (
        row
        for row in evaluated.comparisons
        if (row["arm"], row["metric"], row["baseline"]) == ("evidence", "psnr", "none")
    )
    after, before = (
        np.array([row["psnr_gain"] for row in rows_of(evaluated, arm)])
        for arm in ("evidence", "none")
    )
    assert difference["difference"] == pytest.approx(np.mean(after))
    np.testing.assert_array_equal(before, 0)  # the base agent gains nothing on itself
    assert (difference["pairs"], difference["dropped"], difference["paired"]) == (3, 0, True)


def test_a_refinement_is_compared_with_beliefs_from_real_evidence(evaluated):
    rows = [row for row in evaluated.comparisons if row["metric"] == "psnr"]
    assert {row["baseline"] for row in rows if row["arm"] == "evidence"} == {"none", "control-lag"}
    assert all(row["belief_kl"] > 0 for row in rows_of(evaluated, "control-lag"))


def test_scores_and_lengths_are_those_of_the_episodes(evaluated):
    for row in rows(evaluated):
        assert row["length"] == LENGTH
        assert 0 <= row["score"] <= LENGTH
        assert not row["crashed"]
        assert not row["cut"]


def test_what_is_returned_is_what_is_on_disk_and_every_record_is_flat(evaluated):
    lines = (evaluated.folder / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == evaluated.episodes
    for row in (*evaluated.episodes, *evaluated.comparisons):
        assert all(isinstance(cell, str | int | float | bool | None) for cell in row.values())
    assert {*evaluated.episodes[0]} == {*evaluated.episodes[-1]}
    evaluated.report()
    summary = json.loads((evaluated.folder / "summary.json").read_text())
    assert summary == json.loads(json.dumps(evaluated.summary))


# --- playing and scoring -------------------------------------------------------------------------


# --- what an environment does wrong --------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_an_agent_of_no_known_architecture_is_evaluated_without_a_folder():
    result = guessed("Vector")
    assert len(result.episodes) == 18
    assert score(result)["difference"] > 1
    assert (score(result)["pairs"], score(result)["paired"]) == (9, True)
    assert all(row["psnr"] is None for row in rows(result))
    assert result.summary["notes"] == []


@pytest.mark.parametrize("key", ["id", "wrappers"])
@pytest.mark.parametrize("call", ["evaluate", "calibrated", "record", "measure", "fill"])
def test_no_function_imports_a_module_that_only_the_files_of_an_agent_name(call, key, tmp_path):
    """`record`, `gap.measure` and `bank.fill` imported it."""
    place = {"id": "CartPole-v1", "size": 64, "repeat": 1}
    place |= {"id": "unheard_of:Env-v0"} if key == "id" else {"wrappers": ["unheard_of:Wrapper"]}
    place = stored(place)  # as `load` does
    agent = Agent(codes(), policy=ask, about=About(name="theirs", environment=place))
    gated = Arm(Thinking({Entropy(): 1.0}, steps=1), gate=Surprise())
    out = tmp_path / "out.gif"
    calls = {
        "evaluate": lambda: evaluate({"none": agent}, place, episodes=2, seed=0),
        "calibrated": lambda: calibrated(agent.thinking(gated), place),
        "record": lambda: record(agent, place, out),
        "measure": lambda: gap.measure({"none": agent}, place, gap.Plan(beta=1.0), out),
        "fill": lambda: bank.fill(agent, place, bank.Plan(), out),
    }
    with pytest.raises(ValueError, match=r"files ask to import unheard_of:\w+"):
        calls[call]()
    assert not out.exists()


@pytest.mark.parametrize("wrong", ["repaet", "sizes", "Id"])
def test_an_unknown_setting_of_the_environment_is_refused_with_the_nearest(wrong):
    """It was dropped, so that another environment was played."""
    nearest = {"repaet": "repeat", "sizes": "size", "Id": "id"}[wrong]
    with pytest.raises(ValueError, match=f"'{wrong}'.*{nearest}"):
        evaluate(GUESSERS, {"id": "CartPole-v1", wrong: 4}, episodes=2, seed=0)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("environment", "error", "said"),
    [
        (gymnasium.make("CartPole-v1"), TypeError, "must be its id, or a mapping.*got <Time"),
        (5, TypeError, "must be its id, or a mapping"),
        ({"size": 64}, ValueError, "must have an `id`; got {'size': 64}"),
    ],
)
def test_what_is_no_description_of_an_environment_says_what_is(environment, error, said):
    """An environment that was made already was "'TimeLimit' object has no attribute 'items'"."""
    with pytest.raises(error, match=said):
        evaluate(GUESSERS, environment, episodes=2, seed=0)


def test_the_manifest_of_an_imported_agent_may_name_its_task():
    stored = {"id": "CartPole-v1", "repeat": 2, "task": "gym_cartpole"}
    assert described_environment(stored) == {"id": "CartPole-v1", "size": 64, "repeat": 2}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("agents", "remedy"),
    [
        ({"none": "collect-half"}, r"thinkslow.load\('collect-half'\)"),
        ({"a": {"none": None}}, "none is a NoneType"),
        ({3: Guesser()}, "name of an agent or an arm must be a text; got 3"),
        ({"a": {"": Guesser()}}, "name of an agent or an arm must be a text; got ''"),
        ({**GUESSERS, "slow": Thinking()}, r"agent\.thinking.*slow is a Thinking"),
    ],
)
def test_what_is_no_agent_is_refused_with_the_remedy(agents, remedy):
    with pytest.raises(TypeError, match=remedy):
        evaluate(agents, "CartPole-v1", episodes=2, seed=0)


@pytest.mark.usefixtures("quick")
def test_more_episodes_than_environments_are_those_of_other_batches():
    several, alone = guessed("Lengths"), guessed("Lengths", batch=2)
    assert told(several.episodes) == told(alone.episodes)


# --- folders, interruptions ----------------------------------------------------------------------


def test_the_cores_of_a_machine_are_those_that_may_be_used(monkeypatch):
    """A command kept to one core by `taskset` was said to have measured on all of them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert ", 1 core, " in protocol.machine()


# --- agents --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "score", [nightly(Surprise()), slow(TwoStage())], ids=lambda score: score.name
)
def test_a_gate_opens_in_the_share_that_it_is_calibrated_to(score):
    thinking = Thinking({Entropy(): 1.0}, steps=1)
    waiting = Gated(Agent(dreamer(), thinking), score, share=0.3)
    with SideBySide(ENVIRONMENT["id"], 4, size=16) as envs:
        gated = calibrated_in(waiting, envs, 0)
        assert isinstance(gated, Gated)
        calibration = [episode_seed(0, index, purpose=0xCA1B) for index in range(4)]
        played = play(gated, envs, calibration, 0)
    share = sum(one.thoughts for one in played) / sum(one.length for one in played)
    assert 0.1 < share < 0.6  # refined beliefs go other ways than those it was calibrated on
    with SideBySide(ENVIRONMENT["id"], 4, size=16) as envs:
        again = calibrated_in(waiting, envs, 0)
    assert isinstance(again, Gated)
    assert again.threshold == gated.threshold
    assert gated.threshold is not None
    assert math.isfinite(gated.threshold)


def test_any_other_agent_needs_no_calibration():
    agent = Guesser()
    assert calibrated(agent, id_of("Vector")) is agent


def test_an_agent_of_another_image_size_is_refused_and_leaves_no_folder(tmp_path):
    saved = saved_agent(tmp_path / "agent", image=24)
    with pytest.raises(ValueError, match=r"does not fit .*its image is 24x24x3, .* 16x16x3"):
        evaluate({"none": Agent(saved.model)}, ENVIRONMENT, episodes=2, seed=0, out=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_what_an_agent_cannot_play_is_known_before_it_plays(tmp_path):
    """`ambiguity` was refused only when the first decision was compiled."""
    agent = agent_of(saved_agent(tmp_path / "agent"))
    with pytest.raises(ValueError, match="variance is fixed"):
        agent.thinking("ambiguity-3")
    with pytest.raises(ValueError, match="thinkslow ensemble"):
        agent.thinking("pig-3")
    for name in ("sig-3", "evidence", "control-particles-16", "evidence-in-doubt"):
        assert agent.thinking(name).about.name == "agent"


@pytest.mark.parametrize(
    ("agents", "more", "said"),
    [
        (GUESSERS, {"episodes": 1}, "`episodes` must be 2 or more"),
        (GUESSERS, {"batch": 0}, "`batch` must be 1 or more"),
        (GUESSERS, {"seed": -3}, "`seed` must be between 0 and 2147483647; got -3"),
        (GUESSERS, {"max_decisions": 0}, "`max_decisions` must be 1 or more"),
        ({"bold": Guesser()}, {}, "must include `none`"),
        ({}, {}, "got none"),
        ({"a": {"none": Guesser()}, "none": Guesser()}, {}, "got both"),
        ({"a": {"none": Guesser()}, "b": {"none": Guesser()}}, {"pool": True}, "training seed"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_impossible_evaluations_are_refused(agents, more, said, tmp_path):
    settings: dict[str, Any] = {"episodes": 2, "seed": 0, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=said):
        evaluate(agents, id_of("Vector"), **settings | more)
    assert not (tmp_path / "out").exists()


def test_settings_that_differ_by_a_text_are_recorded_apart():
    """A finished evaluation of one estimator was shown as that of the other."""
    one, other = (written(Thinking({SIG(estimator=name): 1.0})) for name in ("kl", "entropies"))
    assert one != other
    assert "entropies" in str(other["terms"])


@pytest.mark.usefixtures("untyped")
def test_numbers_of_an_evaluation_are_integers_also_of_numpy(tmp_path):
    settings: dict[str, Any] = {"seed": np.int64(0), "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=r"`episodes` must be 2 or more.*got 1\."):
        evaluate(GUESSERS, id_of("Vector"), episodes=np.int64(1), **settings)  # pyright: ignore
    with pytest.raises(TypeError, match=r"`episodes` must be an integer; got 2\.5"):
        evaluate(GUESSERS, id_of("Vector"), episodes=2.5, **settings)  # pyright: ignore


EXAMPLES = {"term": "--terms=reward", "update": "--update=sign:0.05", "gate": "--gate=unforeseen"}


@pytest.mark.slow
def test_the_examples_are_played_by_their_names(tmp_path, capsys):
    """A term, an update and a gate score from files of a user, each named by a flag."""
    agent = tmp_path / "agent"
    saved_agent(agent)
    folder, named = Path(__file__).parents[1] / "examples", [*EXAMPLES.values(), "--share", "0.5"]
    imported = [word for kind in EXAMPLES for word in ("--import", f"{folder}/own_{kind}.py")]
    given = ["--env", ENVIRONMENT["id"], "--episodes", "2", "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(agent), "--arms", "sig-3", *imported, *named, *given]) == 0
    assert "--import" in capsys.readouterr().out  # the command for a verdict
    result = read(tmp_path / "out")
    [mine] = [arm for arm in result.header.arms if arm["arm"] != "none"]
    assert mine["gate"] == "unforeseen"
    assert mine["thinking"]["update"] == "Sign(step_size=0.05)"
    assert mine["thinking"]["terms"] == {"Reward()": 1.0}
    assert any(row["thought_share"] for row in result.rows() if row["arm"] != "none")


def test_several_agents_are_told_apart_by_their_paths():
    paths = [Path("runs/a/agents/200"), Path("runs/b/agents/200"), Path("other")]
    assert told_apart(["x", "x", "y"], paths) == ["x (a)", "x (b)", "y"]
    with pytest.raises(ValueError, match="given twice"):
        told_apart(["x", "x"], [paths[0], Path("runs/../runs/a/agents/200")])


def test_a_crashed_episode_is_no_point_of_a_curve(tmp_path):
    lines = [{"step": 1, "score": 3.0, "crashed": True}, {"step": 2, "score": 1.0}]
    text = "".join(json.dumps({"episode": line}) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_curve(tmp_path / "metrics.jsonl") == {"step": [2], "score": [1.0]}


def test_a_curve_is_the_mean_score_by_decision(tmp_path):
    lines = [{"episode": {"step": step, "score": step / 10}} for step in range(400)]
    file = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps(line) + "\n" for line in [{"step": 1}, *lines])
    # A damaged line, of which an evaluation failed, and one that is being written.
    file.write_text('{"episode"\n' + 10**5 * "[" + "\n[3]\n" + whole + '{"episode": {"st')
    curve = read_curve(file)
    assert curve is not None
    assert len(curve["step"]) == 200
    np.testing.assert_allclose(curve["score"], np.array(curve["step"]) / 10)


@pytest.mark.nightly  # in CI, test_importers plays one of danijar's
def test_an_agent_of_2023_is_evaluated_like_any_other(tmp_path):
    checkpoint.save(
        tmp_path / "old",
        tiny_v1(),
        name="old",
        environment=ENVIRONMENT,
        training={"steps": 7, "seed": 3, "preset": "test"},
    )
    agent = agent_of(checkpoint.load(tmp_path / "old"))
    agents = {name: agent.thinking(how) for name, how in CHOSEN.items()}
    result = evaluate(agents, ENVIRONMENT, episodes=2, seed=1, batch=2)
    base, zero = (told(rows_of(result, arm)) for arm in ("none", "zero"))
    assert [row | {"arm": ""} for row in base] == [row | {"arm": ""} for row in zero]
    assert [row["length"] for row in rows_of(result, "evidence")] == [LENGTH, LENGTH]
    assert any(row["psnr_gain"] != 0 for row in rows_of(result, "evidence"))


def test_settings_of_every_arm_are_written_as_json():
    """Those without a bound, such as paper-z, ended an evaluation at its summary."""
    for name in registry.entries("arm"):
        text = json.dumps(written(thinkslow.arm(name).thinking), allow_nan=False)
        assert json.loads(text)["steps"] == thinkslow.arm(name).thinking.steps


@pytest.mark.nightly
@pytest.mark.usefixtures("quick")
def test_every_named_arm_plays_to_its_page(tmp_path):
    """Each alone was tried on single decisions; some ended an evaluation at its pictures."""
    agent = agent_of(saved_agent(tmp_path / "agent"))
    played: dict[str, AbstractAgent] = {"none": agent}
    refused = set()
    for name in registry.entries("arm"):
        try:
            played[name] = agent.thinking(name)
        except ValueError:  # an ensemble, continuous actions or a decoder with a spread
            refused.add(name.partition("-")[0])
    assert refused <= {"pig", "ambiguity", "values"}, refused
    # A first episode of 23 decisions is long enough for pictures of what came later.
    seed = next(seed for seed in range(99) if episode_seed(seed, 0) % 3 == 2)
    out = tmp_path / "out"
    where = {"id": id_of("Lengths"), "size": 16}
    result = evaluate(played, where, episodes=2, seed=seed, batch=2, out=out)
    assert {row["arm"] for row in result.episodes if row["crashed"] is False} == {*played}
    result.report()
    assert all((out / "strips" / f"{at}-0.npz").exists() for at in range(len(played)))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_an_evaluation_of_real_settings_is_known_again(evaluated, tmp_path):
    """Settings hold tuples, which JSON gives back as lists."""
    agent = agent_of(checkpoint.load(evaluated.folder.parent / "agent"))
    agents = {name: agent.thinking(how) for name, how in CHOSEN.items()}
    again = {"episodes": 3, "seed": 1, "batch": 2, "out": evaluated.folder}
    assert evaluate(agents, ENVIRONMENT, **again).episodes == evaluated.episodes
    agents["evidence"] = agent.thinking("evidence")
    with pytest.raises(Occupied, match=r"its arms differ \(thinking of evidence"):
        evaluate(agents, ENVIRONMENT, **again)
