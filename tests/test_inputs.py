from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from decisions import BATCH, EVIDENCE, notes, play
from helpers import BITS, codes, equal, slow, steer, tiny_dreamer

from thinkslow.agent.agent import Agent
from thinkslow.agent.observing import admitted, named
from thinkslow.agent.thinking import Thinking
from thinkslow.objectives import Evidence
from thinkslow.readouts import BestOf, Soft
from thinkslow.spaces import Space
from thinkslow.trees import all_finite, put

pytestmark = pytest.mark.usefixtures("strict")


@pytest.mark.parametrize(
    "thinking",
    [
        Thinking(),
        slow(Thinking({Evidence(0.1, 1.0): 1.0}, steps=2, latent=Soft())),
        Thinking(lag=2),
        slow(Thinking(particles=4)),
        Thinking(futures=4),
    ],
)
def test_an_observation_that_is_no_number_leaves_the_prior_and_says_so(thinking):
    """NaN logits once gave class 0, and NaN weights of particles never came back."""
    agent = Agent(codes(), thinking, policy=lambda model, state, key: steer(state, key))
    keys, first = jr.split(jr.key(0), 2), np.ones(2, bool)
    good = np.asarray(BITS["bits"])
    carry = agent.start(2)
    carry, _, thought = agent.act(carry, {"bits": np.stack([good, good])}, first, keys=keys)
    assert thought.seen.all()
    broken = {"bits": np.stack([good, np.full_like(good, np.nan)])}
    carry, action, thought = agent.act(carry, broken, ~first, keys=keys)
    np.testing.assert_array_equal(thought.seen, [True, False])
    if not thinking.lag:  # which has a prior of its own
        equal(*(jax.tree.map(lambda x: x[1], belief) for belief in (thought.after, thought.prior)))
    carry, action, thought = agent.act(carry, {"bits": np.stack([good, good])}, ~first, keys=keys)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((carry.state, action, thought.after)))
    assert thought.seen.all()


@pytest.mark.parametrize("thinking", [EVIDENCE, slow(Thinking(readout=BestOf(4)))])
def test_pixels_out_of_range_are_no_evidence_for_any_latent(dreamer, thinking):
    """They were flagged and not encoded, but refinement and the best of several trusted them."""
    rng = np.random.default_rng(0)
    shown = rng.uniform(0, 255, (BATCH, 16, 16, 3)).astype(np.float32)
    agent, keys = Agent(dreamer, thinking), jr.split(jr.key(0), BATCH)
    _, _, thought = agent.act(agent.start(BATCH), {"image": shown}, np.ones(BATCH, bool), keys=keys)
    assert not thought.seen.any()
    equal(thought.after, thought.prior)
    equal(thought.state, thought.base)


@pytest.mark.parametrize(
    "thinking",
    [
        Thinking({Evidence(0.1, 1.0): 1.0}, steps=2, latent=Soft(), carry=False),
        Thinking(lag=2, carry=False),
    ],
)
def test_what_a_missing_observation_shows_is_not_carried(thinking):
    """With `carry` off, the state of the frame that was flagged as missing was carried."""
    agent = Agent(codes(), thinking, policy=lambda model, state, key: steer(state, key))
    bits = np.asarray(BITS["bits"])
    carries = []
    for shown in (bits, 1 - bits):
        carry, _, _ = agent.act(
            agent.start(1),
            {"bits": shown[None]},
            np.ones(1, bool),
            keys=jr.split(jr.key(0), 1),
            missing=np.ones(1, bool),
        )
        carries.append(carry.state)
    equal(*carries)


