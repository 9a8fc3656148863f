from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from thinkslow.distributions import Categorical, Gaussian, Squared
from thinkslow.objectives import (
    TERMS,
    lookahead,
    parameter_information_gain,
    state_information_gain,
)
from thinkslow.objectives.members import Members, noisy, replaced
from thinkslow.objectives.terms import NEED_SPREAD
from thinkslow.refinement import Gradient, refine
from thinkslow.worldmodel import State, WorldModel, detached, imagine

GOLDEN = (Path(__file__).parents[1] / ".." / "shared" / "golden" / "danijar_main-a").resolve()
SHARE = jnp.array([0.6, -0.4])


class Line(WorldModel):
    """A world model of one's own in a few lines: a position that actions push, seen with noise.

    Memory, latent and action are vectors of two; every belief is Gaussian.
    """

    gain: jax.Array

    def initial(self) -> State:
        return State(jnp.zeros(2, self.gain.dtype), jnp.zeros(2, self.gain.dtype))

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        memory = jnp.where(is_first, 0.0, jnp.tanh(state.memory + state.latent + action))
        return memory, Gaussian(self.gain * memory, jnp.full_like(memory, -0.5))

    def infer(self, memory: jax.Array, observation: Mapping[str, Any]) -> Gaussian:
        return Gaussian(0.5 * (memory + observation["seen"]), jnp.sin(memory) - 1.0)

    def decode(self, state: State) -> dict[str, Any]:
        return {"seen": Squared(state.latent + 0.1 * state.memory)}


class Blind(Line):
    """The same without a decoder."""

    def decode(self, state: State) -> dict[str, Any]:
        return {}


def push(state: State, key: jax.Array) -> jax.Array:
    """A policy with a gradient and some noise."""
    noise = jr.normal(key, state.latent.shape, state.latent.dtype)
    return jnp.tanh(SHARE.astype(noise.dtype) * state.latent) + 0.1 * noise


def moment(model: WorldModel | None = None) -> tuple[Any, ...]:
    model = model or Line(jnp.array(0.8))
    memory, prior = model.predict(model.initial(), jnp.array([0.3, 0.1]), jnp.array(False))
    seen = {"seen": jnp.array([1.0, -1.0])}
    return model, push, memory, prior, model.infer(memory, seen), seen


def dreamer_moment(dreamer: Any) -> tuple[Any, ...]:
    state = State(jr.normal(jr.key(0), (32,)), jax.nn.one_hot(jnp.arange(6), 8))
    image = np.random.default_rng(0).integers(256, size=(16, 16, 3)).astype(np.uint8)
    seen = {"image": jnp.asarray(image)}
    memory, prior = dreamer.predict(state, jnp.array([0.0, 1.0, 0.0]), jnp.array(False))
    return dreamer, dreamer.policy, memory, prior, dreamer.infer(memory, seen), seen


def test_evidence_is_what_the_encoder_was_trained_to_lower():
    at = moment()
    model, _, memory, prior, posterior, seen = at
    objective = lookahead(
        *at, terms={"evidence": 2.0}, horizon=1, latent="mode", beta=0.5, free_nats=0.1
    )
    total, terms = objective(posterior, jr.key(0))
    error = -model.decode(State(memory, posterior.mean))["seen"].log_prob(seen["seen"])
    expected = error + 0.5 * max(float(posterior.kl(prior)), 0.1)
    np.testing.assert_allclose(terms["evidence"], expected, rtol=1e-6)
    np.testing.assert_allclose(total, 2 * expected, rtol=1e-6)


def test_free_nats_are_a_floor_without_a_gradient():
    at = moment()
    objective = lookahead(*at, terms={"evidence": 1.0}, horizon=1, latent="mode", free_nats=1e3)
    none = lookahead(*at, terms={"evidence": 1.0}, horizon=1, latent="mode", beta=0.0)
    belief = Gaussian(jnp.array([0.4, 0.2]), jnp.array([0.1, 0.2]))
    floor, bare = (jax.grad(lambda b, f=f: f(b, jr.key(0))[0])(belief) for f in (objective, none))
    jax.tree.map(np.testing.assert_array_equal, floor, bare)
    np.testing.assert_allclose(
        objective(belief, jr.key(0))[0] - none(belief, jr.key(0))[0], 1e3, rtol=1e-6
    )


