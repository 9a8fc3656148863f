"""Missing and late frames on problems whose exact belief is known."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import codes, equal, nightly, slow, steer

from thinkslow.agent.agent import Agent
from thinkslow.agent.deadline import Timed
from thinkslow.agent.gates import Chance, Gated
from thinkslow.agent.thinking import Thinking
from thinkslow.evaluation.play import Telling
from thinkslow.evaluation.subjects import awaits
from thinkslow.objectives import Evidence
from thinkslow.readouts import Soft
from thinkslow.toy import exact, ring, simulate

pytestmark = pytest.mark.usefixtures("strict")

PROBLEM, MODEL = ring(6), exact(ring(6))
TIME, BATCH = 12, 8


@pytest.fixture(scope="module")
def episodes() -> tuple[np.ndarray, np.ndarray]:
    """Actions that led to each step, and symbols, `[time, batch]`."""
    actions = jr.randint(jr.key(2), (TIME, BATCH), 0, 2)
    keys = jr.split(jr.key(1), BATCH)
    _, symbols = jax.vmap(lambda a, k: simulate(PROBLEM, a, key=k), (1, 0), 1)(actions, keys)
    return np.asarray(actions), np.asarray(symbols)


def play(
    thinking: Thinking, episodes: Any, missing: Any = None, shown: Any = None, age: Any = None
) -> list[Any]:
    """Thoughts along the episodes under the given actions, whatever the agent would do."""
    actions, symbols = episodes
    shown = symbols if shown is None else shown
    agent = Agent(MODEL, thinking)
    carry, out = agent.start(BATCH), []
    for time in range(TIME):
        if time:
            taken = jax.nn.one_hot(actions[time], PROBLEM.actions)
            carry = dataclasses.replace(carry, action=taken)
        keys = jr.split(jr.fold_in(jr.key(0), time), BATCH)
        told = {} if missing is None else {"missing": missing[time]}
        told |= {} if age is None else {"age": age[time]}
        carry, _, thought = agent.act(
            carry, {"symbol": shown[time]}, np.full(BATCH, time == 0), keys=keys, **told
        )
        out.append((carry, thought))
    return out


def exact_beliefs(episodes: Any, missing: Any) -> np.ndarray:
    """The filter that leaves missing frames out, `[time, batch, states]`."""
    actions, symbols = episodes
    out, belief = [], np.tile(np.asarray(PROBLEM.start), (BATCH, 1))
    dynamics, emission = np.asarray(PROBLEM.dynamics), np.asarray(PROBLEM.emission)
    for time in range(TIME):
        if time:
            belief = np.einsum("bs,bst->bt", belief, dynamics[actions[time]])
        told = belief * emission[:, symbols[time]].T
        told /= told.sum(-1, keepdims=True)
        belief = np.where(missing[time][:, None], belief, told)
        out.append(belief)
    return np.stack(out)


@pytest.fixture(scope="module")
def lost() -> np.ndarray:
    return np.random.default_rng(0).random((TIME, BATCH)) < 0.5


def test_predicting_through_is_the_exact_filter_without_the_missing_frames(episodes, lost):
    """On a soft latent, which carries the whole belief; a lost frame is not looked at."""
    shown = np.where(lost, 0, episodes[1])
    played = play(Thinking(readout=Soft(), missing="predict"), episodes, lost, shown)
    beliefs = np.stack([thought.after.soft() for _, thought in played])
    np.testing.assert_allclose(beliefs, exact_beliefs(episodes, lost), atol=2e-6)
    np.testing.assert_array_equal(np.stack([t.thinks for _, t in played]), lost)


def test_nothing_missing_and_no_flags_are_the_base_agent_bit_for_bit(episodes, lost):
    plain = play(Thinking(), episodes)
    for told in (
        play(Thinking(missing="predict"), episodes),
        play(Thinking(missing="predict"), episodes, np.zeros_like(lost)),
        play(Thinking(missing="hold"), episodes, np.zeros_like(lost)),
    ):
        for (one, thought), (other, expected) in zip(told, plain, strict=True):
            equal((one.state, one.action), (other.state, other.action))
            equal(thought.after, expected.after)


def test_holding_sees_the_last_frame_that_came(episodes, lost):
    lost = lost.copy()
    lost[0] = False
    held = episodes[1].copy()
    for time in range(1, TIME):
        held[time] = np.where(lost[time], held[time - 1], held[time])
    plain = play(Thinking(), episodes, shown=held)
    for (one, _), (other, _) in zip(
        play(Thinking(missing="hold"), episodes, lost), plain, strict=True
    ):
        equal((one.state, one.action), (other.state, other.action))


def test_a_stale_state_is_that_of_the_last_frame(episodes, lost):
    played = play(Thinking(missing="stale"), episodes, lost)
    # The first frame of an episode has no state before it to stay in.
    assert np.isfinite(played[0][0].state.memory).all()
    for time in range(1, TIME):
        before, after = played[time - 1][0].state, played[time][0].state
        same = np.all(np.asarray(before.latent) == np.asarray(after.latent), -1)
        assert same[lost[time]].all()


@pytest.mark.parametrize("delay", [slow(1), 3])
def test_a_late_frame_is_filtered_at_its_own_time(delay, episodes):
    """The carried belief is the base agent's of `delay` decisions ago, given the same latents."""
    symbols = episodes[1]
    shown = np.concatenate([np.tile(symbols[:1], (delay, 1)), symbols])[:TIME]
    age = np.minimum(np.arange(TIME), delay)[:, None].repeat(BATCH, 1)
    soft = Thinking(readout=Soft(), delay=delay)
    late = play(soft, episodes, shown=shown, age=age)
    unknown = play(soft, episodes, shown=shown)
    truth = exact_beliefs(episodes, np.zeros((TIME, BATCH), bool))
    for time in range(TIME):
        carried = np.asarray(late[time][0].state.latent)
        np.testing.assert_allclose(carried, truth[max(0, time - delay)], atol=2e-6)
        equal(late[time][0].state, unknown[time][0].state)


