from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Fuzzy, gains
from looking_ahead import dreaming, line, lookahead

from thinkslow.distributions import Categorical
from thinkslow.needs import SPREAD
from thinkslow.objectives import SIG, Anchor, Evidence
from thinkslow.objectives.members import Noise
from thinkslow.readouts import Mode, Soft
from thinkslow.refinement import Gradient, refine
from thinkslow.testing import TERMS
from thinkslow.trees import cast
from thinkslow.worldmodel import Moment, State, WorldModel

GOLDEN = (Path(__file__).parents[1] / ".." / "shared" / "golden" / "danijar_main-a").resolve()


def finite_differences(function: Any, belief: Any, direction: Any) -> float:
    size = 1e-5
    ahead, behind = (
        function(jax.tree.map(lambda x, d, s=s: np.asarray(x) + s * size * d, belief, direction))
        for s in (1, -1)
    )
    return float(ahead - behind) / (2 * size)


@pytest.mark.slow
def test_the_gradient_of_a_gaussian_model_equals_finite_differences(x64):
    """Of every term, all in one program."""
    at = line(Fuzzy(jnp.array(0.8, jnp.float64)))
    members = gains(0.5, 0.8, 1.5, kind=Fuzzy, dtype=jnp.float64)
    objective = lookahead(*at, dict.fromkeys(TERMS, 1.0), horizon=3, rollouts=2, members=members)
    belief = jax.tree.map(lambda x: x + 0.3, at.moment.posterior)
    values = jax.jit(lambda b: objective(b, jr.key(0))[1])
    gradients = jax.jit(jax.jacrev(values))(belief)
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), belief)
        for name in (term.name for term in TERMS):
            gradient = gradients[name]
            assert gradient.mean.dtype == jnp.float64
            slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, direction)))
            numeric = finite_differences(lambda b, n=name: values(b)[n], belief, direction)
            # Central differences of float64: 1e-10 of the third derivative, 1e-11 of rounding.
            np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.slow
def test_the_gradient_of_a_dreamer_equals_finite_differences_on_the_soft_latent(x64):
    """Every term at once, through policy, core, decoder and encoder, in float64."""
    from helpers import tiny_dreamer

    at = dreaming(cast(tiny_dreamer(), jnp.float64))

    def policy(state: State, key: jax.Array) -> jax.Array:
        return at.model.actor(state)["action"].soft()

    objective = lookahead(
        *at._replace(policy=policy),
        [(term, 1.0) for term in TERMS if SPREAD not in term.needs],
        horizon=2,
        latent=Soft(),
        members=Noise(0.5, 3)(at.model, key=jr.key(5)),
    )
    posterior = at.moment.posterior
    belief = Categorical(posterior.logits + 0.3 * jr.normal(jr.key(1), (6, 8)), posterior.mix)
    function = jax.jit(lambda b: objective(b, jr.key(0))[0])
    gradient = jax.jit(jax.grad(function))(belief).logits
    direction = jr.normal(jr.key(2), (6, 8))
    numeric = finite_differences(function, belief, Categorical(direction, posterior.mix))
    # The bins of two-hot heads and log-probabilities are float64 too; see the Gaussian test.
    np.testing.assert_allclose(jnp.sum(gradient * direction), numeric, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is not there")
def test_the_engines_gradient_equals_that_of_the_official_model(x64):
    """SIG over four steps of given actions, latents at their mode, by the code that refines.

    In float64: a near tie in a max-pooling of this case makes the float32 gradient one of
    three values 2.4e-4 apart, as rounding falls.
    """
    from thinkslow import importers

    golden, model = np.load(GOLDEN / "golden.npz"), importers.load(GOLDEN).model
    model = cast(model, jnp.float64)
    actions = jax.nn.one_hot(jnp.asarray(golden["in/imag_action"]), 17, dtype=jnp.float64)
    found = jax.jit(jax.vmap(jax.value_and_grad(partial(_gain_of_played, model)), (0, 0, 1)))
    logits, memory = (
        jnp.asarray(golden[name][-1], jnp.float64) for name in ("out/post_logit", "out/deter")
    )
    value, gradient = found(logits, memory, actions)
    # Float64 noise alone; our sums run in another order.
    np.testing.assert_allclose(value, golden["grad/f64/J_per_batch"], rtol=1e-9)
    np.testing.assert_allclose(gradient, golden["grad/f64/dJ_dlogit"], atol=1e-8)


def _gain_of_played(model: Any, logits: jax.Array, memory: jax.Array, actions: jax.Array):
    """SIG under a policy that plays given actions: the clock rides on the memory's first row."""

    class Clocked(WorldModel):
        inner: Any

        def initial(self) -> State:
            start = self.inner.initial()
            return State((start.memory, jnp.zeros((), jnp.int32)), start.latent)

        def predict(self, state: State, action: Any, is_first: Any):
            memory, prior = self.inner.predict(
                State(state.memory[0], state.latent), action, is_first
            )
            return (memory, state.memory[1] + 1), prior

        def infer(self, memory: Any, observation: Mapping[str, Any]):
            return self.inner.infer(memory[0], observation)

        def decode(self, state: State):
            return self.inner.decode(State(state.memory[0], state.latent))

    belief = Categorical(logits, model.config.unimix)
    start = (memory, jnp.zeros((), jnp.int32))
    objective = lookahead(
        Clocked(model),
        lambda state, key: actions[state.memory[1]],
        Moment(start, belief, belief, jnp.array(True)),
        {},
        {SIG(): 1.0},
        horizon=len(actions),
        latent=Mode(),
    )
    return objective(belief, jr.key(0))[0]


@pytest.mark.usefixtures("strict")
def test_a_dreamers_belief_is_refined_to_a_lower_objective(dreamer):
    at = dreaming(dreamer)

    @jax.jit
    def run(belief: Categorical) -> Any:
        terms = {Evidence(beta=0.1, samples=2): jnp.float32(1.0)}
        objective = lookahead(*at, terms, horizon=1)
        return refine(objective, belief, Gradient(1.0), steps=3, key=jr.key(0), step_kl=0.3)

    out = run(at.moment.posterior)
    assert out.loss[-1] < out.loss[0]
    assert out.moved[-1] > 0
    np.testing.assert_array_equal(out.terms["evidence"], out.loss)


@pytest.mark.slow
def test_a_gaussian_belief_is_refined_by_the_paper_s_objective():
    at = line()
    objective = lookahead(*at, {SIG(): 1.0, Anchor(): 0.1}, horizon=3, latent=Mode())
    out = jax.jit(lambda b: refine(objective, b, Gradient(0.1), steps=5, key=jr.key(0)))(
        at.moment.posterior
    )
    assert out.loss[-1] < 0.9 * out.loss[0]
