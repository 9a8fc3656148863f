"""A gate chooses between the base agent and the thinking one, and costs what it lets through."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Codes, codes, slow, steer

from thinkslow.agent.agent import Agent
from thinkslow.agent.gates import (
    Chance,
    Disagreement,
    Gated,
    GateScore,
    Novelty,
    PosteriorEntropy,
    Sensitivity,
    Surprise,
)
from thinkslow.agent.gates.gated import threshold_of
from thinkslow.agent.thinking import Thinking
from thinkslow.objectives import Evidence, PresentTerm
from thinkslow.objectives.members import Noise
from thinkslow.readouts import BestOf, Mode, Sample, Soft
from thinkslow.refinement import Gradient
from thinkslow.worldmodel import State

pytestmark = pytest.mark.usefixtures("strict")

BATCH = 3
EVIDENCE = Thinking({Evidence(0.5, 0.0): 1.0}, steps=2, latent=Soft(), max_kl=2.0)
# A gate does not look into its model, and the smallest compiles in half the time.
MODEL = codes()


def moving(model: Codes, state: State, key: jax.Array) -> jax.Array:
    """Actions with some noise, so that no two environments remember the same."""
    return steer(state, key) + 0.1 * jr.normal(key, (2,))


def agent_of(thinking: Thinking | None = None, policy: Any = moving, **more: Any) -> Agent:
    return Agent(MODEL, thinking, policy=policy, **more)


@pytest.fixture(scope="module")
def given():
    """A carry in the middle of an episode, what is seen there, and keys."""
    bits = np.random.default_rng(0).integers(2, size=(2, BATCH, 5)).astype(np.float32)
    agent, first = agent_of(), np.ones(BATCH, bool)
    keys = jr.split(jr.key(0), BATCH)
    carry, _, _ = agent.act(agent.start(BATCH), {"bits": bits[0]}, first, keys=keys)
    return carry, {"bits": bits[1]}, ~first, jr.split(jr.key(1), BATCH)


def act(agent, given):
    *arguments, keys = given
    return agent.act(*arguments, keys=keys)


def doubts(agent: Agent, score: GateScore, given) -> np.ndarray:
    """The scores of a closed gate."""
    found = act(Gated(agent, score, np.inf), given)[2].doubt
    assert found is not None
    return np.asarray(found)


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other):
    """The same but for the last bits, which another program or a smaller batch rounds otherwise."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, other)


def some(tree, row: int):
    return jax.tree.map(lambda x: x[row], tree)


class Costly(PresentTerm):
    """A term whose program must not even be traced."""

    def value(self, belief: Any, present: Any, *, key: Any) -> Any:
        raise AssertionError("a closed gate refined")


@pytest.mark.parametrize(
    "readout", [Sample(), slow(Mode()), BestOf(4)], ids=["sample", "mode", "best"]
)
def test_a_closed_gate_is_the_agent_of_no_steps_and_never_refines(given, readout):
    """It once took the sampled latent whatever the readout, and compared two readouts."""
    costly = agent_of(Thinking({Costly(): 1.0}, steps=1, readout=readout))
    carry, action, thought = act(Gated(costly, Surprise(), np.inf), given)
    equal((carry, action), act(agent_of(Thinking(readout=readout)), given)[:2])
    assert not thought.thinks.any()


def test_an_open_gate_is_the_thinking_agent(given):
    agent = agent_of(EVIDENCE)
    carry, action, thought = act(Gated(agent, Surprise(), -np.inf), given)
    whole = act(agent, given)
    close((carry, action), whole[:2])
    close(thought.after, whole[2].after)
    assert np.all(thought.moved > 1e-4)
    assert thought.thinks.all()


@pytest.mark.slow
@pytest.mark.parametrize("row", range(BATCH))
def test_each_environment_thinks_by_its_own_doubt(given, row):
    agent = agent_of(EVIDENCE)
    scores = doubts(agent, Surprise(), given)
    others = np.delete(scores, row)
    assert scores[row] not in others
    carry, action, thought = act(Gated(agent, Surprise(), float(np.sort(scores)[1])), given)
    doubtful = scores > np.sort(scores)[1]
    np.testing.assert_array_equal(thought.thinks, doubtful)
    expected = act(agent if doubtful[row] else agent_of(), given)
    same = close if doubtful[row] else equal
    same(some((carry, action), row), some(expected[:2], row))


def counting(traces: list) -> Any:
    def policy(model: Any, state: Any, key: Any) -> Any:
        traces.append(1)
        return moving(model, state, key)

    return policy


def test_a_threshold_compiles_nothing_anew(given):
    traces: list = []
    gate = Gated(agent_of(EVIDENCE, policy=counting(traces)), Surprise(), -np.inf)
    act(gate, given)
    before = len(traces)
    assert before > 0
    act(gate.opening_above(-1.0), given)
    assert len(traces) == before


def test_a_gate_that_never_opens_compiles_no_thinking(given):
    """Calibration compiled it for every power of two up to its batch: a minute in vain."""
    *arguments, keys = given
    traces: list = []

    class Traced(Gradient):
        def propose(self, belief, gradient, state, *, key):
            traces.append(1)
            return super().propose(belief, gradient, state, key=key)

    agent = agent_of(Thinking({Evidence(0.5, 0.0): 1.0}, steps=2, update=Traced()))
    Gated(agent, Surprise(), np.inf).warm(*arguments, keys=keys)
    assert not traces


