"""Paired evaluation: what is paired is equal, what is reported is what happened."""

import functools
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import odd_episodes
import pytest
from counting import LENGTH
from helpers import ask, codes, nightly, slow, smallest_config, tiny_v1, with_random_weights
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
from thinkslow.cli.results import progress, show_result
from thinkslow.consent import stored
from thinkslow.dreamer.model import Dreamer
from thinkslow.envs import Step
from thinkslow.envs.descriptions import described_environment
from thinkslow.evaluation import Evaluation, Failing, Occupied, evaluate, images, protocol, read
from thinkslow.evaluation.calibrate import calibrated, calibrated_in
from thinkslow.evaluation.curves import read_curve
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.play import play
from thinkslow.evaluation.scoring import CHUNK, EVERY, Scorer
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.subjects import settings, told_apart, written
from thinkslow.evaluation.video import record
from thinkslow.loading import agent_of
from thinkslow.objectives import SIG, Entropy, Evidence
from thinkslow.readouts import Soft
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space
from thinkslow.storage.lock import Locked, claim

ENVIRONMENT = {"id": "counting:thinkslow-test/Counting-v0", "size": 16, "repeat": 1}
MODEL = smallest_config()
CHOSEN = {
    "none": Arm(Thinking()),
    "evidence": Arm(Thinking({Evidence(): 1.0}, steps=2, latent=Soft())),
    "zero": Arm(Thinking({SIG(): 1.0})),
    "hurried": Arm(Thinking({Evidence(): 1.0}, steps=2, latent=Soft()), deadline_ms=1e6),
    "control-lag": Arm(Thinking(lag=2)),
}
LATENCIES = ("latency_ms", "latency_ms_mean", "latency_ms_p10", "latency_ms_p90")
GUESSERS = {"none": Guesser(), "bold": Guesser(prefers=2)}


@pytest.fixture(scope="module", autouse=True)
def environments():
    """Environments of the tests are found in the processes of a `VectorEnv`."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", odd_episodes.importable())
    yield
    patch.undo()


@functools.cache
def dreamer(image: int = 16, names: tuple[str, ...] = ("image",)) -> Dreamer:
    observations = {name: Space((image, image, 3), "uint8") for name in names}
    actions = {"action": Space((), "int32", 3)}
    shape = jax.eval_shape(lambda: Dreamer(observations, actions, MODEL, key=jr.key(0)))
    return with_random_weights(shape, 0)


def saved_agent(folder: Path, image: int = 16) -> checkpoint.Saved:
    checkpoint.save(
        folder,
        dreamer(image),
        name=folder.name,
        environment=ENVIRONMENT,
        training={"steps": 7, "seed": 3, "preset": "test"},
    )
    return checkpoint.load(folder)


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without the milliseconds, in one order."""
    kept = [{key: value for key, value in row.items() if key not in LATENCIES} for row in rows]
    return sorted(kept, key=lambda row: (row["agent"], row["arm"], row["episode"]))


def table(result: Evaluation) -> dict[str, Any]:
    """The summary without milliseconds and without who made it when."""
    summary = json.loads(json.dumps(result.summary))
    for arm in summary["arms"]:
        arm["latency_ms"] = None
    return summary | {"protocol": None}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("evaluation")
    saved = saved_agent(folder / "agent")
    agents = {name: agent_of(saved).thinking(how) for name, how in CHOSEN.items()}
    return evaluate(agents, ENVIRONMENT, episodes=3, seed=1, batch=2, out=folder / "out")


def rows(result: Evaluation) -> list[dict[str, Any]]:
    return result.episodes


def rows_of(result: Evaluation, arm: str) -> list[dict[str, Any]]:
    return [row for row in rows(result) if row["arm"] == arm]


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


@pytest.mark.usefixtures("quick")
def test_an_arm_of_other_numbers_is_another_evaluation(tmp_path):
    guessed("Vector", out=tmp_path, episodes=2)
    other = GUESSERS | {"bold": Guesser(prefers=1)}
    with pytest.raises(Occupied, match="numbers of bold"):
        evaluate(other, id_of("Vector"), episodes=2, seed=0, batch=3, out=tmp_path)