def test_the_anchor_is_the_kl_from_the_encoders_belief_and_zero_there():
    at = moment()
    objective = lookahead(*at, terms={"anchor": 1.0}, horizon=1)
    posterior = at[4]
    assert objective(posterior, jr.key(0))[0] == 0.0
    moved = Gaussian(posterior.mean + 1.0, posterior.log_scale)
    np.testing.assert_allclose(objective(moved, jr.key(0))[0], moved.kl(posterior), rtol=1e-6)


def test_imagined_terms_are_summed_over_a_rollout_walked_by_hand():
    at = moment()
    model, _, memory, _, posterior, _ = at
    terms = {"sig": 1.0, "elbo": 10.0, "entropy": 100.0}
    objective = lookahead(*at, terms=terms, horizon=3, latent="mode")
    total, found = objective(posterior, jr.key(0))
    policy_keys = _policy_keys(jr.key(0), 3)
    state = State(memory, posterior.mean)
    expected = dict.fromkeys(terms, 0.0)
    for key in policy_keys:
        memory, prior = model.predict(state, push(state, key), jnp.array(False))
        state = State(memory, prior.mean)
        seen = model.decode(state)["seen"].mean
        again = model.infer(memory, {"seen": seen})
        gain = float(state_information_gain(again, prior))
        error = np.sum((model.decode(State(memory, again.mean))["seen"].mean - seen) ** 2)
        expected["sig"] += gain
        expected["elbo"] += gain + error
        expected["entropy"] += float(prior.entropy())
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    weighted = sum(terms[name] * value for name, value in expected.items())
    np.testing.assert_allclose(total, weighted, rtol=1e-5)


def _policy_keys(key: jax.Array, horizon: int) -> list[jax.Array]:
    """The keys that one future gives the policy: documented by this test alone."""
    _, future_key = jr.split(key)
    (rollout_key,) = jr.split(future_key, 1)
    _, roll_key, _ = jr.split(rollout_key, 3)
    return [jr.split(k)[0] for k in jr.split(roll_key, horizon)]


def test_several_rollouts_are_averaged_not_summed():
    at = moment()
    still: Any = (at[0], lambda state, key: jnp.zeros(2), *at[2:])  # the same future each time
    one, five = (
        lookahead(*still, terms={"sig": 1.0}, horizon=2, rollouts=n, latent="mode") for n in (1, 5)
    )
    np.testing.assert_allclose(one(at[4], jr.key(0))[0], five(at[4], jr.key(0))[0], rtol=1e-6)


def test_the_same_key_is_the_same_function_and_another_key_another():
    objective = jax.jit(lookahead(*moment(), terms={"elbo": 1.0}, horizon=2, rollouts=2))
    belief = moment()[4]
    first, same, other = (objective(belief, jr.key(k))[0] for k in (0, 0, 1))
    assert first == same
    assert first != other


def test_the_gradient_flows_through_the_policy_unless_it_is_detached():
    at = moment()
    blind: Any = (at[0], detached(push), *at[2:])
    through, stopped = (
        jax.grad(lambda b, a=a: lookahead(*a, terms={"sig": 1.0}, horizon=3)(b, jr.key(0))[0])(
            at[4]
        )
        for a in (at, blind)
    )
    assert np.abs(through.mean - stopped.mean).max() > 1e-3
    assert np.all(np.isfinite(stopped.mean))


def test_imagination_in_half_precision_keeps_its_types():
    """The scan failed: a bfloat16 latent went in and a float32 sample came out."""
    from conftest import tiny_dreamer

    from thinkslow.dreamer.training.learner import cast

    model = cast(tiny_dreamer(), jnp.bfloat16)
    steps = jax.eval_shape(
        lambda: imagine(model, model.policy, model.initial(), horizon=2, key=jr.key(0))
    )
    assert steps.state.latent.dtype == steps.state.memory.dtype == jnp.bfloat16
    assert steps.prior.logits.dtype == jnp.float32


