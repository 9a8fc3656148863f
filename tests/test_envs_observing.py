"""What an environment shows, against what it declares."""

from decimal import Decimal
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from helpers import nested

from thinkslow.envs import Mismatch, Unavailable
from thinkslow.envs.make import Environment
from thinkslow.envs.observing import sights
from thinkslow.spaces import Space

BYTES, FLOATS = np.uint8, np.float32
GRADIENT = np.arange(64 * 48, dtype=np.uint32).reshape(64, 48) % 256


class Shows(gymnasium.Env):
    """Declares one thing and shows another."""

    action_space = spaces.Discrete(2)

    def __init__(self, declared: spaces.Space, shown: Any):
        self.observation_space, self.shown = declared, shown

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.shown, 0.0, False, False, {}


def look(declared: spaces.Space, shown: Any, size: int = 64, **options: Any) -> Any:
    """What a player sees, and what it has to say."""
    player = Environment(Shows(declared, shown), "its-id", size=size, **options)
    seen = player.reset()[0]
    assert player.observation_space.contains(seen)
    return seen, player.notes


def box(low: float, high: float, shape: tuple[int, ...], dtype: Any) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


class Tensor:
    """Does not become an array, as one of PyTorch with a gradient."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


RGB = np.stack([GRADIENT, 255 - GRADIENT, GRADIENT // 2], -1).astype(BYTES)


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        (box(0, 255, (64, 48, 3), BYTES), RGB),
        (box(0, 255, (3, 64, 48), BYTES), RGB.transpose(2, 0, 1)),
        (box(0, 1, (64, 48, 3), FLOATS), RGB.astype(FLOATS) / 255),
        (box(0, 1, (3, 64, 48), np.float64), RGB.transpose(2, 0, 1) / 255),
        (box(-1, 1, (64, 48, 3), FLOATS), RGB.astype(FLOATS) / 127.5 - 1),
        (box(0, 255, (64, 48, 3), FLOATS), RGB.astype(FLOATS)),
        (box(0, 255, (64, 48, 3), np.int32), RGB.astype(np.int32)),
        (box(0, 255, (64, 48, 3), BYTES), RGB.astype(np.int64)),
        (box(0, 255, (64, 48, 3), BYTES), RGB.astype(np.float64)),
        (box(0, 255, (64, 48, 3), BYTES), RGB[None]),
    ],
)
def test_an_image_is_the_same_however_it_is_laid_out(declared, shown):
    seen, _ = look(declared, shown, size=48)
    expected, _ = look(box(0, 255, (64, 48, 3), BYTES), RGB, size=48)
    np.testing.assert_array_equal(seen["image"], expected["image"])
    assert seen["image"].std() > 20


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((84, 84), 1),
        ((84, 84, 1), 1),
        ((1, 84, 84), 1),
        ((4, 84, 84), 4),
        ((84, 84, 4), 4),
        ((84, 84, 12), 12),
        ((4, 84, 84, 3), 12),
        ((4, 84, 84, 1), 4),
        ((4, 3, 84, 84), 12),
    ],
)
def test_grey_pictures_and_stacks_are_images(shape, channels):
    declared = box(0, 255, shape, BYTES)
    seen, _ = look(declared, np.full(shape, 7, BYTES), size=32)
    assert seen["image"].shape == (32, 32, channels)
    assert (seen["image"] == 7).all()


@pytest.mark.parametrize("kind", [BYTES, bool, FLOATS])
def test_a_mask_of_0_and_1_is_black_and_white(kind):
    """Bytes of 0 and 1 made an almost black image without a word."""
    declared = box(0, 1, (16, 16, 3), BYTES)
    shown = np.zeros((16, 16, 3), kind)
    shown[:8] = 1
    seen, notes = look(declared, shown, size=16)
    assert (seen["image"][:8] == 255).all()
    assert (seen["image"][8:] == 0).all()
    assert ["black and white" in note for note in notes] == [True]
    with pytest.raises(Mismatch, match=r"uint8 in \[0, 200\], declared .* in \[0, 1\]"):
        look(declared, np.full((16, 16, 3), 200, BYTES))


def test_an_environment_may_ask_numpy_to_raise():
    """Its tiny numbers were reported as a fault of our own code."""

    class Strict(Shows):
        def step(self, action: Any) -> Any:
            return self.shown, np.longdouble("1e4000"), False, False, {}

    with np.errstate(all="raise"):
        numbers, notes = look(box(-1, 1, (2,), np.float64), np.array([1e-310, 1e-50]))
        look(box(0, 1, (16, 16, 3), FLOATS), np.full((16, 16, 3), 1e-40, FLOATS))
        player = Environment(Strict(box(-1, 1, (2,), FLOATS), np.zeros(2)), "its-id")
        player.reset()
        assert player.step(0)[1] == np.inf
    assert not numbers["vector"].any()
    assert not notes


def test_a_stack_of_frames_keeps_each_frame_together():
    frames = np.stack([np.full((20, 20, 3), value, BYTES) for value in (10, 20)])
    seen, _ = look(box(0, 255, (2, 20, 20, 3), BYTES), frames, size=20)
    np.testing.assert_array_equal(seen["image"][0, 0], [10, 10, 10, 20, 20, 20])


@pytest.mark.parametrize("shape", [(128,), (2, 128), (5, 5, 5), (9, 9)])
def test_bytes_that_are_no_picture_are_numbers(shape):
    seen, _ = look(box(0, 255, shape, BYTES), np.full(shape, 9, BYTES))
    assert seen["vector"].dtype == np.float32
    assert seen["vector"].size == np.prod(shape)


def test_what_is_not_certainly_an_image_can_be_told():
    declared, shown = box(-np.inf, np.inf, (64, 64, 3), FLOATS), np.zeros((64, 64, 3), FLOATS)
    with pytest.raises(Unavailable, match=r"12,288 numbers.*`image="):
        look(declared, shown)
    with pytest.raises(ValueError, match="cannot be an image"):  # nobody knows its range
        look(declared, shown, image=["image"])
    small = spaces.Dict(map=box(0, 10, (8, 8, 3), FLOATS), pose=box(-1, 1, (3,), FLOATS))
    value = {"map": np.full((8, 8, 3), 5.0), "pose": np.zeros(3)}
    assert look(small, value)[0]["map"].shape == (192,)
    seen, _ = look(small, value, size=8, image=["map"])
    assert seen["map"].shape == (8, 8, 3)
    assert set(seen["map"].ravel()) == {128}
    with pytest.raises(ValueError, match=r"map, pose; got mop"):
        look(small, value, image=["mop"])


@pytest.mark.parametrize(
    ("declared", "shown", "both"),
    [
        (box(0, 255, (64, 64, 3), BYTES), np.full((64, 64, 3), 0.4), ["float64", "uint8"]),
        (
            box(0, 255, (64, 64, 3), BYTES),
            np.zeros((3, 64, 64), BYTES),
            ["(3, 64, 64)", "(64, 64, 3)"],
        ),
        (
            box(0, 255, (64, 64, 3), BYTES),
            np.zeros((80, 60, 3), BYTES),
            ["(80, 60, 3)", "(64, 64, 3)"],
        ),
        (box(0, 255, (64, 64, 3), BYTES), np.full((64, 64, 3), 300), ["300", "255"]),
        (box(0, 1, (64, 64, 3), FLOATS), np.full((64, 64, 3), 200, BYTES), ["200", "[0, 1]"]),
        (box(-1, 1, (3,), FLOATS), np.zeros(4), ["(4,)", "(3,)"]),
        (box(-1, 1, (3,), FLOATS), [[1.0], [1.0, 2.0], []], ["lengths", "(3,)"]),
        (box(-1, 1, (3,), FLOATS), None, ["NoneType", "(3,)"]),
        (box(-1, 1, (3,), FLOATS), np.zeros(3, object), ["ndarray of object", "(3,)"]),
        (box(-1, 1, (3,), FLOATS), np.ma.masked_less([0, 0.1, 0.2], 0.2), ["2 masked", "(3,)"]),
        (box(-1, 1, (1, 3), FLOATS), [np.ma.masked_less([0, 0.1], 1)], ["2 masked", "(1, 3)"]),
        (spaces.Discrete(4), np.ma.masked, ["1 masked value", "Discrete(4)"]),
        (spaces.Discrete(4), 4, ["4", "Discrete(4)"]),
        (spaces.Discrete(4), 1.5, ["1.5", "Discrete(4)"]),
        (spaces.Dict(a=spaces.Discrete(4)), {"b": 1}, ["lacks a", "shows b"]),
        (
            spaces.Dict(a=spaces.Discrete(4)),
            np.zeros(4),
            ["its observation is a ndarray, but part a is declared", "Return a dictionary"],
        ),
        (
            spaces.Tuple([spaces.Discrete(4), spaces.Discrete(4)]),
            (1,),
            ["its observation is a tuple of 1 part, but part 1, counted from 0, is declared"],
        ),
        (spaces.MultiDiscrete([2, 3]), [1, 3], ["3", "MultiDiscrete"]),
        (box(-1, 1, (3,), FLOATS), Tensor(), ["Tensor", "requires grad", "(3,)"]),
    ],
)
def test_what_is_not_as_declared_is_refused_with_both(declared, shown, both):
    with pytest.raises(Mismatch) as error:
        look(declared, shown)
    for part in both:
        assert part in str(error.value)


def test_a_black_first_frame_does_not_hide_what_comes_after():
    env = Shows(box(0, 255, (16, 16, 3), BYTES), np.zeros((16, 16, 3)))
    player = Environment(env, "its-id")
    player.reset()
    env.shown = np.full((16, 16, 3), 0.7)
    with pytest.raises(Mismatch, match="If its pixels are from 0 to 1"):
        player.step(0)


def test_integers_that_float32_rounds_are_said_once():
    declared = box(0, 2**40, (2,), np.int64)
    exact = Environment(Shows(declared, np.array([2**24, 2**30])), "its-id")
    exact.reset()
    assert exact.notes == []
    rounded = Environment(Shows(declared, np.array([3, 2**24 + 1])), "its-id")
    rounded.reset()
    rounded.step(0)
    assert len(rounded.notes) == 1
    assert "float32 rounds" in rounded.notes[0]


@pytest.mark.parametrize(
    ("number", "rounded"),
    [(2**60, False), (-(2**63), False), (2**60 + 1, True), (2**53 + 1, True), (2**63 - 1, True)],
)
def test_integers_that_float64_rounds_too_are_told_from_exact_ones(number, rounded):
    """All beyond 2^53 were called rounded, and 2^53 + 1 was not."""
    _, notes = look(box(-(2**63), 2**63 - 1, (2,), np.int64), np.array([3, number]))
    assert any("float32 rounds" in note for note in notes) is rounded


def test_numbers_beyond_their_bounds_are_taken_and_said_once():
    env = Shows(box(-1, 1, (2,), FLOATS), np.array([0.0, 7.0]))
    player = Environment(env, "its-id")
    seen, _ = player.reset()
    player.step(0)
    np.testing.assert_array_equal(seen["vector"], [0, 7])
    assert [note for note in player.notes if "beyond its bounds" in note and "7" in note]
    assert len(player.notes) == 1


@pytest.mark.parametrize(
    ("declared", "shown"),
    [(spaces.MultiBinary(4), [0, 1, 2, 1]), (spaces.MultiDiscrete([3] * 17, start=[1] * 17), [0])],
)
def test_counts_beyond_their_bounds_are_said(declared, shown):
    """A 2 among binary values was taken without a word."""
    _, (note,) = look(declared, np.resize(shown, declared.shape))
    assert "beyond its bounds" in note


def test_small_floats_of_jax_are_read():
    shown = jnp.array([0.5, -0.25], jnp.bfloat16)
    seen, notes = look(box(-1, 1, (2,), FLOATS), shown)
    np.testing.assert_array_equal(seen["vector"], [0.5, -0.25])
    assert not notes


def test_floats_from_0_to_1_under_a_range_of_bytes_are_said():
    """Declared as floats from 0 to 255, they made an almost black image without a word."""
    env = Shows(box(0, 255, (16, 16, 3), FLOATS), np.zeros((16, 16, 3)))
    player = Environment(env, "its-id")
    player.reset()
    env.shown = np.full((16, 16, 3), 0.7)
    player.step(0)
    player.step(0)
    assert ["almost black" in note for note in player.notes] == [True]
    env.shown = np.full((16, 16, 3), 70.0)
    bright = Environment(env, "its-id")
    bright.reset()
    env.shown = np.full((16, 16, 3), 0.7)  # a fade
    bright.step(0)
    assert not bright.notes


def test_nested_observations_are_named_by_their_path_and_text_is_left_out():
    declared = spaces.Dict(
        robot=spaces.Dict(pose=box(-9, 9, (2,), FLOATS), gear=spaces.Discrete(3, start=1)),
        cameras=spaces.Tuple([box(0, 255, (16, 16, 3), BYTES), box(0, 255, (16, 16), BYTES)]),
        mission=spaces.Text(9),
        keys=spaces.MultiBinary(4),
        switches=spaces.MultiDiscrete([2, 5]),
    )
    shown = {
        "robot": {"pose": np.ones(2), "gear": 3},
        "mission": "go",
        "keys": [0, 1, 0, 1],
        "cameras": (np.zeros((16, 16, 3), BYTES), np.zeros((16, 16), BYTES)),
        "switches": np.array([1, 4]),
        "undeclared": 1,
    }
    player = Environment(Shows(declared, shown), "its-id", size=16)
    assert player.observations == {
        "cameras/0": Space((16, 16, 3), "uint8"),
        "cameras/1": Space((16, 16, 1), "uint8"),
        "keys": Space((4,), "float32"),
        "robot/gear": Space((), "int32", 3),
        "robot/pose": Space((2,), "float32"),
        "switches/0": Space((), "int32", 2),
        "switches/1": Space((), "int32", 5),
    }
    seen, _ = player.reset()
    assert (seen["robot/gear"], seen["switches/1"]) == (2, 4)
    assert [note for note in player.notes if "left out mission" in note]


def test_what_is_shown_and_not_declared_is_left_out_and_said_once():
    """It was left out without a word, and a user believed that the agent saw it."""
    cameras = spaces.Tuple([box(0, 255, (16, 16, 3), BYTES)])
    declared = spaces.Dict(robot=spaces.Dict(pose=box(-9, 9, (2,), FLOATS)), cameras=cameras)
    picture = np.zeros((16, 16, 3), BYTES)
    shown = {
        "robot": {"pose": np.ones(2), "goal": np.ones(3)},
        "cameras": [picture, picture],
        "depth": picture,
    }
    player = Environment(Shows(declared, shown), "its-id", size=16)
    player.reset()
    assert player.reset()[0].keys() == {"robot/pose", "cameras/0"}
    said = "left out robot/goal, cameras/1, depth: shown and not declared"
    assert player.notes == [said]


def test_undeclared_names_that_change_fill_neither_memory_nor_terminal():
    """Each episode gave another message, and kept it."""
    declared, shown = spaces.Dict(pose=box(-9, 9, (2,), FLOATS)), {"pose": np.ones(2)}
    player = Environment(Shows(declared, shown), "its-id")
    for episode in range(3):
        shown |= {f"object-{episode}-{number}": 0 for number in range(1000)}
        player.reset()
    names = ", ".join(f"object-0-{number}" for number in range(5))
    assert player.notes == [f"left out {names} and 995 more: shown and not declared"]


def test_what_is_shown_as_declared_has_no_note():
    declared = spaces.Dict({"pose": box(-9, 9, (2,), FLOATS), "3": box(-9, 9, (1,), FLOATS)})
    assert look(declared, {"pose": np.ones(2), 3: np.ones(1)})[1] == []


def test_an_environment_of_text_alone_is_refused():
    with pytest.raises(Unavailable, match="reads anything"):
        look(spaces.Dict(story=spaces.Text(9)), {"story": "x"})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_numbers_that_are_not_finite_are_named_and_become_zero(bad):
    declared = spaces.Dict(
        pose=box(-np.inf, np.inf, (2,), np.float64), image=box(0, 1, (16, 16, 3), FLOATS)
    )
    shown = {"pose": np.array([bad, 3.0]), "image": np.full((16, 16, 3), 0.5)}
    player = Environment(Shows(declared, shown), "its-id", size=16)
    seen, _ = player.reset()
    np.testing.assert_array_equal(seen["pose"], [0, 3])
    assert player.nonfinite == ("pose",)
    with np.errstate(over="ignore"):
        shown["image"][0, 0, 0] = bad
    if not np.isfinite(shown["image"]).all():
        seen, *_ = player.step(0)
        assert (seen["image"][0, 0, 0], seen["image"][1, 1, 1]) == (0, 128)
        assert set(player.nonfinite) == {"pose", "image"}


@pytest.mark.parametrize(
    "reward",
    [
        "1",
        None,
        "much",
        [1.0, 2.0],
        ["1.5"],
        [None],
        1j,
        np.complex64(1),
        np.datetime64("2020-01-01"),
        np.timedelta64(3, "ns"),
        np.ma.masked,
        Tensor(),
        pytest.param(10**5000, id="long"),
        pytest.param(Decimal("sNaN"), id="signalling"),
    ],
)
def test_a_reward_that_is_no_number_is_refused(reward):
    class Pays(Shows):
        def step(self, action: Any) -> Any:
            return self.shown, reward, False, False, {}

    player = Environment(Pays(spaces.Discrete(2), 0), "its-id")
    player.reset()
    with pytest.raises(Mismatch, match="reward must be one number") as error:
        player.step(0)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("reward", [Decimal("0.5"), [0.5], np.array([[0.5]]), jnp.bfloat16(0.5)])
def test_a_reward_that_is_one_number_in_any_form_is_taken(reward):
    class Pays(Shows):
        def step(self, action: Any) -> Any:
            return self.shown, reward, jnp.array(False), np.array([0]), {}

    player = Environment(Pays(spaces.Discrete(2), 0), "its-id")
    player.reset()
    assert player.step(0)[1:4] == (0.5, False, False)


def test_what_has_no_numbers_or_too_many_values_is_not_read_as_it_is():
    declared = spaces.Dict(
        none=spaces.Box(-1, 1, (0,)),
        many=spaces.Discrete(10**9),
        text=spaces.Text(3),
    )
    shown = {"none": np.zeros(0, np.float32), "many": 5, "text": "abc"}
    player = Environment(Shows(declared, shown), "its-id", size=16)
    assert player.observations == {"many": Space((), "float32")}
    assert player.reset(seed=0)[0]["many"] == 5
    assert [note for note in player.notes if "none (of no numbers)" in note and "text" in note]
    twice = spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(3)})})
    with pytest.raises(Unavailable, match="two things as a/b"):
        Environment(Shows(twice, {}), "its-id", size=16)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (spaces.MultiBinary(10**6), "1,000,000 numbers, more than 4,096"),
        (spaces.MultiDiscrete(np.full(5000, 3)), "5,000 numbers, more than 4,096"),
        (spaces.Box(-1, 1, (5000,)), "5,000 numbers, and no image"),
        (spaces.Dict({f"{i}": spaces.Discrete(2) for i in range(300)}), "300 parts; at most 256"),
        (spaces.Dict({f"{i}": spaces.Text(9) for i in range(300)}), "reads anything"),
        (nested(spaces.Discrete(2), 2000), "more than 32 dictionaries"),
    ],
)
def test_what_no_agent_could_learn_from_is_refused_in_short(declared, problem):
    """A million switches were a vector of a million numbers; deep nesting ended the interpreter's
    stack; a dictionary of texts was written out whole."""
    with pytest.raises(Unavailable, match=problem) as error:
        sights("its-id", declared, size=16, image=(), say=print)
    assert len(str(error.value)) < 600


def test_nested_spaces_within_the_limit_are_read():
    declared = nested(spaces.Discrete(3), 32)
    (sight,) = sights("its-id", declared, size=16, image=(), say=print)
    assert sight.name == "/".join(["0", "in"] * 16)