class Unready(Guesser):
    """An agent whose code fails, until it is edited."""

    def act(self, *given: Any, **named: Any) -> Any:
        if self.prefers == 2:
            raise ArithmeticError("not yet")
        return super().act(*given, **named)


@pytest.mark.usefixtures("quick")
def test_an_arm_that_failed_may_be_edited_and_played_in_the_same_folder(tmp_path):
    """Each attempt at a term of one's own needed another folder, with the base arm played again."""
    settings: dict[str, Any] = {"episodes": 2, "seed": 0, "batch": 3, "out": tmp_path}
    with pytest.raises(ArithmeticError):
        evaluate({"none": Guesser(), "mine": Unready(prefers=2)}, id_of("Vector"), **settings)
    before = read(tmp_path).episodes
    result = evaluate({"none": Guesser(), "mine": Unready(prefers=1)}, id_of("Vector"), **settings)
    assert len(result.episodes) == 4
    assert result.records.episodes[:2] == before
    with pytest.raises(Occupied, match="numbers of mine"):
        evaluate({"none": Guesser(), "mine": Unready(prefers=0)}, id_of("Vector"), **settings)


def test_an_arm_whose_code_was_edited_is_another_arm(tmp_path, monkeypatch):
    """A stopped evaluation went on with an edited term as if it were the same."""
    monkeypatch.syspath_prepend(tmp_path)

    def code(body: str, below: str = "") -> str:
        name = f"edited_{len(list(tmp_path.iterdir()))}"
        text = f"from odd_players import Guesser\n\n\nclass Mine(Guesser):\n    {body}\n{below}"
        (tmp_path / f"{name}.py").write_text(text)
        found = settings("agent", "mine", importlib.import_module(name).Mine(prefers=1))["code"]
        assert found is not None
        return found

    once = code("seen = 1")
    assert code("seen = 1", below="EPISODES = 3\n") == once
    assert code("seen = 2") != once
    assert settings("agent", "none", Agent(dreamer()))["code"] is None


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