def test_a_window_forgets_what_a_missing_frame_showed():
    """It is encoded again at later decisions, where nobody flags it any more."""
    agent = Agent(codes(), Thinking(lag=2), policy=lambda model, state, key: steer(state, key))
    bits, keys = np.asarray(BITS["bits"])[None], jr.split(jr.key(0), 1)
    ends = []
    for shown in (bits, 1 - bits):
        carry, beliefs = agent.start(1), []
        for now, seen in enumerate((bits, shown, bits)):
            carry, _, thought = agent.act(
                carry,
                {"bits": seen},
                np.full(1, now == 0),
                keys=keys,
                missing=np.full(1, now == 1),
            )
            beliefs.append(thought.after)
        ends.append((beliefs, carry.state))
    equal(*ends)


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        ({"other": np.ones((1, 3), np.float32)}, "lacks seen"),
        ({"seen": np.ones((1, 4), np.float32)}, r"`seen` is of shape \(4,\)"),
        ({"seen": np.ones((2, 3), np.float32)}, "`seen` is of 2 environments, `keys` of 1"),
        ({"seen": np.full((1, 3), "x")}, "`seen` must be an array of numbers; got ndarray of <U1"),
        ({"seen": np.array([[1, 2, None]])}, "`seen` must be an array of numbers; .* of object"),
        ({"seen": np.zeros((1, 3), "f4,f4")}, r"`seen` must be an array of numbers; .*'f0'"),
        ({"seen": np.ma.masked_equal([[1, 2, 3]], 2)}, "`seen` .* numbers; got 1 masked value"),
    ],
)
def test_what_the_agent_does_not_see_is_refused_by_name(observation, said):
    agent = Agent(notes())
    with pytest.raises(ValueError, match=said):
        agent.act(agent.start(1), observation, np.ones(1, bool), keys=jr.split(jr.key(0), 1))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keys": jr.key(0)}, r"`keys` must be one for each .*jax\.random\.split"),
        ({"keys": 0}, "`keys` must be one for each .*; got int"),
        ({"keys": jr.split(jr.key(0), 0)}, "`keys` must be one for each of one or more"),
        ({"is_first": True}, "`is_first` is of none, `keys` of 2"),
        (
            {"observation": np.ones((2, 3))},
            r"must be arrays by name \(seen\); got ndarray of float",
        ),
        ({"missing": [True]}, "`missing` of `seen` is of 1 environment, `keys` of 2"),
        ({"carry": None}, r"`carry` must be of `agent\.start\(batch\)`.*; got None"),
        ({"carry": 3}, "`carry` is of 3 environments, `keys` of 2"),
        ({"carry": "other"}, r"must be of this agent.*State with .*\(8,\).*Begin with `agent"),
    ],
)
@pytest.mark.parametrize("settings", [Thinking(), slow(Thinking(particles=2))])
def test_a_decision_that_cannot_begin_says_what_to_give(change, said, settings):
    """The carry of another number of environments ended in JAX's message about vmap."""
    agent = Agent(notes(), settings)
    given = {
        "carry": agent.start(2),
        "observation": {"seen": np.ones((2, 3), np.float32)},
        "is_first": np.ones(2, bool),
        "keys": jr.split(jr.key(0), 2),
    } | change
    if given["carry"] == 3:
        given["carry"] = agent.start(3)
    elif given["carry"] == "other":
        given["carry"] = jax.tree.map(lambda x: jnp.concatenate([x, x], -1), agent.start(2))
    with pytest.raises(ValueError, match=said):
        agent.act(**given)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("batch", [0, -1, 2.5, True, None])
def test_an_agent_starts_in_one_environment_or_more(batch):
    with pytest.raises(ValueError, match=f"must be one or more environments; got {batch}"):
        Agent(notes()).start(batch)


def test_an_observation_of_another_byte_order_is_turned():
    """An image of a file from another machine ended in JAX's message about abstract arrays."""
    agent, keys = Agent(notes()), jr.split(jr.key(0), 1)
    for order in "<>":
        seen = {"seen": np.ones((1, 3), f"{order}f4")}
        _, _, thought = agent.act(agent.start(1), seen, np.ones(1, bool), keys=keys)
        assert thought.seen.all()


def test_any_array_that_numpy_reads_is_an_observation():
    """A tensor's type is not NumPy's, and asking for its kind was an error of its own."""

    class Tensor:
        dtype = "torch.float32"

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            return np.ones((1, 3), np.float32)

    spaces = (("seen", Space((3,), "float32")),)
    np.testing.assert_array_equal(named(spaces, {"seen": Tensor()})["seen"], np.ones((1, 3)))
    short = np.ones((1, 3), jnp.bfloat16)
    assert named(spaces, {"seen": short})["seen"] is short
    with pytest.raises(ValueError, match="got 2 masked values"):
        named(spaces, {"seen": [np.ma.masked_less([1, 2, 3], 3)]})


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_numbers_beyond_32_bits_are_not_wrapped(kind):
    """A counter of nanoseconds was a random number for JAX."""
    spaces = (("seen", Space((2,), "float32")), ("gear", Space((), "int32", 4)))
    large = np.array([[2**40, 3]], kind)
    found = named(spaces, {"seen": large, "gear": large[0, :1]})
    np.testing.assert_array_equal(put(found["seen"]), [[2.0**40, 3.0]])
    np.testing.assert_array_equal(put(found["gear"]), [2**31 - 1])
    undeclared = named((), {"symbol": np.zeros(1, kind)})["symbol"]
    assert undeclared.dtype.kind in "iu"  # which a model may read as a class