def test_an_action_is_chosen_where_the_late_frames_actions_lead(episodes):
    """The memory of the state that acts is the prediction from the exact belief: one step late,
    the log of belief times dynamics; and stale, the belief's own."""
    actions, symbols = episodes
    shown = np.concatenate([symbols[:1], symbols])[:TIME]
    played = play(Thinking(readout=Soft(), delay=1), episodes, shown=shown)
    truth = exact_beliefs(episodes, np.zeros((TIME, BATCH), bool))
    dynamics = np.asarray(PROBLEM.dynamics)
    for time in range(1, TIME):
        expected = np.einsum("bs,bst->bt", truth[time - 1], dynamics[actions[time]])
        memory = np.exp(np.asarray(played[time][1].state.memory))
        np.testing.assert_allclose(memory, expected, atol=2e-6)
    stale = play(Thinking(readout=Soft(), delay=1, missing="stale"), episodes, shown=shown)
    equal(stale[5][1].state, stale[5][0].state)


def test_frames_that_come_together_or_not_at_all_are_filtered_in_their_order(episodes):
    """Lateness that changes by one at most skips no frame: the carried belief is exact."""
    symbols = episodes[1]
    newest = np.array([0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8])[:, None].repeat(BATCH, 1)
    age = (np.arange(TIME)[:, None] - newest).astype(np.int32)
    shown = np.take_along_axis(symbols, newest, 0)
    played = play(Thinking(readout=Soft(), delay=3), episodes, shown=shown, age=age)
    truth = exact_beliefs(episodes, np.zeros((TIME, BATCH), bool))
    for time in range(TIME):
        carried = np.asarray(played[time][0].state.latent)
        np.testing.assert_allclose(carried, truth[newest[time, 0]], atol=2e-6)