class Everything:
    """Keeps what a block's decisions were."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.states: list[Any] = []
        self.actions: list[np.ndarray] = []
        self.playing: list[np.ndarray] = []

    def began(self, observation):
        self.frames.append(observation["image"])

    def decided(self, playing, thought, action, step):
        self.playing.append(playing.copy())
        self.states.append(jax.tree.map(np.asarray, thought.state))
        self.actions.append(np.asarray(action))
        self.frames.append(step.observation["image"])


def test_the_frame_after_a_state_is_the_one_its_action_led_to():
    """Rows of the picture light up with the count, and action 2 counts on."""
    seen = Everything()
    with SideBySide(ENVIRONMENT["id"], 2, size=16) as envs:
        played = play(Agent(dreamer()), envs, [11, 12], 0, watchers=[seen])
    lit = (np.stack(seen.frames)[..., 0, 0] == 200).sum(-1)
    counted = np.argmax(seen.actions, -1) == 2
    np.testing.assert_array_equal(np.diff(lit, axis=0), counted)
    np.testing.assert_array_equal([one.score for one in played], counted.sum(0))


def scored_at_once(model: Dreamer, seen: Everything, index: int, length: int) -> dict[str, float]:
    """The same scores from all that was kept, a moment at a time."""
    found: dict[str, list[float]] = {}
    moments = range(0, max(1, length - max(AHEAD)), EVERY)
    for at in moments:
        state = jax.tree.map(lambda x, t=at: jnp.asarray(x[index]), seen.states[at])
        for steps in range(max(AHEAD) + 1):
            if steps in (0, *AHEAD) and at + steps <= length:
                decoded = np.asarray(ask(ask(model, "decode", state)["image"], "mode"))
                value = float(images.psnr(decoded, seen.frames[at + steps][index]))
                found.setdefault(f"psnr_ahead_{steps}" if steps else "psnr", []).append(value)
            if at + steps < length:
                action = jnp.asarray(seen.actions[at + steps][index])
                memory, prior = ask(model, "predict", state, action, jnp.zeros((), bool))
                state = type(state)(memory, ask(prior, "mode"))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.slow
def test_episodes_of_any_length_are_scored_as_if_all_of_them_had_been_kept():
    model, seen = dreamer(), Everything()
    seeds = [3, 4, 5]  # of 3, 9 and 23 decisions
    scorer = Scorer(model, ["image"], 3)
    with SideBySide(id_of("Lengths"), 3, size=16) as envs:
        played = play(Agent(model), envs, seeds, 0, watchers=[seen, scorer])
    assert [one.length for one in played] == [3, 9, 23]
    for index, (one, scores) in enumerate(zip(played, scorer.scores(), strict=True)):
        expected = scored_at_once(model, seen, index, one.length)
        for name, value in expected.items():
            assert scores[name] == pytest.approx(value, rel=1e-5), (one.length, name)
        assert (scores["psnr_ahead_8"] is None) == (one.length < 8)
        assert scores["psnr_gain"] == 0


@pytest.mark.slow
def test_the_states_that_are_kept_do_not_grow_with_the_episode():
    most = []

    class Counted(Scorer):
        def decided(self, playing, thought, action, step):
            super().decided(playing, thought, action, step)
            most.append(self.kept)

    scorer = Counted(dreamer(), ["image"], 2)

    class Thought:
        state = base = jax.tree.map(lambda x: np.stack([x, x]), dreamer().initial())

    still = np.zeros(2, bool)
    step = Step(
        {"image": np.zeros((2, 16, 16, 3), np.uint8)}, np.zeros(2), still, still, still, still
    )
    scorer.began(step.observation)
    for _ in range(1500):
        scorer.decided(np.ones(2, bool), Thought, np.zeros((2, 3), np.float32), step)
    assert max(most) <= CHUNK + 2 * 2


def test_episodes_that_are_over_count_no_decision_more():
    agent = Guesser()
    with SideBySide(id_of("Lengths"), 3, size=16) as envs:
        played = play(agent, envs, [3, 4, 5], 0)
    assert [len(one.latency_ms) for one in played] == [one.length for one in played] == [3, 9, 23]


@pytest.mark.parametrize("name", [slow("Lengths"), slow("Pixels"), "Cameras"])
@pytest.mark.usefixtures("quick")
def test_every_decoded_image_is_scored_by_whatever_name(name, tmp_path):
    names = {"Lengths": ("image",), "Pixels": ("pixels",), "Cameras": ("left", "right")}[name]
    agent = Agent(dreamer(names=names))
    environment = {"id": id_of(name), "size": 16}
    result = evaluate({"none": agent}, environment, episodes=2, seed=0, out=tmp_path / "out")
    assert result.summary["images"] == {"agent": list(names)}
    for row in rows(result):
        assert row["psnr"] > 0
        if len(names) > 1:
            assert row["psnr"] == pytest.approx(np.mean([row[f"{n}/psnr"] for n in names]))
    assert len(list((tmp_path / "out" / "strips").iterdir())) == len(names)
    page = result.report().read_text()
    assert all(one in page for one in names)


@pytest.mark.slow
def test_images_too_small_for_ssim_are_scored_by_the_others():
    environment = {"id": ENVIRONMENT["id"], "size": 8}
    result = evaluate({"none": Agent(dreamer(8))}, environment, episodes=2, seed=0)
    assert all(row["ssim"] is None and row["psnr"] > 0 for row in rows(result))


# --- what an environment does wrong --------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Environments without processes of their own."""
    monkeypatch.setattr(protocol, "VectorEnv", SideBySide)


def guessed(name: str, **more: Any) -> Evaluation:
    settings: dict[str, Any] = {"episodes": 9, "seed": 0, "batch": 3}
    return evaluate(GUESSERS, id_of(name), **settings | more)


