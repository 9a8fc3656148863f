"""The revisit error, on a model that remembers every view and on one that remembers none."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from thinkslow.agent.agent import Agent
from thinkslow.distributions import Categorical
from thinkslow.evaluation.images import PSNR_CAP_DB, psnr
from thinkslow.evaluation.revisit import Turns, returned, revisits
from thinkslow.evaluation.walks import Walk
from thinkslow.heads import Squared
from thinkslow.worldmodel import State, WorldModel

VIEWS, LEVELS, SIDE = 8, 4, 8
LEFT, RIGHT, STAY = np.eye(3, dtype=np.float32)
TURNS = Turns(LEFT, RIGHT, away=3, every=8)


class Carousel(WorldModel):
    """Stands on a disc with a grey wall in every direction, and turns.

    The memory holds the direction and what was seen in each one, if the model remembers. The latent
    is the level of grey in the present direction.
    """

    remembers: bool = True

    def initial(self) -> State:
        return State((jnp.eye(VIEWS)[0], jnp.zeros((VIEWS, LEVELS))), jnp.zeros(LEVELS))

    def predict(self, state: State, action: Any, is_first: Any) -> tuple[Any, Categorical]:
        facing, known = state.memory
        known = jnp.where(facing[:, None] > 0.5, state.latent, known)
        turned = jnp.stack([jnp.roll(facing, 1), jnp.roll(facing, -1), facing])
        facing = jnp.where(jnp.sum(action) > 0, action @ turned, facing)
        known = known if self.remembers else jnp.zeros_like(known)
        blank = self.initial().memory
        memory = tuple(
            jnp.where(is_first, x, y) for x, y in zip(blank, (facing, known), strict=True)
        )
        return memory, Categorical(40.0 * memory[0] @ memory[1])

    def infer(self, memory: Any, observation: Mapping[str, Any]) -> Categorical:
        level = jnp.round(observation["image"][0, 0, 0].astype(jnp.float32) / 80).astype(jnp.int32)
        return Categorical(40.0 * jnp.eye(LEVELS)[level])

    def decode(self, state: State) -> dict[str, Squared]:
        grey = state.latent @ (jnp.arange(LEVELS) * (80 / 255))
        return {"image": Squared(jnp.broadcast_to(grey, (SIDE, SIDE, 1)))}

    def policy(self, state: State, key: Any) -> Any:
        return jnp.asarray(STAY)


def carousel(levels: np.ndarray, turns: Turns, decisions: int) -> Walk:
    """The walk of an agent that stays where it is whenever it may, `levels` by episode and view."""
    count, facing = len(levels), 0
    frames, actions = [], []
    for decision in range(decisions):
        frames.append(np.uint8(80 * levels[:, facing % VIEWS]))
        forced = turns.script(decision)
        action = STAY if forced is None else forced
        actions.append(np.broadcast_to(action, (count, 3)))
        facing += int(action[0] - action[1])
    image = np.broadcast_to(
        np.array(frames)[..., None, None, None], (decisions, count, SIDE, SIDE, 1)
    )
    going = np.ones((decisions, count), bool)
    return Walk(3, tuple(range(count)), {"image": image}, np.array(actions), going)


@pytest.fixture(scope="module")
def walk() -> Walk:
    levels = np.random.default_rng(0).integers(1, LEVELS, (4, VIEWS))
    return carousel(levels, TURNS, 24)


@pytest.mark.slow
def test_a_model_that_remembers_predicts_what_returns_and_another_only_its_guess(walk):
    """Unknown views are guessed to be black, so the error of forgetting is known."""
    whole = revisits(Agent(Carousel()), walk, TURNS, "image")
    forgetful = revisits(Agent(Carousel(remembers=False)), walk, TURNS, "image")
    np.testing.assert_allclose(whole["return"], PSNR_CAP_DB)
    np.testing.assert_allclose(whole["way back"], PSNR_CAP_DB)
    first = walk.observations["image"][0]
    np.testing.assert_allclose(forgetful["return"], psnr(np.zeros(first.shape), first), rtol=1e-6)
    assert np.all(forgetful["next, turning back"] < whole["next, turning back"] - 50)
    np.testing.assert_allclose(forgetful["now"], PSNR_CAP_DB)


def test_a_memory_that_is_blanked_at_the_turning_point_predicts_as_if_it_had_none(walk):
    blanked = revisits(Agent(Carousel()), walk, TURNS, "image", forgets=True)
    forgetful = revisits(Agent(Carousel(remembers=False)), walk, TURNS, "image")
    np.testing.assert_allclose(blanked["return"], forgetful["return"], rtol=1e-6)


def test_only_views_that_really_return_count(walk):
    """In one episode something changes behind its back, in another it ends on the way."""
    image = walk.observations["image"].copy()
    image[9:, 1] = 0
    going = walk.going.copy()
    going[13:, 2] = False
    changed = dataclasses.replace(walk, observations={"image": image}, going=going)
    assert TURNS.points(24) == [11, 19]
    np.testing.assert_array_equal(returned(walk, TURNS, "image"), np.ones((2, 4), bool))
    counts = np.array([[True, False, False, True], [True, True, False, True]])
    np.testing.assert_array_equal(returned(changed, TURNS, "image"), counts)
    found = revisits(Agent(Carousel()), changed, TURNS, "image")
    np.testing.assert_array_equal(np.isnan(found["return"]), [False, False, True, False])


def test_a_situation_must_fit_between_two():
    with pytest.raises(ValueError, match="`every` above 2 \\* away; got 3 and 6"):
        Turns(LEFT, RIGHT, away=3, every=6)
