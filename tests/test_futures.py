"""Several predictions instead of missing frames, on problems whose exact belief is known."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Blind, codes, equal, push, slow, steer

from thinkslow.agent.agent import Agent
from thinkslow.agent.checks import Clean, Wiser
from thinkslow.agent.thinking import Thinking
from thinkslow.toy import exact, ring
from thinkslow.trees import only_if

pytestmark = pytest.mark.usefixtures("strict")

PROBLEM, MODEL = ring(6), exact(ring(6))
ACTIONS, SYMBOLS = (0, 1, 0, 0, 1), (2, 0, 1, 0, 1)
AGENTS, MANY = 2_000, 32


def play(
    thinking: Thinking, lost: Any, batch: int = 1, age: Any = None, carry: Any = None
) -> list[tuple[Any, Any]]:
    """Carry and thought at each step of one episode, played by a batch with noise of their own."""
    agent, out = Agent(MODEL, thinking), []
    carry = agent.start(batch) if carry is None else carry
    newest = range(len(lost)) if age is None else np.arange(len(lost)) - age
    for time, gone in enumerate(lost):
        taken = jax.nn.one_hot(np.full(batch, ACTIONS[time]), PROBLEM.actions)
        carry = dataclasses.replace(carry, action=taken)
        keys = jr.split(jr.fold_in(jr.key(0), time), batch)
        told: dict[str, Any] = {"missing": np.full(batch, gone)}
        told |= {} if age is None else {"age": np.full(batch, age[time], np.int32)}
        seen = {"symbol": np.full(batch, SYMBOLS[newest[time]])}
        carry, _, thought = agent.act(carry, seen, np.full(batch, time == 0), keys=keys, **told)
        out.append((carry, thought))
    return out


@pytest.mark.parametrize(
    ("settings", "lost", "age"),
    [
        (Thinking(missing="predict"), np.array([False, True, True, False]), None),
        slow(Thinking(delay=2), np.zeros(4, bool), np.array([0, 1, 2, 0])),
    ],
    ids=["missing", "late"],
)
def test_the_frame_that_returns_chooses_as_the_exact_filter_weighs(settings, lost, age):
    """The mean belief of many agents is that of the exact filter; with one future it is not. Each
    agent knows the state of the first frame, and two frames are missing or never arrive."""
    truth = np.eye(PROBLEM.states)[0]
    for time in range(1, 4):
        truth = truth @ np.asarray(PROBLEM.dynamics)[ACTIONS[time]]
    truth = truth * np.asarray(PROBLEM.emission)[:, SYMBOLS[3]]
    gap = {}
    for futures in (1, MANY):
        several = dataclasses.replace(settings, futures=futures)
        _, thought = play(several, lost, AGENTS, age)[-1]
        gap[futures] = np.abs(np.mean(thought.after.soft(), 0) - truth / truth.sum()).max()
        assert np.all(np.asarray(thought.thinks) == (futures > 1))
    assert gap[MANY] < 0.05  # the standard error is below .01
    assert gap[1] > 0.1


def test_until_a_frame_returns_it_is_the_agent_with_one_future_bit_for_bit():
    lost = np.array([False, False, True, True, True])
    one = play(Thinking(missing="predict"), lost, 4)
    several = play(Thinking(missing="predict", futures=5), lost, 4)
    for (carry, thought), (expected, base) in zip(several, one, strict=True):
        equal((carry.state, carry.action), (expected.state, expected.action))
        equal((thought.after, thought.thinks), (base.after, base.thinks))


@pytest.mark.parametrize("missing", [True, False])
def test_the_others_are_forgotten_where_an_episode_begins_or_a_number_is_not_finite(missing):
    settings = Thinking(missing="predict", futures=3)
    lost = np.array([False, True, True])
    carry, _ = play(settings, lost)[-1]
    fresh, again = (play(settings, np.array([False]), carry=start)[-1] for start in (None, carry))
    equal((fresh[0].state, fresh[0].action), (again[0].state, again[0].action))

    broken = jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        carry.stream,
    )
    agent, keys = Agent(MODEL, settings), jr.split(jr.key(1), 1)
    start = dataclasses.replace(carry, stream=broken)
    carry, _, _ = agent.act(
        start, {"symbol": np.array([1])}, np.zeros(1, bool), keys=keys, missing=np.full(1, missing)
    )
    numbers = [x for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(np.isfinite(x).all() for x in numbers)


@pytest.mark.slow
@pytest.mark.parametrize("believed", [False, True])
def test_a_rejected_frame_chooses_nothing(believed):
    """A check that rejects all frames, or none, after one that was flagged as missing."""
    clean = dataclasses.replace(Clean.even(codes(), 1e9), alone=1e9 if believed else -1.0)
    carries = []
    for futures in (1, 16):
        settings = Thinking(check=Wiser(), missing="predict", futures=futures)
        agent = Agent(
            codes(), settings, policy=lambda model, state, key: steer(state, key), clean=clean
        )
        carry = agent.start(8)
        for time in range(3):
            seen = {"bits": np.full((8, 5), time % 2, np.float32)}
            keys = jr.split(jr.fold_in(jr.key(0), time), 8)
            carry, _, _ = agent.act(
                carry, seen, np.full(8, time == 0), keys=keys, missing=np.full(8, time == 1)
            )
        carries.append(np.asarray(carry.state.memory))
    assert np.array_equal(*carries) != believed


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"futures": 0}, "`futures` must be 1 or more; got 0"),
        ({"futures": 2, "lag": 1}, "so `lag` must be 0; got 1"),
        ({"futures": 2, "particles": 2}, "so `particles` must be 1; got 2"),
        ({"futures": 2, "missing": "hold"}, "'predict' or None; got 'hold'"),
    ],
)
def test_impossible_futures_are_refused_with_rule_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        Thinking(**options)


def test_futures_need_a_decoder():
    def policy(model: Any, state: Any, key: jax.Array) -> jax.Array:
        return push(state, key)

    with pytest.raises(ValueError, match=r"`futures` .* no decoder"):
        Agent(Blind(jnp.array(0.8)), Thinking(futures=2), policy=policy)


def test_what_is_not_needed_is_not_computed():
    """XLA once moved it out of its loop, so that it was computed at every call."""

    def product(needed: jax.Array, x: jax.Array) -> jax.Array:
        return only_if(needed, lambda: x @ x, x)

    given = jnp.zeros(3, bool), jnp.ones((3, 8, 8))
    program = jax.jit(jax.vmap(product)).lower(*given).compile().as_text()
    assert program is not None
    body = "while/body/"
    assert body in program
    assert body not in program[program.index("ENTRY") :]