def score(result: Evaluation) -> dict[str, Any]:
    (row,) = (row for row in result.comparisons if row["metric"] == "score")
    return row


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
def test_a_clock_that_jumps_changes_no_evaluation(request):
    calm = guessed("Vector", episodes=3)
    request.getfixturevalue("jumping_clock")
    jumped = guessed("Vector", episodes=3)
    assert told(jumped.episodes) == told(calm.episodes)
    assert not any(row["crashed"] for row in jumped.episodes)


@pytest.mark.usefixtures("quick")
def test_more_episodes_than_environments_are_those_of_other_batches():
    several, alone = guessed("Lengths"), guessed("Lengths", batch=2)
    assert told(several.episodes) == told(alone.episodes)


def test_crashed_episodes_are_left_out_with_their_pairs_and_say_why():
    result = guessed("FailsOnce")
    crashed = [row for row in rows(result) if row["crashed"]]
    failing = [index for index in range(9) if episode_seed(0, index) % 3 == 0]
    assert {row["episode"] for row in crashed} == set(failing)
    assert all("the door is gone" in row["error"] for row in crashed)
    assert score(result)["pairs"] == 9 - len(failing)
    assert score(result)["dropped"] == len(failing)
    whole = [row for row in rows_of(result, "none") if not row["crashed"]]
    arm = result.summary["arms"][0]
    assert arm["score"]["mean"] == pytest.approx(np.mean([row["score"] for row in whole]))
    assert arm["crashed"] == len(failing)
    (note,) = result.summary["notes"]
    assert f"{2 * len(failing)} of 18 episodes" in note
    assert "the door is gone" in note


@pytest.mark.usefixtures("quick")
def test_an_environment_that_mostly_fails_ends_the_evaluation_with_its_error(tmp_path):
    with pytest.raises(Failing, match="the door is gone"):
        guessed("Fails", out=tmp_path / "out")
    assert all(one.crashed for one in read(tmp_path / "out").episodes)


@pytest.mark.usefixtures("quick")
def test_a_reward_that_is_no_number_costs_its_own_pair_alone():
    result = guessed("NanReward")
    bad = [index for index in range(9) if episode_seed(0, index) % 3 == 0]
    for row in rows(result):
        strange = row["episode"] in bad
        assert (row["score"] is None) == strange
        assert bool(row["nonfinite_first"] and "step 5" in row["nonfinite_first"]) == strange
    assert (score(result)["pairs"], score(result)["dropped"]) == (9 - len(bad), len(bad))
    (length,) = (row for row in result.comparisons if row["metric"] == "length")
    assert (length["pairs"], length["dropped"]) == (9, 0)
    assert f"{2 * len(bad)} of 18 episodes" in result.summary["notes"][0]
    json.dumps(result.summary, allow_nan=False)


@pytest.mark.usefixtures("quick")
def test_an_environment_that_ignores_its_seed_is_told_and_compared_unpaired(caplog):
    result = guessed("Unseeded")
    assert sum("ignores its seed" in line for line in caplog.messages) == 1
    assert any("ignores its seed" in note for note in result.summary["notes"])
    row = score(result)
    assert (row["paired"], row["correlation"]) == (False, None)
    base, bold = ([r["score"] for r in rows_of(result, arm)] for arm in GUESSERS)
    assert row["difference"] == pytest.approx(np.mean(bold) - np.mean(base))
    assert row["interval_low"] < row["difference"] < row["interval_high"]


@pytest.mark.usefixtures("quick")
def test_running_averages_are_not_said_to_ignore_their_seed_alone(caplog):
    result = guessed("Averages")
    for said in (caplog.messages[0], result.summary["notes"][0]):
        assert "keeps something from one episode to the next, such as running averages" in said
    assert not score(result)["paired"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "times"), [("Warms", 1), ("Fades", 1), ("Vector", 0), ("FailsOnce", 0)]
)
def test_an_environment_that_changes_between_arms_is_told(name, times, caplog):
    """Each arm got more than the one before it, and nothing told that this was no merit."""
    result = guessed(name)
    assert sum("does not repeat an episode" in line for line in caplog.messages) == times
    notes = " ".join(result.summary["notes"])
    assert ("their difference may come from this" in notes) == bool(times)