def finite_differences(function: Any, belief: Any, direction: Any) -> float:
    size = 1e-5
    ahead, behind = (
        function(jax.tree.map(lambda x, d, s=s: x + s * size * d, belief, direction))
        for s in (1, -1)
    )
    return float((ahead - behind) / (2 * size))


class Fuzzy(Line):
    """The same seen through a noise that grows with the distance."""

    def decode(self, state: State) -> dict[str, Any]:
        return {"seen": Gaussian(state.latent + 0.1 * state.memory, 0.3 * state.latent)}


class Coded(WorldModel):
    """Two factors of three classes, seen as the entry of a table: nothing else matters."""

    table: jax.Array

    def initial(self) -> State:
        return State(jnp.zeros(1), jnp.zeros((2, 3)))

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        return state.memory, Categorical(state.latent, 0.01)

    def infer(self, memory: jax.Array, observation: Mapping[str, Any]) -> Categorical:
        return Categorical(jnp.zeros((2, 3)), 0.01)

    def decode(self, state: State) -> dict[str, Any]:
        return {"seen": Squared(state.latent[0] @ self.table @ state.latent[1])}


def gains(*values: float, kind: Any = Line, dtype: Any = None) -> Members:
    """Members that disagree about how far the memory moves the latent."""
    return replaced(kind(jnp.array(0.0)), lambda m: m.gain, jnp.array(values, dtype))


@pytest.mark.parametrize("term", TERMS)
def test_the_gradient_of_a_gaussian_model_equals_finite_differences(term, x64):
    at = moment(Fuzzy(jnp.array(0.8, jnp.float64)))
    members = gains(0.5, 0.8, 1.5, kind=Fuzzy, dtype=jnp.float64)
    objective = lookahead(*at, terms={term: 1.0}, horizon=3, rollouts=2, beta=0.3, members=members)
    belief = jax.tree.map(lambda x: x + 0.3, at[4])
    function = jax.jit(lambda b: objective(b, jr.key(0))[0])
    gradient = jax.grad(function)(belief)
    assert gradient.mean.dtype == jnp.float64
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), belief)
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)))
        # Central differences of float64: 1e-10 of the third derivative, 1e-11 of rounding.
        np.testing.assert_allclose(
            slope, finite_differences(function, belief, direction), rtol=1e-6, atol=1e-8
        )


def test_the_gradient_of_a_dreamer_equals_finite_differences_on_the_soft_latent(x64):
    """Every term at once, through policy, core, decoder and encoder, in float64."""
    from conftest import tiny_dreamer

    model = jax.tree.map(lambda x: x.astype(jnp.float64), tiny_dreamer())
    _, _, memory, prior, posterior, seen = dreamer_moment(model)

    def policy(state: State, key: jax.Array) -> jax.Array:
        return model.actor(state)["action"].soft()

    terms = dict.fromkeys([name for name in TERMS if name not in NEED_SPREAD], 1.0)
    members = noisy(model, lambda m: m.dyn.layers["priorlogit"], scale=0.5, count=3, key=jr.key(5))
    objective = lookahead(
        model, policy, memory, prior, posterior, seen, terms=terms, horizon=2, latent="soft",
        beta=0.3, members=members,
    )  # fmt: skip
    belief = Categorical(posterior.logits + 0.3 * jr.normal(jr.key(1), (6, 8)), posterior.mix)
    function = jax.jit(lambda b: objective(b, jr.key(0))[0])
    gradient = jax.jit(jax.grad(function))(belief).logits
    direction = jr.normal(jr.key(2), (6, 8))
    numeric = finite_differences(function, belief, Categorical(direction, posterior.mix))
    # The bins of two-hot heads and log-probabilities are float64 too; see the Gaussian test.
    np.testing.assert_allclose(jnp.sum(gradient * direction), numeric, rtol=1e-6)


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is not there")
def test_the_engines_gradient_equals_that_of_the_official_model(x64):
    """SIG over four steps of given actions, latents at their mode, by the code that refines.

    In float64: a near tie in a max-pooling of this case makes the float32 gradient one of
    three values 2.4e-4 apart, as rounding falls.
    """
    from thinkslow import importers

    golden, model = np.load(GOLDEN / "golden.npz"), importers.load(GOLDEN).model
    model = jax.tree.map(lambda x: x.astype(jnp.float64), model)
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
            raise NotImplementedError

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
        Clocked(model), lambda state, key: actions[state.memory[1]], start, belief, belief, {},
        terms={"sig": 1.0}, horizon=len(actions), latent="mode",
    )  # fmt: skip
    return objective(belief, jr.key(0))[0]


