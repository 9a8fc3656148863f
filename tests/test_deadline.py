"""A deadline: as much thinking as fits, the best belief so far, and always an action."""

import dataclasses
import itertools
import time
from typing import Any

import jax
import jax.random as jr
import numpy as np
import pytest
from helpers import slow

from thinkslow.agent.agent import Agent
from thinkslow.agent.deadline import Timed
from thinkslow.agent.decision import Thought
from thinkslow.agent.thinking import Thinking
from thinkslow.objectives import Evidence
from thinkslow.readouts import BestOf, Soft
from thinkslow.refinement import Gradient, Random, Refined

BATCH = 3
THINKING = Thinking({Evidence(): 1.0}, steps=4, latent=Soft(), max_kl=2.0, select="best")


@pytest.fixture(scope="module")
def given(dreamer):
    """A carry in the middle of an episode, what is seen there, and keys."""
    images = np.random.default_rng(0).integers(256, size=(2, BATCH, 16, 16, 3)).astype(np.uint8)
    first, agent = np.ones(BATCH, bool), Agent(dreamer)
    keys = jr.split(jr.key(0), BATCH)
    carry, _, _ = agent.act(agent.start(BATCH), {"image": images[0]}, first, keys=keys)
    return carry, {"image": images[1]}, ~first, jr.split(jr.key(1), BATCH)


def act(agent, given):
    *arguments, keys = given
    return agent.act(*arguments, keys=keys)


def refinement(thought: Thought) -> Refined:
    assert thought.refined is not None
    return thought.refined


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


@pytest.mark.parametrize(
    "change",
    [
        {},
        slow({"memory_share": 0.1, "readout": BestOf(4), "lag": 2, "accept": True}),
    ],
    ids=str,
)
def test_with_time_enough_it_is_the_thinking_agent(dreamer, given, change):
    agent = Agent(dreamer, dataclasses.replace(THINKING, **change))
    carry, action, thought = act(Timed(agent, 1e9), given)
    whole = act(agent, given)
    close((carry.state, action, thought.after), (whole[0].state, whole[1], whole[2].after))
    assert thought.thinks.all()


def test_without_time_it_acts_as_the_base_agent(dreamer, given):
    carry, action, thought = act(Timed(Agent(dreamer, THINKING), 0.0), given)
    base = act(Agent(dreamer), given)
    close((carry, action), base[:2])
    assert not thought.thinks.any()
    assert np.all(thought.moved == 0)


def test_no_step_begins_that_would_not_leave_the_time_to_act(dreamer, given, monkeypatch):
    """A clock that ticks 10 ms a look: what earlier decisions took is kept free."""
    ticks = itertools.count(0.0, 0.010)
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    timed = Timed(Agent(dreamer, dataclasses.replace(THINKING, steps=50)), 85.0)
    timed.warm(*given[:3], keys=given[3])  # to act and a step took a tick each
    begun = next(ticks) + 0.010
    refined = refinement(act(timed, given)[2])
    # It has looked at 10, so that 75 ms are left, of them 65 to refine. The descent's own clock
    # shows 10 when it has begun and 60 after five steps; the sixth would end at 70.
    np.testing.assert_array_equal(refined.used, 5)
    assert next(ticks) == pytest.approx(begun + 0.110)  # the action was there at 100


@pytest.mark.slow
def test_the_best_belief_so_far_comes_back(dreamer, given):
    """Steps of evidence that only go up: the first belief is the best of all."""
    uphill = dataclasses.replace(THINKING, update=Random(), max_kl=8.0)
    refined = refinement(act(Timed(Agent(dreamer, uphill), 1e9), given)[2])
    loss = np.asarray(refined.loss)
    assert (loss[:, 1:] > loss[:, :1]).any()
    best = np.take_along_axis(loss, np.asarray(refined.chosen)[:, None], 1)[:, 0]
    np.testing.assert_array_equal(best, loss.min(1))


TRACES: list[int] = []


class Counted(Gradient):
    """Plain gradient descent that counts how often it is traced."""

    def propose(self, belief: Any, gradient: Any, state: Any, *, key: jax.Array) -> Any:
        TRACES.append(1)
        return super().propose(belief, gradient, state, key=key)


def test_another_number_compiles_nothing_under_a_deadline(dreamer, given):
    """Each `Timed` had programs of its own, with all numbers inside."""
    variants: list[dict[str, Any]] = [
        {},
        {"max_kl": 0.5},
        {"update": Counted(0.1)},
        {"tolerance": 0.9},
        {"terms": {Evidence(beta=0.5): 2.0}},
    ]
    whole: dict[str, Any] = {"update": Counted(1000.0), "tolerance": 0.0}
    whole["terms"] = {Evidence(beta=1.0): 1.0}
    counts, seen = [], []
    TRACES.clear()
    for index, change in enumerate(variants):
        agent = Agent(dreamer, dataclasses.replace(THINKING, **whole | change))
        seen.append(refinement(act(Timed(agent, 1e9 + index), given)[2]))
        counts.append(len(TRACES))
    assert counts[0] > 0
    assert set(counts) == {counts[0]}
    for other in seen[1:]:  # and the numbers are heard
        assert not np.array_equal(other.loss, seen[0].loss)


@pytest.mark.parametrize(
    ("thinking", "deadline_ms", "message"),
    [
        (THINKING, -1.0, r"`deadline_ms` must be 0 or more; got -1\.0"),
        (Thinking(), 10.0, "`steps` must be 1 or more and `particles` 1; got 0 and 1"),
        (Thinking(particles=4), 10.0, "got 0 and 4"),
    ],
)
def test_a_deadline_needs_something_to_stop(dreamer, thinking, deadline_ms, message):
    with pytest.raises(ValueError, match=message):
        Timed(Agent(dreamer, thinking), deadline_ms)
