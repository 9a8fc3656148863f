"""The project's own task: what it pays, how long it lasts, and that it is the same everywhere."""

import math
from typing import Any

import numpy as np
import pytest
from helpers import nightly, slow

from thinkslow.envs import Twin, Unavailable, VectorEnv, make, twin_of
from thinkslow.envs.make import Environment
from thinkslow.envs.tasks.scripted import towards_good

COLLECT = "thinkslow/CollectGoodObjects"
TASK, TOP_DOWN = f"{COLLECT}-v0", f"{COLLECT}TopDown-v0"
HALF = 4.65  # of the floor plan, metres
LEFT = 0


def world_of(env: Environment) -> Any:
    """The simulation behind the dress."""
    return env.env.unwrapped


def walk(seed: int, length: int) -> list[int]:
    """Random actions that cover ground."""
    return np.random.default_rng(seed).choice(3, size=length, p=[0.2, 0.2, 0.6]).tolist()


def frames(env: Environment, seed: int, length: int) -> np.ndarray:
    images = [env.reset(seed=seed)[0]["image"]]
    images += [env.step(action)[0]["image"] for action in walk(seed, length)]
    return np.stack(images)


@pytest.fixture(scope="module")
def env() -> Environment:
    return make(TASK)


@pytest.mark.parametrize("task", [slow(TASK), nightly(TOP_DOWN), slow(f"{COLLECT}Panorama-v1")])
def test_a_seed_gives_the_same_frames_in_every_process(task):
    here = frames(make(task), 7, 40)
    with VectorEnv(task, 2) as envs:
        there = [envs.reset([3, 7]), envs.reset([7, 7])]
        there = there[1:] + [envs.step(np.array([a, a])) for a in walk(7, 40)]
    for index in range(2):
        np.testing.assert_array_equal([s.observation["image"][index] for s in there], here)
    assert len({frame.tobytes() for frame in here}) > 10


def test_a_frame_is_drawn_from_miniworlds_camera_with_boxes_where_they_are(env):
    from miniworld.miniworld import MiniWorldEnv

    world, rewards = world_of(env), 0
    env.reset(seed=3)
    for action in walk(3, 200):
        seen, reward, *_ = env.step(action)
        rewards += reward != 0
        world.placed = []  # compiles the list of the boxes again
        np.testing.assert_array_equal(MiniWorldEnv.render_obs(world), seen["image"])
    assert rewards


def test_a_wall_stops_as_in_miniworld(env):
    from miniworld.math import intersect_circle_segs

    from thinkslow.envs.tasks.collect import touches

    env.reset(seed=0)
    world = world_of(env)
    places = np.random.default_rng(0).uniform(-5.0, 5.0, (2000, 3))
    ours = [any(touches(place, 0.4, *wall) for wall in world.walls) for place in places]
    theirs = [bool(intersect_circle_segs(place, 0.4, world.wall_segs)) for place in places]
    assert ours == theirs
    assert 0.05 < np.mean(ours) < 0.95


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


@pytest.mark.parametrize(
    ("view", "version"),
    [
        slow("TopDown", "v0"),
        slow("Informed", "v1"),
        ("Panorama", "v0"),
        slow("Map", "v1"),
        nightly("TopDown", "v1"),
        nightly("Informed", "v0"),
        nightly("Panorama", "v1"),
        nightly("Map", "v0"),
    ],
)
def test_a_twin_is_of_the_same_world(view, version):
    one, twin = make(f"{COLLECT}-{version}"), make(f"{COLLECT}{view}-{version}")
    known = None if view == "TopDown" else Twin(f"{COLLECT}-{version}", {}, "partly")
    assert twin_of(f"{COLLECT}{view}-{version}") == known
    one.reset(seed=4)
    twin.reset(seed=4)
    rewards = 0.0
    for action in walk(4, 250):
        (first, *mine), (second, *theirs) = one.step(action), twin.step(action)
        assert mine == theirs
        here, there = world_of(one), world_of(twin)
        np.testing.assert_array_equal(here.agent.pos, there.agent.pos)
        assert here.agent.dir == there.agent.dir
        assert here.np_random.bit_generator.state == there.np_random.bit_generator.state
        for a, b in zip(here.things, there.things, strict=True):
            np.testing.assert_array_equal(a.pos, b.pos)
        assert np.array_equal(first["image"], second["image"]) == (view == "Informed")
        rewards += mine[0] != 0
    assert rewards > 0, "nothing was collected: this walk shows too little"


def test_an_informed_agent_is_told_where_everything_is():
    env = make(f"{COLLECT}Informed-v0")
    env.reset(seed=1)
    told = [env.step(action)[0]["world"].astype(float) for action in walk(1, 20)][-1]
    world = world_of(env)
    place, heading = told[:2] * HALF, math.atan2(told[2], told[3])
    np.testing.assert_allclose(place, world.agent.pos[[0, 2]], atol=1e-5)
    boxes = told[4:].reshape(8, 4)
    assert (np.diff(boxes[:, 0]) >= 0).all(), "the nearest comes first"
    found = set()
    for share, sine, cosine, reward in boxes:
        angle = heading + math.atan2(sine, cosine)
        far = share * 2 * HALF * math.sqrt(2)
        there = place + far * np.array([math.cos(angle), -math.sin(angle)])
        (thing,) = [one for one in world.things if np.allclose(one.pos[[0, 2]], there, atol=1e-4)]
        assert thing.reward == reward
        found.add(id(thing))
    assert len(found) == 8