@pytest.mark.usefixtures("quick")
def test_of_a_long_episode_the_beginning_is_compared_alone(monkeypatch, caplog):
    """Episodes that never end by themselves were not compared, or as long as they took."""
    monkeypatch.setattr("thinkslow.evaluation.play.REPEATED", 2)
    guessed("Warms")
    assert sum("the first 2 actions of one of none" in line for line in caplog.messages) == 1
    caplog.clear()
    guessed("Vector")
    assert "does not repeat" not in caplog.text


@pytest.mark.usefixtures("quick")
def test_an_episode_without_an_end_is_cut_where_one_says(caplog):
    result = guessed("Endless", max_decisions=7, episodes=2, batch=2)
    assert all(row["cut"] and row["length"] == 7 for row in rows(result))
    assert "4 of 4 episodes were cut after 7 decisions" in " ".join(result.summary["notes"])


@pytest.mark.usefixtures("quick")
def test_names_with_markup_and_escape_codes_are_shown_as_they_are(tmp_path, capsys):
    """`[/]` ended the command with an error after the whole evaluation; a title was set."""
    name = "mine[/b][link=x]\x1b]0;hi\x07"
    arms = {"none": Guesser(), "bold[/]": Guesser(prefers=2)}
    with progress() as show:
        result = evaluate({name: arms}, id_of("Vector"), episodes=4, seed=0, batch=2, show=show)
        show(name, 1, 2)
    show_result(result.summary, tmp_path / "[/page]", quiet=False)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert all(part in said for part in ("mine[/b]", "[link=x]", "bold[/]", "[/page]"))


@pytest.mark.usefixtures("quick")
def test_tiny_rewards_are_kept_and_compared():
    result = guessed("Tiny")
    assert all(1e-9 < row["score"] < 1e-6 for row in rows(result))
    assert score(result)["difference"] > 1e-8


# --- folders, interruptions ----------------------------------------------------------------------


class Stopped(BaseException):
    """Ctrl-C, between two chosen blocks."""


def stopping_after(episodes: int):
    """Stop once so many episodes are written: not at a word from inside a block."""

    def show(what: str, done: int, total: int) -> None:
        if done >= episodes and "decision" not in what:
            raise Stopped

    return show


@pytest.mark.usefixtures("quick")
def test_an_interrupted_evaluation_goes_on_and_ends_as_if_it_never_stopped(tmp_path):
    whole = guessed("Lengths", out=tmp_path / "whole")
    out = tmp_path / "out"
    for episodes in (3, 6, 15):
        with pytest.raises(Stopped):
            guessed("Lengths", out=out, show=stopping_after(episodes))
        found = read(out)
        assert not found.finished
        assert len(found.episodes) == episodes
    again = guessed("Lengths", out=out)
    assert told(again.episodes) == told(whole.episodes)
    assert table(again) == table(whole)
    assert len(again.records.header.sittings) == 4