def test_what_the_agent_does_not_see_may_be_anything():
    """A mission in words beside what it sees ended in JAX's message about abstract arrays."""
    agent, keys = Agent(notes()), jr.split(jr.key(0), 1)
    seen = {"seen": np.ones((1, 3), np.float32)}
    more = {**seen, "mission": np.array(["go"])}
    for observation in (seen, more):
        _, action, _ = agent.act(agent.start(1), observation, np.ones(1, bool), keys=keys)
        assert np.isfinite(action).all()


def test_floats_in_place_of_bytes_are_flagged_and_the_prior_stands_in(dreamer, stream):
    (observation, first), agent = stream[0], Agent(dreamer)
    keys = jr.split(jr.key(0), BATCH)
    wrong = {"image": observation["image"].astype(np.float32)}
    _, _, thought = agent.act(agent.start(BATCH), wrong, first, keys=keys)
    assert not thought.seen.any()
    equal(thought.after, thought.prior)
    right = {"image": wrong["image"] / 255}
    assert agent.act(agent.start(BATCH), right, first, keys=keys)[2].seen.all()


@pytest.mark.parametrize("kind", [np.int64, slow(np.uint16)])
@pytest.mark.parametrize("thinking", [EVIDENCE, Thinking(lag=2)])
def test_bytes_of_another_type_of_integers_are_the_same_image(dreamer, stream, thinking, kind):
    """`evidence` compared the reconstruction with pixels that were 255 times too bright."""
    (observation, first), agent = stream[0], Agent(dreamer, thinking)
    keys, ends = jr.split(jr.key(0), BATCH), []
    image = np.asarray(observation["image"])
    for shown in (image, image.astype(kind)):
        carry, _, one = agent.act(agent.start(BATCH), {"image": shown}, first, keys=keys)
        carry, _, two = agent.act(carry, {"image": shown}, ~first, keys=keys)
        assert two.seen.all()
        ends.append((one.after, two.after))
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)  # two programs round apart


@pytest.mark.parametrize("wrong", [-1, 256, 30_000, 2**32 + 7])
def test_integers_that_are_no_bytes_are_flagged_and_the_prior_stands_in(dreamer, stream, wrong):
    """Frames of 16 bits passed as seen."""
    (observation, first), agent = stream[0], Agent(dreamer, EVIDENCE)
    image = np.asarray(observation["image"]).astype(np.int64)
    image[0, 3, 3, 1] = wrong
    keys = jr.split(jr.key(0), BATCH)
    _, _, thought = agent.act(agent.start(BATCH), {"image": image}, first, keys=keys)
    assert thought.seen.tolist() == [False] + [True] * (BATCH - 1)
    equal(*(jax.tree.map(lambda x: x[0], each) for each in (thought.after, thought.prior)))


@pytest.mark.parametrize(("kind", "classes"), [("uint8", 256), ("int8", 200), ("uint16", 1 << 16)])
def test_a_type_of_integers_may_lack_the_number_of_classes(kind, classes):
    """256 is 0 among bytes, so no class of `Discrete(256)` existed."""
    seen = {"ram": np.array([100, 127], kind)}
    found, sound = admitted((("ram", Space((2,), "int32", classes)),), seen)
    assert sound
    assert found["ram"].tolist() == [100, 127]
    image = np.full((4, 4, 3), 127, np.int8)
    assert admitted((("image", Space(image.shape, "uint8")),), {"image": image})[1]