def test_skipped_frames_are_predicted_through(episodes):
    """Two frames after a late one the next is of now: what was between was never seen."""
    symbols = episodes[1]
    newest = np.array([0, 0, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11])[:, None].repeat(BATCH, 1)
    age = (np.arange(TIME)[:, None] - newest).astype(np.int32)
    shown = np.take_along_axis(symbols, newest, 0)
    late = play(Thinking(delay=2), episodes, shown=shown, age=age)
    lost = np.zeros((TIME, BATCH), bool)
    lost[1:3] = True
    told = play(Thinking(missing="predict"), episodes, lost)
    one = np.stack([t.prior.soft() for _, t in late])[3]
    other = np.stack([t.prior.soft() for _, t in told])[3]
    # Each is the row of one sampled state of two steps before: samples differ, rows do not.
    rows = np.asarray(PROBLEM.dynamics).reshape(-1, PROBLEM.states)
    for prior in (one, other):
        gaps = np.abs(prior[:, None] - rows).max(-1).min(-1)
        np.testing.assert_allclose(gaps, 0, atol=2e-6)


def test_an_episode_that_begins_forgets_the_queue(episodes):
    agent = Agent(MODEL, Thinking(delay=3))
    fresh = agent.start(2)
    keys, first = jr.split(jr.key(3), 2), np.ones(2, bool)
    carry = fresh
    for _ in range(4):
        carry, _, _ = agent.act(carry, {"symbol": np.array([0, 1])}, ~first, keys=keys)
    seen = {"symbol": np.array([1, 0])}
    again, action, _ = agent.act(carry, seen, first, keys=keys)
    anew, expected, _ = agent.act(fresh, seen, first, keys=keys)
    equal((again.state, action), (anew.state, expected))


def test_waiting_is_the_last_action_again(episodes):
    agent = Agent(MODEL, Thinking(readout=Soft(), delay=2))
    keys, first, no = jr.split(jr.key(3), 1), np.ones(1, bool), np.zeros(1, np.int32)
    carry, _, _ = agent.act(agent.start(1), {"symbol": np.array([0])}, first, keys=keys, age=no)
    belief = np.asarray(carry.state.latent[0])
    taken = int(np.argmax(carry.action[0]))
    carry = agent.waited(carry, 1)
    carry, _, _ = agent.act(carry, {"symbol": np.array([1])}, ~first, keys=keys, age=no)
    for _ in range(2):
        belief = belief @ np.asarray(PROBLEM.dynamics)[taken]
    told = belief * np.asarray(PROBLEM.emission)[:, 1]
    # The latent in between is a sample, so that the memory is that of one state, two steps on.
    assert np.all(np.asarray(carry.state.latent[0])[told == 0] == 0)
    assert not np.allclose(carry.state.latent[0], told / told.sum(), atol=1e-3)
    with pytest.raises(ValueError, match="0 to 2 decisions; got 3"):
        agent.waited(carry, 3)


@pytest.mark.slow
def test_flags_compose_with_particles_gates_and_refinement(episodes, lost):
    settings = Thinking({Evidence(0.5, 0.0): 1.0}, steps=2, latent=Soft(), missing="predict")
    for _, thought in play(settings, episodes, lost):
        assert np.isfinite(thought.moved).all()
    played = play(Thinking(particles=4, missing="predict"), episodes, lost)
    before, (_, after) = played[4][1].mixture, played[5]
    assert after.mixture is not None
    assert before is not None
    gated = Gated(Agent(MODEL, settings), Chance(), 2.0)
    keys, seen = jr.split(jr.key(0), 1), {"symbol": np.array([1])}
    first, gone = np.ones(1, bool), np.ones(1, bool)
    _, _, thought = gated.act(gated.start(1), seen, first, keys=keys, missing=gone)
    np.testing.assert_allclose(thought.after.soft()[0], PROBLEM.start, atol=1e-6)