def test_the_cores_of_a_machine_are_those_that_may_be_used(monkeypatch):
    """A command kept to one core by `taskset` was said to have measured on all of them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert ", 1 core, " in protocol.machine()


@pytest.mark.usefixtures("quick")
def test_the_report_of_an_interrupted_evaluation_says_how_far_it_went(tmp_path):
    with pytest.raises(Stopped):
        guessed("Lengths", out=tmp_path, show=stopping_after(12))
    result = Evaluation(tmp_path)
    assert "12 of 18 episodes" in " ".join(result.summary["notes"])
    assert score(result)["pairs"] == 3
    assert "12 of 18 episodes" in result.report().read_text()


@pytest.mark.usefixtures("quick")
def test_a_line_that_a_kill_cut_off_is_played_again(tmp_path):
    with pytest.raises(Stopped):
        guessed("Vector", out=tmp_path, show=stopping_after(6))
    path = tmp_path / "episodes.jsonl"
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for cut in (1, 30, len(lines[-1]) - 1):
        path.write_bytes(content[:-cut])
        assert len(read(tmp_path).episodes) == len(lines) - 1
    path.write_bytes(content[:-30])
    again = guessed("Vector", out=tmp_path)
    assert told(again.episodes) == told(guessed("Vector").episodes)


@pytest.mark.usefixtures("quick")
def test_finished_and_other_evaluations_are_never_touched(tmp_path):
    guessed("Vector", out=tmp_path, episodes=3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(guessed("Vector", out=tmp_path, episodes=3).episodes) == 6
    with pytest.raises(Occupied, match=r"holds this evaluation.*another folder"):
        guessed("Vector", out=tmp_path, episodes=3, resume=False)
    for other, said in (
        ({"episodes": 2}, "episodes is 3, not 2"),
        ({"seed": 5}, "seed is 0, not 5"),
        ({"max_decisions": 3}, "max-decisions is None, not 3"),
    ):
        with pytest.raises(Occupied, match=f"holds another evaluation.*{said}.*another folder"):
            guessed("Vector", out=tmp_path, **{"episodes": 3, **other})
    with pytest.raises(Occupied, match=r"its environment differs \(id is"):
        guessed("Lengths", out=tmp_path, episodes=3)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quick")
def test_a_finished_evaluation_goes_on_to_more_episodes(tmp_path):
    guessed("Lengths", out=tmp_path, episodes=4)
    longer = guessed("Lengths", out=tmp_path)
    assert told(longer.episodes) == told(guessed("Lengths").episodes)


@pytest.mark.usefixtures("quick")
def test_an_unfinished_evaluation_is_gone_on_with_only_if_that_is_wanted(tmp_path):
    with pytest.raises(Stopped):
        guessed("Vector", out=tmp_path, show=stopping_after(3))
    with pytest.raises(Occupied, match="3 of 18 episodes"):
        guessed("Vector", out=tmp_path, resume=False)


def test_an_agent_of_other_weights_is_another_evaluation(tmp_path):
    environment = {"id": ENVIRONMENT["id"], "size": 16}
    model = dreamer()
    with pytest.raises(Stopped):
        evaluate(
            {"none": Agent(model)},
            environment,
            episodes=2,
            seed=0,
            batch=1,
            out=tmp_path,
            show=stopping_after(1),
        )
    changed = with_random_weights(model, 1)
    with pytest.raises(Occupied, match=r"its agents differ \(weights of agent\)"):
        evaluate({"none": Agent(changed)}, environment, episodes=2, seed=0, batch=1, out=tmp_path)


@pytest.mark.usefixtures("quick")
def test_a_second_writer_is_refused_while_the_first_plays(tmp_path):
    lock = claim(tmp_path / "out")
    try:
        with pytest.raises(Locked, match=rf"process {os.getpid()} .*another folder"):
            guessed("Vector", out=tmp_path / "out")
    finally:
        lock.release()


KILLED = """
import sys
from odd_players import Guesser, SideBySide
from thinkslow.evaluation import evaluate, protocol
protocol.VectorEnv = SideBySide
evaluate({"none": Guesser(), "bold": Guesser(prefers=2)}, sys.argv[2], episodes=9, seed=0,
         batch=2, out=sys.argv[1])
"""


def lines(out: Path) -> int:
    return len(read(out).episodes) if (out / "evaluation.json").exists() else 0


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_killed_at_any_instant_it_ends_with_the_same_table(tmp_path):
    whole = guessed("Lengths", batch=2)
    rng, out = np.random.default_rng(0), tmp_path / "out"
    for _ in range(2):
        before = lines(out)
        command = [sys.executable, "-c", KILLED, str(out), id_of("Lengths")]
        with subprocess.Popen(command) as process:
            while process.poll() is None and lines(out) == before:
                time.sleep(0.001)
            time.sleep(0.02 * rng.random())
            process.send_signal(signal.SIGKILL)
        if read(out).finished:
            break
    if not read(out).finished:
        guessed("Lengths", batch=2, out=out)
    again = Evaluation(out)
    assert told(again.episodes) == told(whole.episodes)
    assert table(again) == table(whole)


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
