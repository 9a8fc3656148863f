"""A world model that is no Dreamer, with functions among its leaves, does what ours do."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from own_model import SEEN, Recurrent, Sizes, Valued, made

import thinkslow
from thinkslow.agent.choices import Values
from thinkslow.gap.moment import perceived
from thinkslow.heads import Squared, expected
from thinkslow.needs import CRITIC, unmet
from thinkslow.objectives import Entropy
from thinkslow.objectives.members import Noise, checkpoints
from thinkslow.readouts import Mode
from thinkslow.storage import store
from thinkslow.testing import check
from thinkslow.worldmodel import State


@pytest.fixture(scope="module")
def model():
    return made(Recurrent)


def test_it_is_saved_and_loaded_with_every_array_as_it_was(model, tmp_path):
    with pytest.raises(ValueError, match=r"thinkslow\.register"):
        thinkslow.save(tmp_path / "one", model, name="one", environment={"id": None}, training={})
    thinkslow.register("architecture", "recurrent", Sizes)
    half = {"environment": {"id": None}, "training": {}, "dtype": "float16"}
    thinkslow.save(tmp_path / "one", model, name="one", **half)
    again: Any = thinkslow.load(tmp_path / "one").model
    arrays = [eqx.filter(one, eqx.is_array) for one in (model, again)]
    assert len(jax.tree.leaves(arrays[0])) == 13
    assert again.steps == model.steps
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3), *arrays)  # of float16
    assert store.read_manifest(tmp_path / "one")["environment"]["repeat"] == 1
    # A subclass with the sizes of its parent would be loaded as its parent.
    with pytest.raises(ValueError, match="Recurrent, not Valued"):
        thinkslow.save(tmp_path / "two", made(Valued), name="two", **half)


@pytest.mark.nightly  # another model from outside, examples/foreign_model.py, is checked in CI
def test_it_passes_the_contract(model):
    assert len(check(model, SEEN, model.policy, action=jnp.zeros(2), terms=[Entropy()])) > 20


@pytest.mark.parametrize(("given", "kept"), [("float64", "float64"), ("bfloat16", "float32")])
def test_a_predicted_number_keeps_its_precision(given, kept):
    """It was rounded to float32, so that a term of rewards failed the contract's differences."""
    with jax.enable_x64(True):
        assert expected(Squared(jnp.ones((), given))).dtype == kept


def test_its_moments_can_be_measured(model):
    numbers = {name: jnp.asarray(array) for name, array in SEEN.items()}
    found: Any = perceived(model, model.initial(), jnp.zeros(2), jnp.array(True), numbers)
    assert found.posterior.logits.shape == (1, 3)


def test_checkpoints_of_it_disagree(model):
    other = made(Recurrent, 1)
    members = checkpoints([model, other])
    logits = members.each(model, lambda one: one.infer(jnp.zeros(5), SEEN).logits)
    assert members.count == 2
    np.testing.assert_allclose(logits[1], other.infer(jnp.zeros(5), SEEN).logits, rtol=1e-6)


def test_what_it_lacks_is_refused_with_the_remedy(model):
    with pytest.raises(ValueError, match=r"actor\(state\)"):
        thinkslow.Agent(model, policy=thinkslow.agent.agent.greedy_policy)
    with pytest.raises(ValueError, match="Define it, or give `where`"):
        thinkslow.Agent(model).having_members(Noise())
    members = thinkslow.Agent(model).having_members(Noise(where=lambda m: m.cell)).members
    assert members is not None
    assert members.count == Noise().count


def test_a_critic_must_predict_one_number():
    class Wide(Valued):
        def value(self, state):
            return Squared(state.memory)

    assert unmet(made(Valued), (CRITIC,)) is None
    reason = unmet(made(Wide), (CRITIC,))
    assert reason is not None
    assert "(5,)" in reason


def test_the_mode_of_its_policy_is_that_of_its_actor():
    """`deterministic` dropped what the agent knew of its returns, so that it refused to act."""
    valued = made(Valued)
    thinking = thinkslow.Thinking(choice=Values(latents=2, horizon=1))
    agent = thinkslow.Agent(valued, thinking, returns=1.0)
    action, _ = agent.player().predict(SEEN["numbers"], deterministic=True)
    assert action in (0, 1)
    state = State(jnp.ones(5), jnp.zeros((1, 3)))
    head = valued.actor(state)["action"]
    np.testing.assert_array_equal(valued.greedy(state, jr.key(0)), head.mode())


@pytest.mark.parametrize(
    ("action", "error", "said"),
    [
        (jnp.zeros(3), ValueError, "must return 2 numbers.*action of 2; got 3"),
        (1, TypeError, r"one vector.* shape \(\)"),
        (jnp.zeros((1, 2)), TypeError, r"one vector.* shape \(1, 2\)"),
        (None, TypeError, "one vector.* NoneType"),
        ([0.0, 1.0], TypeError, "one vector.* list"),
    ],
)
def test_an_action_that_does_not_fit_its_spaces_is_refused(model, action, error, said):
    with pytest.raises(error, match=said):
        thinkslow.Agent(model, policy=lambda model, state, key: action).start(1)


class Many(thinkslow.GateScore):
    """A score that is not one number."""

    def __call__(self, decision: Any, *, key):
        return decision.thought.before.logits


class Idle(thinkslow.Update):
    """An update that forgets the state."""

    def init(self, belief):
        return None

    def propose(self, belief, gradient, state, *, key):
        return gradient


ENTROPY = {Entropy(): 1.0}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda agent: thought(terms=Entropy()), r"\{Entropy\(\): 1.0\}"),
        (lambda agent: thought(terms=ENTROPY, update="adam"), r"make\('update'"),
        (lambda agent: thought(readout=Mode), r"Mode\(\)"),
        (lambda agent: agent.thinking(3), "name of one; got 3"),
        (lambda agent: play(thinkslow.Gated(agent, Many(), 1.0)), r"shape \(1, 3\)"),
        (lambda agent: play(thinking(agent, Idle())), r"Idle.propose .* \(1, 3\)"),
    ],
)
def test_what_is_of_another_type_is_refused_in_words(model, make, said):
    with pytest.raises(TypeError, match=said):
        make(thinking(thinkslow.Agent(model)))


def thought(**settings: Any) -> thinkslow.Thinking:
    return thinkslow.Thinking(steps=1, **settings)


def thinking(agent: Any, update: Any = None) -> Any:
    return agent.thinking(thinkslow.Thinking(ENTROPY, steps=1, horizon=1, update=update))


def play(agent: Any) -> None:
    agent.player()(SEEN["numbers"], first=True)