@pytest.mark.slow
def test_a_missing_part_is_filled_in_with_what_is_expected():
    """Of two parts one came: the posterior is that of the other's expectation, and its evidence
    counts for nothing."""
    from helpers import tiny_dreamer

    from thinkslow.spaces import Space

    parts = {"image": Space((16, 16, 3), "uint8"), "pose": Space((2,), "float32")}
    agent = Agent(tiny_dreamer(observations=parts))
    image = np.random.default_rng(0).integers(256, size=(1, 16, 16, 3)).astype(np.uint8)
    keys, first = jr.split(jr.key(0), 1), np.ones(1, bool)
    pose, junk = np.array([[0.5, -1.0]], np.float32), np.full((1, 2), 1e3, np.float32)
    flags = {"pose": np.ones(1, bool)}
    start = agent.start(1)
    _, _, one = agent.act(start, {"image": image, "pose": pose}, first, keys=keys, missing=flags)
    _, _, other = agent.act(start, {"image": image, "pose": junk}, first, keys=keys, missing=flags)
    equal(one.after, other.after)
    _, _, whole = agent.act(start, {"image": image, "pose": pose}, first, keys=keys)
    assert float(jnp.max(jnp.abs(one.after.soft() - whole.after.soft()))) > 1e-3
    assert float(jnp.max(jnp.abs(one.after.soft() - one.prior.soft()))) > 1e-3


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": 2, "lag": 1}, "so `lag` must be 0; got 1"),
        ({"delay": -1}, "`delay` must be 0 or more; got -1"),
        ({"missing": "guess"}, "must be one of predict, hold, stale; got 'guess'"),
        ({"missing": "stale", "particles": 2}, "so `particles` must be 1; got 2"),
    ],
)
def test_impossible_streams_are_refused_with_rule_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        Thinking(**options)


def test_flags_and_ages_that_cannot_be_are_refused():
    agent = Agent(codes(), policy=lambda model, state, key: steer(state, key))
    seen = {"bits": np.ones((1, 5), np.float32)}
    keys, first = jr.split(jr.key(0), 1), np.ones(1, bool)
    with pytest.raises(ValueError, match=r"what the agent sees, bits; got sound"):
        agent.act(agent.start(1), seen, first, keys=keys, missing={"sound": first})
    with pytest.raises(ValueError, match=r"3 decisions old.*`delay`, 0"):
        agent.act(agent.start(1), seen, first, keys=keys, age=np.array([3], np.int32))


def inside(kind: Any) -> tuple[Any, dict[str, np.ndarray], Any]:
    """An agent behind a gate or with a deadline, a missing frame, and the flags that it gets."""
    thinking = Thinking({Evidence(0.1, 1.0): 1.0}, steps=1, latent=Soft(), missing="predict")
    inner = Agent(codes(), thinking, policy=lambda model, state, key: steer(state, key))
    agent = awaits(Gated(inner, Chance(), 0.0) if kind is Gated else Timed(inner, 1e4), 2)
    observation = {"bits": np.ones((1, 5), np.float32), "missing": np.array([True])}
    return agent, observation, Telling(agent, observation)(observation, waiting=1)


@pytest.mark.parametrize("kind", [Gated, Timed])
def test_an_evaluation_tells_an_agent_inside_a_gate_or_a_deadline(kind):
    """Only the agent itself was once told which frames are missing, and how late they are."""
    _, _, flags = inside(kind)
    np.testing.assert_array_equal(flags["missing"], [True])
    np.testing.assert_array_equal(flags["age"], [1])


@pytest.mark.parametrize("kind", [slow(Gated), nightly(Timed)])
def test_what_it_is_told_reaches_the_agent_inside(kind):
    agent, observation, flags = inside(kind)
    given = agent.start(1), {"bits": observation["bits"]}, np.ones(1, bool)
    keys = jr.split(jr.key(0), 1)
    lost, shown = (agent.act(*given, keys=keys, **told)[2].after.logits for told in (flags, {}))
    assert not np.allclose(lost, shown)