def test_a_panorama_shows_the_four_sides():
    env = make(f"{COLLECT}Panorama-v0")
    env.reset(seed=2)
    world = world_of(env)

    def sides() -> list[np.ndarray]:
        image = world.render_obs()
        front, right = image[:32, :32], image[:32, 32:]
        left, back = image[32:, :32], image[32:, 32:]
        return [front, left, back, right]

    before = sides()
    world.agent.dir += math.pi / 2  # to the left
    np.testing.assert_array_equal(sides(), [*before[1:], before[0]])


@pytest.mark.parametrize(("field", "columns"), [(360, 128), (180, 64), (90, 32), (60, 18)])
def test_a_field_of_view_leaves_the_rest_black(field, columns):
    whole = make(f"{COLLECT}Panorama-v0").reset(seed=2)[0]["image"]
    part = make(f"{COLLECT}Panorama-v0", options={"field": field}).reset(seed=2)[0]["image"]
    # 32 columns of a view are 90 degrees, closer together at its edges.
    lit = part.reshape(2, 32, 2, 32, 3).transpose(0, 2, 3, 1, 4)
    seen = np.array(lit.any((-1, -2)))
    assert seen.sum() == columns
    shown = np.repeat(seen.reshape(2, 1, 64), 32, 1).reshape(64, 64)
    np.testing.assert_array_equal(part[shown], whole[shown])


def test_an_inner_wall_that_is_not_drawn_is_solid_all_the_same():
    drawn = make(f"{COLLECT}Panorama-v0")
    open_ = make(f"{COLLECT}Panorama-v0", options={"wall": False})
    drawn.reset(seed=3)
    open_.reset(seed=3)
    differ = 0
    for action in walk(3, 100):
        (one, *mine), (other, *theirs) = drawn.step(action), open_.step(action)
        assert mine == theirs
        differ += not np.array_equal(one["image"], other["image"])
    assert differ > 50
    np.testing.assert_array_equal(world_of(drawn).agent.pos, world_of(open_).agent.pos)


@pytest.mark.parametrize(
    ("options", "problem"), [({"field": 0}, "`field` must be"), ({"field": 361}, "at most 360")]
)
def test_an_impossible_panorama_is_refused_for_what_it_is(options, problem):
    with pytest.raises(Unavailable, match=problem) as error:
        make(f"{COLLECT}Panorama-v0", options=options)
    assert "renderer" not in str(error.value)


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_by_a_counter_a_box_comes_back_where_it_would_have_anyway(version):
    def taken(order: list[int]) -> list[np.ndarray]:
        """Where each box lies after boxes were taken in an order."""
        env = make(f"{COLLECT}-{version}")
        env.reset(seed=5)
        world = world_of(env)
        places = {}
        for index in order:
            for thing in world.things:
                thing.pos = np.array([100.0, 0.0, 100.0])
            world.agent.pos = np.array([2.5, 0.0, 2.0])
            world.things[index].pos = np.array([2.0, 0.0, 2.0])
            env.step(LEFT)
            places[index, order[: order.index(index) + 1].count(index)] = world.things[index].pos
        return [places[key] for key in sorted(places)]

    same = np.array_equal(taken([0, 1, 2]), taken([2, 0, 1]))
    assert same == (version == "v1")


def test_the_map_lies_around_the_agent_with_its_heading_upwards():
    env = make(f"{COLLECT}Map-v0")
    env.reset(seed=1)
    world = world_of(env)
    for thing in world.things:
        thing.pos = np.array([100.0, 0.0, 100.0])
    for bearing, (row, column) in (
        (0.0, (0.34, 0.5)),
        (90.0, (0.5, 0.34)),
        (-90.0, (0.5, 0.66)),
        (180.0, (0.66, 0.5)),
    ):
        angle = world.agent.dir + math.radians(bearing)
        # 1.34 m are a tenth of the reach, whose root is .316 of half the picture.
        far = 2 * HALF * math.sqrt(2) / 10
        world.things[0].pos = world.agent.pos + far * np.array(
            [math.cos(angle), 0.0, -math.sin(angle)]
        )
        green = (world.render_obs() == (0, 255, 0)).all(-1)
        found = np.array(np.nonzero(green)).mean(1) / 64
        np.testing.assert_allclose(found, (row, column), atol=0.02)


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("id", "options", "other", "otherwise"),
    [
        (f"{COLLECT}-v1", {"wall": False}, f"{COLLECT}Informed-v1", {"wall": False}),
        (f"{COLLECT}Panorama-v0", {"field": 90}, f"{COLLECT}-v0", {}),
        ("MiniGrid-Empty-6x6-v0", {}, "MiniGrid-Empty-6x6-v0", {"view": "full"}),
        (
            "dmlab/rooms_watermaze-v0",
            {"actions": "impala"},
            "dmlab/rooms_watermaze-v0",
            {"actions": "impala", "view": "top"},
        ),
        ("popgym-arcade/TetrisHard-v0", {}, "popgym-arcade/TetrisHardPartial-v0", {}),
    ],
)
def test_a_pair_is_known_from_either_side(id, options, other, otherwise):
    there = twin_of(id, options)
    assert there is not None
    assert (there.id, there.options) == (other, otherwise)
    back = twin_of(there.id, there.options)
    assert back is not None
    assert {there.observed, back.observed} == {"partly", "wholly"} or "Panorama" in id
    assert back.id == id or "Panorama" in id


def test_what_has_no_twin_has_none():
    for id, options in (
        ("CartPole-v1", {}),
        ("MiniGrid-Empty-6x6-v0", {"view": "cells"}),
        (f"{COLLECT}-v9", {}),
        ("procgen/MazeMemory-v0", {}),
    ):
        assert twin_of(id, options) is None
