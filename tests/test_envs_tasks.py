"""The project's own task: what it pays, how long it lasts, and that it is the same everywhere."""

import math
from typing import Any

import numpy as np
import pytest

from thinkslow.envs import VectorEnv, make
from thinkslow.envs.make import Player
from thinkslow.envs.tasks.scripted import towards_good

TASK = "thinkslow/CollectGoodObjects-v0"
TOP_DOWN = "thinkslow/CollectGoodObjectsTopDown-v0"
LEFT = 0


def world_of(env: Player) -> Any:
    """The simulation behind the dress."""
    return env.env.unwrapped


def walk(seed: int, length: int) -> list[int]:
    """Random actions that cover ground."""
    return np.random.default_rng(seed).choice(3, size=length, p=[0.2, 0.2, 0.6]).tolist()


def frames(env: Player, seed: int, length: int) -> np.ndarray:
    images = [env.reset(seed=seed)[0]["image"]]
    images += [env.step(action)[0]["image"] for action in walk(seed, length)]
    return np.stack(images)


@pytest.fixture(scope="module")
def env() -> Player:
    return make(TASK)


@pytest.mark.slow
@pytest.mark.parametrize("task", [TASK, TOP_DOWN])
def test_a_seed_gives_the_same_frames_in_every_process(task):
    here = frames(make(task), 7, 40)
    with VectorEnv(task, 2) as envs:
        there = [envs.reset([3, 7]), envs.reset([7, 7])]
        there = there[1:] + [envs.step(np.array([a, a])) for a in walk(7, 40)]
    for index in range(2):
        np.testing.assert_array_equal([s.observation["image"][index] for s in there], here)
    assert len({frame.tobytes() for frame in here}) > 10


def test_instances_in_one_process_do_not_disturb_each_other(env):
    alone = frames(env, 1, 30)
    others = [make(TASK), make(TOP_DOWN)]
    images = [env.reset(seed=1)[0]["image"]]
    for other in others:
        other.reset(seed=2)
    for action, another in zip(walk(1, 30), walk(2, 30), strict=True):
        images.append(env.step(action)[0]["image"])
        for other in others:
            other.step(another)
    np.testing.assert_array_equal(images, alone)


def test_the_view_from_above_is_of_the_same_world(env):
    above = make(TOP_DOWN)
    env.reset(seed=4)
    above.reset(seed=4)
    rewards = 0.0
    for action in walk(4, 250):
        (first, *mine), (second, *theirs) = env.step(action), above.step(action)
        assert mine == theirs
        here, there = world_of(env), world_of(above)
        np.testing.assert_array_equal(here.agent.pos, there.agent.pos)
        assert here.agent.dir == there.agent.dir
        assert here.np_random.bit_generator.state == there.np_random.bit_generator.state
        for one, other in zip(here.things, there.things, strict=True):
            np.testing.assert_array_equal(one.pos, other.pos)
        assert not np.array_equal(first["image"], second["image"])
        rewards += abs(mine[0])
    assert rewards > 0, "nothing was collected: this walk shows too little"


def test_every_heading_shows_from_above():
    env = make(TOP_DOWN)
    images = [env.reset(seed=0)[0]["image"]]
    # 13 turns of 27 degrees go nearly round: none looks like another.
    images += [env.step(LEFT)[0]["image"] for _ in range(12)]
    for index, one in enumerate(images):
        for other in images[:index]:
            assert (one != other).any(-1).sum() >= 10


def test_an_episode_is_cut_after_its_number_of_decisions(env):
    env.reset(seed=0)
    ends = [env.step(action)[2:4] for action in walk(0, 250)]
    assert ends == [(False, False)] * 249 + [(False, True)]


def test_a_touched_box_pays_and_comes_back_elsewhere(env):
    from thinkslow.envs.tasks.collect import AWAY

    env.reset(seed=5)
    world = world_of(env)
    for thing in list(world.things):
        for other in world.things:  # out of reach, so that one box pays
            other.pos = np.array([100.0, 0.0, 100.0])
        thing.pos = np.array([2.0, 0.0, 2.0])
        world.agent.pos = np.array([2.5, 0.0, 2.0])
        _, reward, *_ = env.step(LEFT)
        assert reward == (1.0 if thing.color == "green" else -1.0)
        assert math.dist(thing.pos, world.agent.pos) > AWAY
    assert sorted(thing.reward for thing in world.things) == [-1.0] * 3 + [1.0] * 5


def test_the_agent_and_the_boxes_stay_in_the_rooms(env):
    from thinkslow.envs.tasks.collect import DOOR, HALF, WALL

    env.reset(seed=6)
    world = world_of(env)
    rooms = set()
    for _ in range(250):
        env.step(towards_good(env))
        rooms.add(bool(world.agent.pos[0] > 0))
        for entity in world.entities:
            x, _, z = np.abs(entity.pos)
            assert max(x, z) <= HALF - entity.radius + 1e-9
            assert x >= WALL / 2 or z < DOOR / 2
    assert rooms == {True, False}, "the door was not passed"


def test_playing_well_pays_far_more_than_playing_at_random(env):
    def score(seed, act):
        env.reset(seed=seed)
        return sum(env.step(act())[1] for _ in range(250))

    rng = np.random.default_rng(0)
    lucky = [score(seed, lambda: rng.integers(3)) for seed in range(4)]
    good = [score(seed, lambda: towards_good(env)) for seed in range(2)]
    assert np.mean(lucky) < 5
    assert np.mean(good) > 15


def test_the_image_has_the_size_that_was_asked_for():
    assert make(TASK, size=32).reset(seed=0)[0]["image"].shape == (32, 32, 3)