@pytest.mark.parametrize("how", [{}, slow({"lag": 2})], ids=["none", "lag"])
def test_classes_are_read_in_any_form_and_flagged_where_there_are_none(how):
    """A class beyond the last was seen as none of them, and a float ended in JAX's own words."""
    spaces = {"image": Space((16, 16, 3), "uint8"), "gear": Space((), "int32", 4)}
    agent = Agent(tiny_dreamer(observations=spaces), Thinking(**how))
    image, keys = np.zeros((4, 16, 16, 3), np.uint8), jr.split(jr.key(0), 4)

    def seen(gear: np.ndarray) -> Any:
        carry, shown = agent.start(4), {"image": image, "gear": gear}
        carry, _, _ = agent.act(carry, shown, np.ones(4, bool), keys=keys)
        return agent.act(carry, shown, np.zeros(4, bool), keys=keys)[2]

    usual = seen(np.array([3, 0, 1, 1]))
    assert usual.seen.all()
    codes = np.eye(4)[[3, 0, 1, 1]]
    for gear in (np.array([3.0, 0, 1, 1]), codes, codes.astype(int), codes.astype(bool)):
        equal(seen(gear).after, usual.after)
    assert seen(np.array([4, 0, -1, 1])).seen.tolist() == [False, True, False, True]
    assert seen(np.array([2.5, 0, np.nan, 1])).seen.tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    "how", [{}, slow({"lag": 2}), slow({"particles": 3})], ids=["none", "lag", "cloud"]
)
def test_an_image_of_one_colour_is_flagged_and_used(dreamer, stream, how):
    (observation, first), agent = stream[0], Agent(dreamer, Thinking(**how))
    frame = observation["image"].copy()
    frame[0] = 255
    keys = jr.split(jr.key(0), BATCH)
    _, _, thought = agent.act(agent.start(BATCH), {"image": frame}, first, keys=keys)
    np.testing.assert_array_equal(thought.blank, np.arange(BATCH) == 0)
    assert thought.seen.all()


@pytest.mark.parametrize("bad", [np.nan, 1e30, 200.0], ids=["nan", "huge", "bytes as floats"])
@pytest.mark.parametrize(
    "how", [{}, {"lag": 2}, slow({"particles": 3})], ids=["none", "lag", "cloud"]
)
def test_after_bad_frames_the_belief_is_soon_as_good_as_reset(dreamer, stream, how, bad):
    """With a lag, one float frame once left the window misread until a new start."""
    agent, frame = Agent(dreamer, Thinking(**how)), stream[0][0]["image"]
    broken = {"image": np.full(frame.shape, bad, np.float32)}
    carry, begins = agent.start(BATCH), np.ones(BATCH, bool)
    thought = None
    for time in range(8):
        shown = broken if time in (1, 2) else {"image": frame}
        keys = jr.split(jr.fold_in(jr.key(0), time), BATCH)
        carry, action, thought = agent.act(carry, shown, begins & (time == 0), keys=keys)
        np.testing.assert_array_equal(np.sum(action, -1), 1.0)
        assert thought.seen.all() == (shown is not broken)
    assert thought is not None
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((carry, thought.after)))
    if how.get("lag"):
        past: Any = carry.past
        assert past.observations["image"].dtype == np.uint8


def test_a_carry_that_is_not_finite_is_forgotten(dreamer, stream):
    (observation, first), agent = stream[0], Agent(dreamer)
    fresh = play(agent, stream[:1])
    poisoned = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), agent.start(BATCH))
    keys = jr.split(jr.fold_in(jr.key(0), 0), BATCH)
    for begins in (first, ~first):
        carry, action, _ = agent.act(poisoned, observation, begins, keys=keys)
        equal((carry, action), fresh[0][:2])


@pytest.mark.parametrize(
    "how", [{"lag": 2}, slow({"particles": 3}), slow({"delay": 1})], ids=["lag", "cloud", "delay"]
)
def test_a_past_that_is_not_finite_is_forgotten_too(dreamer, stream, how):
    """The window of a lag kept NaN for as many decisions as it is long."""
    agent, carry = Agent(dreamer, Thinking(**how)), None
    for time, (observation, first) in enumerate(stream[:2]):
        if carry is not None:
            carry = jax.tree.map(
                lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x, carry
            )
        keys = jr.split(jr.fold_in(jr.key(0), time), BATCH)
        carry = agent.start(BATCH) if carry is None else carry
        carry, action, _ = agent.act(carry, observation, first & False, keys=keys)
        assert all_finite([x for x in jax.tree.leaves(carry) if x.dtype == jnp.float32])
        np.testing.assert_array_equal(action.sum(-1), 1)