@pytest.mark.usefixtures("strict")
def test_a_dreamers_belief_is_refined_to_a_lower_objective(dreamer):
    at = dreamer_moment(dreamer)

    @jax.jit
    def run(belief: Categorical) -> Any:
        objective = lookahead(
            *at,
            terms={"evidence": jnp.float32(1.0)},
            horizon=1,
            latent="sample",
            samples=2,
            beta=0.1,
        )
        return refine(objective, belief, Gradient(1.0), steps=3, key=jr.key(0), trust=0.3)

    out = run(at[4])
    assert out.loss[-1] < out.loss[0]
    assert out.moved[-1] > 0
    np.testing.assert_array_equal(out.terms["evidence"], out.loss)


def test_a_gaussian_belief_is_refined_by_the_paper_s_objective():
    at = moment()
    objective = lookahead(*at, terms={"sig": 1.0, "anchor": 0.1}, horizon=3, latent="mode")
    out = jax.jit(lambda b: refine(objective, b, Gradient(0.1), steps=5, key=jr.key(0)))(at[4])
    assert out.loss[-1] < 0.9 * out.loss[0]


def test_information_gain_of_a_belief_about_itself_is_zero_and_of_a_coin_one_bit():
    even, sure = Categorical(jnp.zeros((1, 2))), Categorical(jnp.array([[40.0, -40.0]]))
    assert state_information_gain(even, even) == 0.0
    np.testing.assert_allclose(state_information_gain(sure, even), np.log(2), rtol=1e-6)


@pytest.mark.parametrize("term", ["sig", "elbo", "evidence"])
def test_a_term_that_needs_a_decoder_is_refused_where_there_is_none(term):
    at = moment(Blind(jnp.array(0.8)))
    with pytest.raises(ValueError, match=f"`{term}` needs a decoder and this model has none. Use"):
        lookahead(*at, terms={term: 1.0}, horizon=1)


def test_entropy_needs_no_decoder():
    at = moment(Blind(jnp.array(0.8)))
    value = lookahead(*at, terms={"entropy": 1.0}, horizon=2)(at[4], jr.key(0))[0]
    one = Gaussian(jnp.zeros(2), jnp.full(2, -0.5)).entropy()
    np.testing.assert_allclose(value, 2 * one, rtol=1e-6)


def test_an_unknown_term_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"A term must be one of sig, .*, anchor; got 'magic'"):
        lookahead(*moment(), terms={"magic": 1.0}, horizon=1)


@pytest.mark.parametrize("name", ["horizon", "rollouts", "samples"])
def test_counts_below_one_are_refused(name):
    counts = {"horizon": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"`{name}` must be 1 or more; got 0"):
        lookahead(*moment(), terms={"entropy": 1.0}, **counts)


def test_the_bound_of_barber_and_agakov_and_its_distance_come_out_beside_sig():
    at = moment()
    model, _, memory, _, posterior, _ = at
    objective = lookahead(*at, terms={"sig": 2.0}, horizon=1, latent="mode")
    total, found = objective(posterior, jr.key(0))
    (key,) = _policy_keys(jr.key(0), 1)
    state = State(memory, posterior.mean)
    memory, prior = model.predict(state, push(state, key), jnp.array(False))
    again = model.infer(memory, {"seen": prior.mean + 0.1 * memory})
    bound = again.log_prob(prior.mean) - prior.log_prob(prior.mean)
    np.testing.assert_allclose(found["barber-agakov"], bound, rtol=1e-5)
    np.testing.assert_allclose(found["self-consistency"], found["sig"] - bound, rtol=1e-5)
    assert total == 2 * found["sig"]  # neither is descended


