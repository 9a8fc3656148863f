"""Every arm on the frames of the base agent: what it would have believed right there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import nightly, slow, tiny_dreamer
from odd_episodes import id_of
from odd_players import Guesser, SideBySide

from thinkslow.agent.agent import Agent
from thinkslow.agent.checks import Clean, Robust
from thinkslow.agent.inputs import Carry
from thinkslow.agent.thinking import Thinking
from thinkslow.envs import Step
from thinkslow.evaluation import evaluate, protocol
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.play import decision_keys, play
from thinkslow.evaluation.shadow import MOMENTS, Recorder, decisions_before, decoded
from thinkslow.objectives import Evidence
from thinkslow.readouts import Soft

SEED, EPISODE, COUNT = 3, 5, 2  # the episode of seed 5 has 23 decisions
COUNTING = {"id": "counting:thinkslow-test/Counting-v0", "size": 16}
ARMS = {
    "none": Thinking(),
    "evidence": Thinking({Evidence(): 1.0}, steps=2, latent=Soft()),
    "control-lag": Thinking(lag=2),
    "control-particles": Thinking(particles=3),
    "robust": Thinking(check=Robust()),
    "late": Thinking(delay=2),
    "predict-through": Thinking(missing="predict"),
}
CLEAN = Clean(
    {"image": jnp.full((2, 2), 1e-3)},
    1.0,
    8.0,
    0.5,
    {},
    jnp.full(2, jnp.inf),
    means={},
    deviations={},
)
"""Errors so small that every frame is suspicious."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Environments without processes of their own."""
    monkeypatch.setattr(protocol, "VectorEnv", SideBySide)