@pytest.mark.slow
def test_a_warm_gate_compiles_nothing_however_many_are_in_doubt(given):
    *arguments, keys = given
    traces: list = []
    agent = agent_of(EVIDENCE, policy=counting(traces))
    Gated(agent, Surprise(), 0.0).warm(*arguments, keys=keys)
    before = len(traces)
    assert before > 0
    for threshold in np.sort(doubts(agent, Surprise(), given)) - 1e-3:
        act(Gated(agent, Surprise(), float(threshold)), given)
    assert len(traces) == before


def test_scores_are_what_their_names_say(given):
    agent = agent_of(EVIDENCE)
    base = act(agent_of(), given)[2]
    scores = (Surprise(), PosteriorEntropy(), Chance())
    found = {score.name: doubts(agent, score, given) for score in scores}
    kl = jax.jit(jax.vmap(lambda q, p: q.kl(p)))(base.before, base.prior)
    np.testing.assert_allclose(found["surprise"], kl, rtol=1e-5)
    entropy = jax.jit(jax.vmap(lambda q: q.entropy()))(base.before)
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-5)
    assert len(set(found["random"].tolist())) == BATCH
    assert ((found["random"] >= 0) & (found["random"] < 1)).all()


def test_sensitivity_is_the_chance_that_two_latents_act_apart(given):
    """A policy that acts on one factor of the latent: 1 - sum of squares of its frequencies."""

    def blind(model, state, key):
        return jnp.array([1.0, 0.0])

    def follows(model, state, key):
        return state.latent[0, :2]

    def score(policy):
        agent = agent_of(EVIDENCE, policy=policy)
        carry = agent.start(BATCH)
        return doubts(agent, Sensitivity(), (carry, *given[1:]))

    np.testing.assert_array_equal(score(blind), np.zeros(BATCH))
    assert (score(follows) > 0).all()
    assert (score(follows) <= 1).all()


def test_novelty_is_zero_where_there_is_no_history(given):
    """At a first frame the history is no history, and what remains is KL(q || q) = 0."""
    carry, seen, _, keys = given
    first = jnp.ones(BATCH, bool)
    found = doubts(agent_of(EVIDENCE), Novelty(), (carry, seen, first, keys))
    np.testing.assert_allclose(found, np.zeros(BATCH), atol=1e-5)


def test_disagreement_is_zero_for_identical_members_and_positive_for_others(given):
    def heads(model):
        return model.head

    def score(scale):
        members = Noise(scale, 3, heads)(MODEL, key=jr.key(2))
        agent = agent_of(EVIDENCE, members=members)
        return doubts(agent, Disagreement(), given)

    np.testing.assert_allclose(score(0.0), np.zeros(BATCH), atol=1e-6)
    assert (score(1.0) > 1e-3).all()


class Broken(GateScore):
    """NaN where the first number of the latent's memory is the batch's second."""

    at: Any

    def __call__(self, decision, *, key):
        here = decision.thought.base.memory[0] == self.at
        return jnp.where(here, jnp.nan, 1.0)


def test_a_score_that_is_nan_opens_no_gate(given):
    agent = agent_of(EVIDENCE)
    memory = act(agent_of(), given)[2].base.memory
    thought = act(Gated(agent, Broken(memory[1, 0]), -1.0), given)[2]
    np.testing.assert_array_equal(thought.thinks, [True, False, True])


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
def test_a_calibrated_threshold_opens_for_the_asked_share(share):
    scores = np.random.default_rng(0).exponential(size=(50, 20))
    opened = np.mean(scores > threshold_of(scores, share))
    assert opened == pytest.approx(share, abs=1 / scores.size)


@pytest.mark.parametrize(("share", "opened"), [(0.1, 0.0), (0.3, 0.4), (0.6, 0.4), (0.8, 1.0)])
def test_equal_scores_open_for_the_nearest_share(share, opened):
    """A score of few values, as `sensitivity` is, never opened a gate for 30%."""
    scores = np.array([0.0] * 6 + [0.25] * 4)
    assert np.mean(scores > threshold_of(scores, share)) == opened


def test_impossible_gates_are_refused():
    agent = agent_of(EVIDENCE)
    with pytest.raises(ValueError, match="`steps` must be 1 or more"):
        Gated(agent_of(), Surprise(), 0.0)
    with pytest.raises(ValueError, match="`lag` 0"):
        Gated(agent_of(Thinking(lag=2)), Surprise(), 0.0)
    with pytest.raises(TypeError, match=r"got Gated.*`inner`"):
        Gated(Gated(agent, Surprise(), 0.0), Surprise(), 0.0)
    with pytest.raises(ValueError, match=r"`disagreement` .* thinkslow ensemble"):
        Gated(agent, Disagreement(), 0.0)
    with pytest.raises(ValueError, match="`threshold`, or the `share`"):
        Gated(agent, Surprise())
    with pytest.raises(ValueError, match=r"`threshold`.*got nan"):
        Gated(agent, Surprise(), float("nan"))
    with pytest.raises(ValueError, match="`share` must be above 0"):
        threshold_of([1.0], 0.0)
    with pytest.raises(ValueError, match="at least one number"):
        threshold_of([float("nan")], 0.5)


def test_a_gate_that_is_not_calibrated_says_how_to(given):
    gate = Gated(agent_of(EVIDENCE), Surprise(), share=0.2)
    with pytest.raises(ValueError, match=r"20% .* thinkslow\.calibrated"):
        act(gate, given)
    assert act(gate.opening_above(-1.0), given)[2].thinks.all()
