"""Scores of what is predicted: which frame belongs to which state, over episodes of any length."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluating import ENVIRONMENT, dreamer, rows
from helpers import ask, slow
from odd_episodes import id_of
from odd_players import Guesser, SideBySide

from thinkslow.agent.agent import Agent
from thinkslow.dreamer.model import Dreamer
from thinkslow.envs import Step
from thinkslow.evaluation import evaluate, images
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.play import play
from thinkslow.evaluation.scoring import CHUNK, EVERY, Scorer

pytestmark = pytest.mark.usefixtures("environments")


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
