import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Guided, Line, NearPlace, Toll, gains, push
from looking_ahead import decided, line, lookahead, objective_of, policy_keys, pushed

from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Gaussian
from thinkslow.needs import unmet
from thinkslow.objectives import ELBO, SIG, Anchor, Entropy, Evidence
from thinkslow.objectives.term import ImaginedTerm, PresentTerm
from thinkslow.readouts import Mode
from thinkslow.worldmodel import State


def test_what_several_terms_ask_of_a_step_is_computed_once():
    """Decoding and encoding an imagined observation are most of what a step costs."""
    calls = []

    class Counting(Line):
        def infer(self, memory: jax.Array, observation: Mapping[str, Any]) -> Gaussian:
            calls.append(1)
            return super().infer(memory, observation)

    at = line(Counting(jnp.array(0.8)))

    def encodings(*terms: Any) -> int:
        objective = lookahead(*at, dict.fromkeys(terms, 1.0))
        calls.clear()
        jax.eval_shape(objective, at.moment.posterior, jr.key(0))
        return len(calls)

    assert encodings(SIG(), ELBO()) == encodings(SIG()) == encodings(ELBO()) > 0
    assert encodings(Entropy()) == 0


def test_a_term_of_ones_own_is_weighed_and_summed_as_ours_are():
    at = line()
    posterior = at.moment.posterior
    terms = {NearPlace(0.25): 3.0, Toll(): 2.0, Anchor(): 1.0}
    total, found = lookahead(*at, terms, horizon=2, latent=Mode())(posterior, jr.key(0))
    near = np.sum((posterior.mean - 0.25) ** 2)
    state, toll = State(at.moment.memory, posterior.mean), 0.0
    for key in policy_keys(jr.key(0), 2):
        action = push(state, key)
        toll += float(jnp.sum(action**2))
        memory, prior = at.model.predict(state, action, jnp.array(False))
        state = State(memory, prior.mean)
    np.testing.assert_allclose(found["near-place"], near, rtol=1e-5)
    np.testing.assert_allclose(found["toll"], toll, rtol=1e-5)
    np.testing.assert_allclose(total, 3 * near + 2 * toll, rtol=1e-5)
    assert found["toll/steps"] == 2


def test_what_a_term_of_ones_own_needs_is_asked_of_the_model_before_it_is_used():
    at, terms = line(), {Guided(): 1.0}
    assert unmet(at.model, Guided().needs) == "it has no map. Draw one"
    assert unmet(at.model, Guided().needs, members=gains(1.0)) is None
    with pytest.raises(ValueError, match=r"`guided` .*: it has no map\. Draw one"):
        lookahead(*at, terms)
    thinking = Thinking(terms, steps=1)
    with pytest.raises(ValueError, match=r"`guided` .*: it has no map\. Draw one"):
        Agent(at.model, thinking, policy=pushed)
    agent = Agent(at.model, thinking, policy=pushed, members=gains(1.0))
    assert agent.cannot(thinking) is None


def test_numbers_of_a_term_and_weights_change_without_compiling_again():
    traces = []

    @dataclasses.dataclass(frozen=True)
    class Counted(Evidence):
        place: float = 0.0

        def value(self, belief: Any, present: Any, *, key: Any) -> jax.Array:
            traces.append(1)
            far = jnp.sum(jnp.square(belief.soft() - self.place))
            return super().value(belief, present, key=key) + far

    at = line()
    agent = Agent(at.model, policy=pushed)

    def loss(weight: float, beta: float, place: float) -> float:
        terms = {Counted(beta, 0.0, place=place): weight}
        thought = decided(agent.having(Thinking(terms, steps=1, latent=Mode())), at.seen)
        return float(thought.refined.loss[0, 0])

    plain = decided(agent, at.seen)
    kl, mean = plain.before.kl(plain.prior), plain.before.mean
    error = loss(1.0, 0.0, 0.0) - jnp.sum(mean**2)
    once = len(traces)
    for weight, beta, place in ((3.0, 0.0, 0.0), (1.0, 0.5, 0.0), (1, 0.0, 2.0), (0.1, 2.0, -1.0)):
        expected = weight * (error + beta * kl + jnp.sum((mean - place) ** 2))
        np.testing.assert_allclose(loss(weight, beta, place), expected, rtol=1e-5)
    assert len(traces) == once > 0


class Loud(ImaginedTerm):
    """Reports a diagnostic under the name of another term."""

    def at_step(self, model: Any, step: Any, *, key: jax.Array) -> jax.Array:
        return jnp.zeros(())

    def diagnostics(self, model: Any, step: Any) -> dict[str, jax.Array]:
        return {"sig": jnp.full((), 100.0)}


@pytest.mark.parametrize("order", [1, -1])
def test_a_diagnostic_never_replaces_the_term_of_its_name(order):
    terms = [(SIG(), 1.0), (Loud(), 1.0)][::order]
    loss, found = objective_of(dict(terms))
    alone, _ = objective_of({SIG(): 1.0})
    np.testing.assert_allclose(loss, alone, rtol=1e-6)
    np.testing.assert_allclose(found["loud/sig"], 100.0)


class Long(PresentTerm):
    """Gives several numbers."""

    def value(self, belief: Any, present: Any, *, key: jax.Array) -> jax.Array:
        return jnp.zeros(7)


class LongLater(ImaginedTerm):
    """Gives several numbers at each step, which were summed in silence."""

    def at_step(self, model: Any, step: Any, *, key: jax.Array) -> jax.Array:
        return jnp.ones(7)


@pytest.mark.parametrize("term", [Long(), LongLater()])
@pytest.mark.usefixtures("untyped")
def test_a_term_of_several_numbers_is_refused_by_its_class(term):
    with pytest.raises(TypeError, match=rf"value of {type(term).__name__} must be one floating"):
        objective_of({term: 1.0})


class Goal(PresentTerm):
    """Holds an array."""

    place: Any

    def value(self, belief: Any, present: Any, *, key: jax.Array) -> jax.Array:
        return jnp.sum(self.place)


def test_a_term_that_holds_an_array_is_a_key():
    loss, _ = objective_of({Goal(jnp.ones(2)): 3.0, Entropy(): 0.0})
    np.testing.assert_allclose(loss, 6.0)
    assert hash(SIG()) == hash(SIG())
