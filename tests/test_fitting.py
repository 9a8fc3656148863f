"""Agents fitted to the names, sizes and actions of an environment."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from foreign import choice, image, vector
from helpers import ask, tiny_dreamer

from thinkslow.dreamer.match_spaces import match_spaces
from thinkslow.saved import folder as checkpoint
from thinkslow.storage import store


def fit(one: checkpoint.Saved, spaces: Any, action: Any) -> Any:
    actions = {"action": action}
    return match_spaces(one.model, None, spaces, actions, name=one.name, id="some/Env-v0")[0]


def test_what_is_alone_of_its_kind_may_have_another_name():
    one = saved(observations={"rgb": image(16), "state": vector(6)}, actions={"act": choice(3)})
    spaces = {"image": image(16), "vector": vector(2, 3)}
    fitted = fit(one, spaces, choice(3))
    assert dict(fitted.observation_spaces) == spaces
    observation = {"rgb": np.ones((16, 16, 3), np.uint8), "state": np.arange(6.0)}
    renamed = {"image": observation["rgb"], "vector": np.arange(6.0).reshape(2, 3)}
    memory = jnp.ones(32)
    before, after = (
        np.asarray(ask(ask(model, "infer", memory, seen), "probs"))
        for model, seen in ((one.model, observation), (fitted, renamed))
    )
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_which_of_several_an_agent_sees_is_not_guessed():
    """It was the first of those whose names are others, fit or not."""
    one = saved(observations={"state": vector(6)}, actions={"act": choice(3)})
    with pytest.raises(store.Misfit, match="its state may be any of goal, speed"):
        fit(one, {"goal": vector(6), "speed": vector(6)}, choice(3))
    fitted = fit(one, {"goal": vector(2), "speed": vector(6)}, choice(3))
    assert [*dict(fitted.observation_spaces)] == ["speed"]


@pytest.mark.parametrize(
    ("spaces", "action", "said"),
    [
        (
            {"image": image(24)},
            choice(9),
            "its image is 16x16x3, the environment's 24x24x3 (make it with `size` 16)",
        ),
        ({"image": image(16, 1)}, choice(9), "16x16x3, the environment's 16x16x1"),
        ({"vector": vector(3)}, choice(9), "sees the image, the environment shows no image"),
        ({"image": image(16)}, choice(4), "one of 9 actions, the environment one of 4 actions"),
        ({"image": image(16)}, vector(9), "one of 9 actions, the environment 9 continuous"),
        ({"image": image(16)}, choice(15), "the 9 of IMPALA and the 15 of PopArt"),
        ({"image": image(8)}, choice(4), "8x8x3 (make it with `size` 16); it takes one of 9"),
    ],
)
def test_a_mismatch_is_told_field_by_field(spaces, action, said):
    one = saved(observations={"image": image(16)}, actions={"action": choice(9)})
    with pytest.raises(store.Misfit) as caught:
        fit(one, spaces, action)
    assert said in str(caught.value)


def test_vectors_that_differ_are_told():
    one = saved(observations={"a": vector(3), "b": choice(4)})
    for spaces, part in (
        ({"a": vector(4), "b": choice(4)}, "its a has 3 numbers, the environment's 4"),
        ({"a": vector(3), "b": vector(4)}, "its b is discrete, the environment's continuous"),
        ({"a": vector(3)}, "it sees the vector b, the environment shows a"),
    ):
        with pytest.raises(store.Misfit) as caught:
            fit(one, spaces, choice(3))
        assert part in str(caught.value)


def saved(**case: Any) -> checkpoint.Saved:
    model = tiny_dreamer(**case)
    return checkpoint.Saved(model, {"name": "theirs", "architecture": "dreamerv3-main"})
