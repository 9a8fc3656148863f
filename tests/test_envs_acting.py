"""Whatever an agent does lies in the environment's own space."""

import numpy as np
import pytest
from gymnasium import spaces
from helpers import nested
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkslow.envs import Unavailable
from thinkslow.envs.acting import actions, parts
from thinkslow.spaces import Space

INF = np.inf
BOUNDS = st.one_of(st.floats(-1e6, 1e6), st.just(INF), st.just(-INF))


def act(space: spaces.Space, *action: float) -> np.ndarray:
    """The environment's own action for one of numbers."""
    part = parts("its-id", space, lambda _: None)
    native = part.native({"action": np.array(action, np.float32)})
    assert space.contains(native), native
    return native


@settings(deadline=None)
@given(
    st.lists(st.tuples(BOUNDS, BOUNDS), min_size=1, max_size=3),
    st.lists(st.floats(-30, 30), min_size=3, max_size=3),
    st.sampled_from(["float32", "float64", "int32"]),
)
def test_every_action_lies_in_its_space(bounds, action, dtype):
    low = np.array([min(-INF if one == INF else one, other) for one, other in bounds])
    high = np.array([max(one, INF if other == -INF else other) for one, other in bounds])
    if dtype == "int32":
        limits = np.iinfo(np.int32)
        low, high = np.clip([low, high], limits.min, limits.max).astype(np.int64)
    space = spaces.Box(low.astype(dtype), high.astype(dtype), dtype=np.dtype(dtype).type)
    act(space, *action[: len(bounds)])


@pytest.mark.parametrize(
    ("low", "high", "dtype", "given_", "expected"),
    [
        (0.0, 800.0, np.float32, (-1, 0, 1, 9), (0, 400, 800, 800)),
        (0.0, INF, np.float32, (-9, -1, 0, 1, 5), (0, 0, 1, 2, 6)),
        (-INF, 3.0, np.float32, (-1, 0, 1, 9), (1, 2, 3, 3)),
        (-INF, INF, np.float32, (-5, 0.25), (-5, 0.25)),
        (-3.4e38, 3.4e38, np.float32, (-5, 0.25), (-5, 0.25)),  # no bounds by another name
        (0, 10, np.int64, (-1, -0.9, 0, 0.95, 1), (0, 0, 5, 10, 10)),
    ],
)
def test_bounds_of_every_kind(low, high, dtype, given_, expected):
    space = spaces.Box(low, high, (len(given_),), dtype)
    np.testing.assert_allclose(act(space, *given_), expected)


def test_whole_numbers_have_equal_shares():
    space = spaces.Box(0, 10, (1,), np.int64)
    found = [int(act(space, value)[0]) for value in np.linspace(-1, 1, 110)]
    assert np.bincount(found).tolist() == [10] * 11


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 2)])
def test_boxes_of_any_rank_are_a_row_of_numbers(shape):
    space = spaces.Box(-1, 1, shape, np.float32)
    size = int(np.prod(shape))
    assert parts("its-id", space, lambda _: None).names == {"action": Space((size,), "float32")}
    assert act(space, *[0.5] * size).shape == shape


def test_several_actions_at_once_have_names():
    space = spaces.Dict(
        move=spaces.MultiDiscrete([3, 4], start=[0, 10]),
        hand=spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (2,), np.float32)]),
        keys=spaces.MultiBinary(2),
    )
    part = parts("its-id", space, lambda _: None)
    assert part.names == {
        "move/0": Space((), "int32", 3),
        "move/1": Space((), "int32", 4),
        "hand/0": Space((), "int32", 2),
        "hand/1": Space((2,), "float32"),
        "keys/0": Space((), "int32", 2),
        "keys/1": Space((), "int32", 2),
    }
    native = part.native(
        {
            "move/0": 2,
            "move/1": 3,
            "hand/0": 1,
            "hand/1": [-1, 1],
            "keys/0": 1,
            "keys/1": 0,
        }
    )
    assert space.contains(native)
    assert native["move"].tolist() == [2, 13]
    assert native["keys"].tolist() == [1, 0]


@pytest.mark.parametrize("wrong", [3, -1, 0.5, np.nan])
def test_a_class_that_is_not_there_is_refused(wrong):
    part = parts("its-id", spaces.Discrete(3), lambda _: None)
    with pytest.raises(ValueError, match="from 0 to 2"):
        part.native({"action": wrong})


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="must be finite"):
        act(spaces.Box(-1, 1, (2,), np.float32), 0.0, np.nan)


def test_one_bound_alone_is_said():
    said: list[str] = []
    parts("its-id", spaces.Box(0, INF, (2,), np.float32), said.append)
    assert "one bound" in said[0]


@pytest.mark.parametrize(("dtype", "count"), [(np.int64, 1), (np.float32, 0)])
def test_whole_numbers_without_bounds_are_said(dtype, count):
    """An agent takes three of them, which nothing told."""
    said: list[str] = []
    parts("its-id", spaces.Box(-(2**62), 2**62, (2,), dtype), said.append)
    assert [one.endswith("an agent takes -1, 0 and 1") for one in said] == [True] * count


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        (
            spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(3)})}),
            "two actions named a/b",
        ),
        (spaces.Dict({}), "nothing to choose"),
        (spaces.Tuple(()), "nothing to choose"),
        (spaces.Box(-1, 1, (0,)), "nothing to choose"),
        (spaces.Discrete(10**9), "1,000,000,000 actions"),
        (spaces.Dict({"say": spaces.Text(3), "go": spaces.Discrete(2)}), "acts in Text"),
        (spaces.MultiBinary(10**6), "1,000,000 actions at once; at most 256"),
        (spaces.MultiDiscrete(np.full((20, 20), 3)), "400 actions at once"),
        (spaces.Dict({f"{i}": spaces.Discrete(2) for i in range(300)}), "300 actions at once"),
        (spaces.Box(-1, 1, (1000, 1000)), "1,000,000 numbers"),
        (nested(spaces.Discrete(2), 2000), "more than 32 dictionaries"),
    ],
)
def test_actions_that_nobody_can_learn_are_refused(space, problem):
    with pytest.raises(Unavailable, match=problem):
        actions("its-id", space, lambda _: None)