class Whole:
    """Keeps an episode whole: what was seen, believed and done in the first environment."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.states: list[Any] = []
        self.actions: list[Any] = []

    def began(self, observation):
        self.frames.append(np.array(observation["image"]))

    def decided(self, playing, thought, action, step):
        self.states.append(thought.state)
        self.actions.append(action)
        self.began(step.observation)


@pytest.fixture(scope="module")
def agents() -> dict[str, Any]:
    base = Agent(tiny_dreamer())
    found = {name: base.thinking(how) for name, how in ARMS.items()}
    return found | {"robust": dataclasses.replace(found["robust"], clean=CLEAN)}


@pytest.fixture(scope="module")
def recorded(agents) -> tuple[Whole, Recorder]:
    whole = Whole()
    before = decisions_before(list(agents.values()))
    recorder = Recorder(agents["none"], COUNT, ["image"], before=before)
    with SideBySide(id_of("Lengths"), COUNT, size=16) as envs:
        play(agents["none"], envs, [EPISODE, EPISODE + 1], SEED, watchers=[whole, recorder])
    return whole, recorder


def shown(agents: dict[str, Any], recorder: Recorder, arm: str) -> np.ndarray:
    found = decoded(
        agents[arm],
        recorder.moments(),
        ["image"],
        count=COUNT,
        seed=SEED,
        environment_seed=EPISODE,
    )
    assert found is not None
    return found.now["image"]


def test_moments_hold_the_frames_that_came(recorded):
    whole, recorder = recorded
    assert [moment.step for moment in recorder.moments()] == [0, 5, 10, 15]
    for moment in recorder.moments():
        for step in (0, *AHEAD):
            expected = whole.frames[moment.step + step][0]
            np.testing.assert_array_equal(moment.came[step]["image"], expected)


def test_the_base_agent_is_shown_as_it_was(agents, recorded):
    whole, recorder = recorded
    for moment, image in zip(recorder.moments(), shown(agents, recorder, "none"), strict=True):
        state = jax.tree.map(lambda x: x[0], whole.states[moment.step])
        expected = agents["none"].model.decode(state)["image"].mode()
        np.testing.assert_allclose(image, expected, atol=1e-5)


@pytest.mark.parametrize("arm", ["evidence", nightly("control-lag"), slow("late")])
def test_an_arm_is_shown_as_if_it_had_been_led_there(agents, recorded, arm):
    """Decision by decision from the beginning, from what the base agent carried each time."""
    whole, recorder = recorded
    agent, found = agents[arm], {}
    carry = agent.start(1)
    for at in range(16):
        before = (
            carry
            if at == 0
            else Carry(
                jax.tree.map(lambda x: x[:1], whole.states[at - 1]),
                whole.actions[at - 1][:1],
                carry.past,
                carry.stream,
            )
        )
        keys = decision_keys(SEED, jnp.array([EPISODE], jnp.uint32), at)
        seen = {"image": whole.frames[at][:1]}
        carry, _, thought = agent.act(before, seen, np.array([at == 0]), keys=keys)
        state = jax.tree.map(lambda x: x[0], thought.state)
        found[at] = agent.model.decode(state)["image"].mode()
    images = shown(agents, recorder, arm)
    for moment, image in zip(recorder.moments(), images, strict=True):
        np.testing.assert_allclose(image, found[moment.step], atol=1e-4)
    assert np.abs(images - shown(agents, recorder, "none")).max() > 1e-4


def test_an_arm_is_told_of_frames_that_are_missing(agents):
    """It decoded the black frames that stand in for them, as if it had believed them."""
    images = {}
    for told in (True, False):
        recorder = Recorder(agents["none"], 1, ["image"], before=0)
        begun = agents["none"].start(1)
        state, action = jax.tree.map(np.asarray, (begun.state, begun.action))
        black = {"image": np.zeros((1, 16, 16, 3), np.uint8), "missing": np.array([told])}
        recorder.began(black)
        thought = dataclasses.make_dataclass("Thought", ["state"])(state)
        for _ in range(max(AHEAD) + 1):
            none = np.zeros(1, bool)
            step = Step(black, np.zeros(1), none, none, none, none)
            recorder.decided(np.array([True]), thought, action, step)
        images[told] = shown(agents, recorder, "predict-through")
    assert np.abs(images[True] - images[False]).max() > 1e-3


@pytest.mark.parametrize("arm", [slow("control-particles"), slow("robust")])
def test_particles_and_checks_are_led_to_the_same_frames(agents, recorded, arm):
    """An arm with a check ended the evaluation with AttributeError."""
    images = shown(agents, recorded[1], arm)
    assert images.shape == shown(agents, recorded[1], "none").shape
    assert np.isfinite(images).all()


def test_an_agent_of_another_kind_is_not_shown(recorded):
    moments = recorded[1].moments()
    where = {"count": COUNT, "seed": SEED, "environment_seed": EPISODE}
    assert decoded(Guesser(), moments, ["image"], **where) is None


def test_a_long_episode_keeps_few_moments_spread_over_it():
    agent = Agent(tiny_dreamer())
    recorder, most = Recorder(agent, 2, ["image"], before=1), 0

    class Thought:
        state = jax.tree.map(lambda x: np.stack([x, x]), agent.model.initial())

    still, zeros = np.zeros(2, bool), np.zeros((2, 3), np.float32)
    step = Step(
        {"image": np.zeros((2, 16, 16, 3), np.uint8)}, np.zeros(2), still, still, still, still
    )
    recorder.began(step.observation)
    for _ in range(1500):
        recorder.decided(np.ones(2, bool), Thought, zeros, step)
        most = max(most, recorder.kept)
    assert most <= 2 * MOMENTS + 3
    steps = [moment.step for moment in recorder.moments()]
    assert len(steps) == MOMENTS
    assert steps[0] == 0
    assert steps[-1] > 1000


def files(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    out = {}
    for path in sorted((folder / "strips").iterdir()):
        with np.load(path) as content:
            out[path.name] = dict(content)
    return out


def test_an_evaluation_that_was_interrupted_shows_the_same_pictures(agents, tmp_path):
    arms = {name: agents[name] for name in ("none", "evidence")}
    how: dict[str, Any] = {"episodes": 2, "seed": SEED, "batch": 2}
    for folder in ("whole", "parts"):
        evaluate(arms, COUNTING, **how, out=tmp_path / folder)
    whole = files(tmp_path / "whole")
    assert list(whole) == ["0-0.npz", "1-0.npz"]
    lines = (tmp_path / "parts" / "episodes.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["arm"] == "none"]
    (tmp_path / "parts" / "episodes.jsonl").write_text("".join(kept))
    (tmp_path / "parts" / "strips" / "1-0.npz").unlink()
    evaluate(arms, COUNTING, **how, out=tmp_path / "parts")
    for name, arrays in files(tmp_path / "parts").items():
        for part, array in arrays.items():
            np.testing.assert_array_equal(array, whole[name][part])