def test_parameters_that_agree_are_worth_nothing_and_opposed_ones_log_m():
    raw = jr.normal(jr.key(0), (6, 8))
    same = Categorical(jnp.stack([raw] * 5), 0.01)
    np.testing.assert_allclose(parameter_information_gain(same), 0.0, atol=1e-5)
    opposed = Categorical(200 * jnp.eye(3)[:, None, :].repeat(2, 1))  # two factors, three members
    np.testing.assert_allclose(parameter_information_gain(opposed), 2 * np.log(3), rtol=1e-5)
    many = jax.vmap(Gaussian)
    one = many(jnp.zeros((4, 3)), jnp.ones((4, 3)))
    np.testing.assert_allclose(parameter_information_gain(one), 0.0, atol=1e-6)
    apart = many(1e3 * jnp.arange(4.0)[:, None] * jnp.ones(3), jnp.zeros((4, 3)))
    np.testing.assert_allclose(parameter_information_gain(apart), np.log(4), rtol=1e-6)


def test_parameter_information_gain_of_gaussians_bounds_the_true_one_from_above():
    """Against the mixture's entropy by quadrature, in one dimension."""
    grid = np.linspace(-30, 30, 200_001)
    rng = np.random.default_rng(0)
    for _ in range(5):
        mean, scale = rng.normal(0, 2, 4), np.exp(rng.normal(0, 0.5, 4))
        density = np.exp(-0.5 * ((grid[:, None] - mean) / scale) ** 2) / scale / np.sqrt(2 * np.pi)
        mixture = density.mean(1)
        mixed = -np.trapezoid(mixture * np.log(mixture + 1e-300), grid)
        true = mixed - np.mean(np.log(scale) + 0.5 * np.log(2 * np.pi * np.e))
        belief = jax.vmap(Gaussian)(
            *(jnp.asarray(x, jnp.float32)[:, None] for x in (mean, np.log(scale)))
        )
        found = float(parameter_information_gain(belief))
        assert true - 1e-4 <= found <= np.log(4) + 1e-6


def test_pig_is_summed_over_what_members_predict_from_the_imagined_states():
    at = moment()
    model, _, memory, _, posterior, _ = at
    members = gains(0.2, 1.0)
    found = lookahead(*at, terms={"pig": 1.0}, horizon=2, latent="mode", members=members)(
        posterior, jr.key(0)
    )[1]["pig"]
    state, expected = State(memory, posterior.mean), 0.0
    for key in _policy_keys(jr.key(0), 2):
        memory, prior = model.predict(state, push(state, key), jnp.array(False))
        means = jnp.stack([0.2 * memory, 1.0 * memory])
        expected += float(
            parameter_information_gain(jax.vmap(Gaussian)(means, jnp.full((2, 2), -0.5)))
        )
        state = State(memory, prior.mean)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_members_that_differ_in_a_head_share_one_core(dreamer):
    """Or an ensemble of heads would cost as much as one of models."""
    heads = noisy(dreamer, lambda m: m.dyn.layers["priorlogit"], scale=0.1, count=7, key=jr.key(0))
    state, action = State(jnp.zeros(32), jnp.zeros((6, 8))), jnp.zeros(3)
    # `out_axes=None` refuses what was computed once per member.
    predict = jax.vmap(
        lambda part: eqx.combine(part, dreamer).predict(state, action, jnp.array(False)),
        out_axes=(None, 0),
    )
    memory, prior = jax.eval_shape(predict, heads.differing)
    assert (heads.count, memory.shape, prior.logits.shape) == (7, (32,), (7, 6, 8))
