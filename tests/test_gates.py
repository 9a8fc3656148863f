"""A gate chooses between the base agent and the thinking one, and costs what it lets through."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from thinkslow.agent import gates
from thinkslow.agent.agent import Agent
from thinkslow.agent.gates import SCORES, Gated, calibrate
from thinkslow.agent.thinking import Thinking
from thinkslow.objectives.members import noisy

pytestmark = pytest.mark.usefixtures("strict")

BATCH = 3
EVIDENCE = Thinking(terms=(("evidence", 1.0),), steps=2, latent="soft", nats=2.0)


@pytest.fixture(scope="module")
def given(dreamer):
    """A carry in the middle of an episode, what is seen there, and keys."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(2, BATCH, 16, 16, 3)).astype(np.uint8)
    agent = Agent(dreamer)
    first = np.ones(BATCH, bool)
    keys = jr.split(jr.key(0), BATCH)
    carry, _, _ = agent.act(agent.start(BATCH), {"image": images[0]}, first, keys=keys)
    return carry, {"image": images[1]}, ~first, jr.split(jr.key(1), BATCH)


def act(agent, given):
    *arguments, keys = given
    return agent.act(*arguments, keys=keys)


def doubts(agent: Agent, score: gates.Score, given) -> np.ndarray:
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


def test_a_closed_gate_is_the_base_agent_and_never_runs_the_thinking_program(
    dreamer, given, monkeypatch
):
    monkeypatch.setattr(gates, "_think_again", None)  # to call it would fail
    carry, action, thought = act(Gated(Agent(dreamer, EVIDENCE), "surprise", np.inf), given)
    equal((carry, action), act(Agent(dreamer), given)[:2])
    assert not thought.thinks.any()


def test_an_open_gate_is_the_thinking_agent(dreamer, given):
    agent = Agent(dreamer, EVIDENCE)
    carry, action, thought = act(Gated(agent, "surprise", -np.inf), given)
    whole = act(agent, given)
    close((carry, action), whole[:2])
    close(thought.after, whole[2].after)
    assert thought.thinks.all()


@pytest.mark.parametrize("row", range(BATCH))
def test_each_environment_thinks_by_its_own_doubt(dreamer, given, row):
    agent = Agent(dreamer, EVIDENCE)
    scores = doubts(agent, "surprise", given)
    others = np.delete(scores, row)
    assert scores[row] not in others
    carry, action, thought = act(Gated(agent, "surprise", float(np.sort(scores)[1])), given)
    doubtful = scores > np.sort(scores)[1]
    np.testing.assert_array_equal(thought.thinks, doubtful)
    expected = act(agent if doubtful[row] else Agent(dreamer), given)
    same = close if doubtful[row] else equal
    same(some((carry, action), row), some(expected[:2], row))


def test_a_threshold_compiles_nothing_anew(dreamer, given):
    agent = Agent(dreamer, EVIDENCE)
    act(Gated(agent, "surprise", -np.inf), given)
    programs: tuple[Any, ...] = (gates._look, gates._think_again)
    before = [program._cache_size() for program in programs]
    act(Gated(agent, "surprise", -1.0), given)
    assert [program._cache_size() for program in programs] == before


def test_a_warm_gate_compiles_nothing_however_many_are_in_doubt(dreamer, given):
    *arguments, keys = given
    agent = Agent(dreamer, EVIDENCE)
    gate = Gated(agent, "surprise", np.inf)
    gate.warm(*arguments, keys=keys)
    again: Any = gates._think_again
    before = again._cache_size()
    for threshold in np.sort(doubts(agent, "surprise", given)) - 1e-3:
        act(Gated(agent, "surprise", float(threshold)), given)
    assert again._cache_size() == before


def test_scores_are_what_their_names_say(dreamer, given):
    agent = Agent(dreamer, EVIDENCE)
    base = act(Agent(dreamer), given)[2]
    names: tuple[gates.Score, ...] = ("surprise", "entropy", "random")
    found = {name: doubts(agent, name, given) for name in names}
    kl = jax.vmap(lambda q, p: q.kl(p))(base.before, base.prior)
    np.testing.assert_allclose(found["surprise"], kl, rtol=1e-5)
    entropy = jax.vmap(lambda q: q.entropy())(base.before)
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-5)
    assert len(set(found["random"].tolist())) == BATCH
    assert ((found["random"] >= 0) & (found["random"] < 1)).all()


def test_sensitivity_is_the_chance_that_two_latents_act_apart(dreamer, given):
    """A policy that acts on one factor of the latent: 1 - sum of squares of its frequencies."""

    def blind(model, state, key):
        return jnp.array([1.0, 0.0, 0.0])

    def follows(model, state, key):
        return state.latent[0, :3]

    def score(policy):
        agent = Agent(dreamer, EVIDENCE, policy=policy)
        carry = agent.start(BATCH)
        return doubts(agent, "sensitivity", (carry, *given[1:]))

    np.testing.assert_array_equal(score(blind), np.zeros(BATCH))
    assert (score(follows) > 0).all()
    assert (score(follows) <= 1).all()


def test_novelty_is_zero_where_there_is_no_history(dreamer, given):
    """At a first frame the history is no history, and what remains is KL(q || q) = 0."""
    carry, seen, _, keys = given
    first = jnp.ones(BATCH, bool)
    found = doubts(Agent(dreamer, EVIDENCE), "novelty", (carry, seen, first, keys))
    np.testing.assert_allclose(found, np.zeros(BATCH), atol=1e-5)


def test_disagreement_is_zero_for_identical_members_and_positive_for_others(dreamer, given):
    def heads(model):
        return model.dyn.layers["priorlogit"].kernel

    def score(scale):
        members = noisy(dreamer, heads, scale=scale, count=3, key=jr.key(2))
        agent = Agent(dreamer, EVIDENCE, members=members)
        return doubts(agent, "disagreement", given)

    np.testing.assert_allclose(score(0.0), np.zeros(BATCH), atol=1e-6)
    assert (score(1.0) > 1e-3).all()


def test_a_score_that_is_no_number_opens_no_gate(dreamer, given):
    carry, seen, first, keys = given
    broken = jax.tree.map(lambda x: x.at[1].set(jnp.nan), carry)
    _, _, thought = act(
        Gated(Agent(dreamer, EVIDENCE), "surprise", -1.0), (broken, seen, first, keys)
    )
    np.testing.assert_array_equal(thought.thinks, [True, False, True])


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
def test_a_calibrated_threshold_opens_for_the_asked_share(share):
    scores = np.random.default_rng(0).exponential(size=(50, 20))
    opened = np.mean(scores > calibrate(scores, share))
    assert opened == pytest.approx(share, abs=1 / scores.size)


def test_impossible_gates_are_refused(dreamer):
    agent = Agent(dreamer, EVIDENCE)
    with pytest.raises(ValueError, match="A gate opens for refinement"):
        Gated(Agent(dreamer), "surprise", 0.0)
    with pytest.raises(ValueError, match="A gate opens for refinement"):
        Gated(Agent(dreamer, Thinking(lag=2)), "surprise", 0.0)
    with pytest.raises(ValueError, match="`disagreement` compares plausible parameters"):
        Gated(agent, "disagreement", 0.0)
    with pytest.raises(ValueError, match="`share` must be above 0"):
        calibrate([1.0], 0.0)
    with pytest.raises(ValueError, match="at least one number"):
        calibrate([float("nan")], 0.5)


def test_every_score_is_described():
    assert set(SCORES) == set(get_args(gates.Score))
