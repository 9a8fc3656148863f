import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import (
    Blind,
    Coded,
    Fuzzy,
    Guided,
    Line,
    NearPlace,
    Toll,
    Trained,
    ask,
    gains,
    push,
    slow,
)

from thinkslow import objectives
from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Categorical, Gaussian
from thinkslow.needs import SPREAD, unmet
from thinkslow.objectives import ELBO, PIG, SIG, Anchor, Entropy, Evidence
from thinkslow.objectives.members import Noise
from thinkslow.objectives.term import ImaginedTerm, PresentTerm
from thinkslow.readouts import Mode, Reinforce, Soft
from thinkslow.refinement import Gradient, refine
from thinkslow.testing import TERMS
from thinkslow.trees import cast
from thinkslow.worldmodel import Moment, State, WorldModel, detached, imagine, perceive, surprise

GOLDEN = (Path(__file__).parents[1] / ".." / "shared" / "golden" / "danijar_main-a").resolve()


parameter_information_gain, state_information_gain = (
    jax.jit(gain)
    for gain in (objectives.parameter_information_gain, objectives.state_information_gain)
)


def lookahead(*given: Any, **settings: Any) -> Any:
    """The objective, compiled: operation by operation it takes ten times as long."""
    return jax.jit(objectives.lookahead(*given, **settings))


@jax.jit
def perceived(model: Any, state: State, action: jax.Array, seen: dict[str, Any]) -> Moment:
    """What is believed at a step within an episode."""
    return perceive(model, state, action, jnp.array(False), seen)


class At(NamedTuple):
    """What `lookahead` is given first."""

    model: Any
    policy: Any
    moment: Any
    """A `Moment`, of beliefs of the model's own kind."""
    seen: dict[str, Any]


def line(model: WorldModel | None = None) -> At:
    model = model or Line(jnp.array(0.8))
    seen = {"seen": jnp.array([1.0, -1.0])}
    action = jnp.array([0.3, 0.1])
    return At(model, push, perceived(model, model.initial(), action, seen), seen)


def dreaming(dreamer: Any) -> At:
    rng = np.random.default_rng(0)
    seen = {"image": jnp.asarray(rng.integers(256, size=(16, 16, 3)).astype(np.uint8))}
    state = State(
        jnp.asarray(np.float32(rng.normal(size=32))), jnp.asarray(np.eye(8, dtype="f4")[:6])
    )
    return At(
        dreamer, dreamer.policy, perceived(dreamer, state, jnp.array([0.0, 1.0, 0.0]), seen), seen
    )


def test_evidence_is_what_the_encoder_was_trained_to_lower():
    at = line()
    memory, prior, posterior = at.moment.memory, at.moment.prior, at.moment.posterior
    objective = lookahead(*at, {Evidence(0.5, 0.1): 2.0}, horizon=1, latent=Mode())
    total, terms = objective(posterior, jr.key(0))
    error = np.sum((posterior.mean + 0.1 * memory - at.seen["seen"]) ** 2)
    expected = error + 0.5 * max(float(ask(posterior, "kl", prior)), 0.1)
    np.testing.assert_allclose(terms["evidence"], expected, rtol=1e-6)
    np.testing.assert_allclose(total, 2 * expected, rtol=1e-6)


def test_evidence_weighs_the_kl_as_the_model_was_trained_unless_told():
    at = line(Trained(jnp.array(0.8)))

    def value(term: Evidence) -> float:
        return float(lookahead(*at, {term: 1.0}, latent=Mode())(at.moment.posterior, jr.key(0))[0])

    assert value(Evidence()) == value(Evidence(0.7, 0.2))
    assert value(Evidence(free_nats=50.0)) == value(Evidence(0.7, 50.0))
    assert value(Evidence(beta=0.1)) == value(Evidence(0.1, 0.2)) < value(Evidence())


def test_free_nats_are_a_floor_without_a_gradient():
    at = line()
    objective, none = (
        lookahead(*at, {Evidence(*given): 1.0}, horizon=1, latent=Mode())
        for given in ((1.0, 1e3), (0.0, 0.0))
    )
    belief = Gaussian(jnp.array([0.4, 0.2]), jnp.array([0.1, 0.2]))
    floor, bare = (
        jax.jit(jax.grad(lambda b, f=f: f(b, jr.key(0))[0]))(belief) for f in (objective, none)
    )
    jax.tree.map(np.testing.assert_array_equal, floor, bare)
    np.testing.assert_allclose(
        objective(belief, jr.key(0))[0] - none(belief, jr.key(0))[0], 1e3, rtol=1e-6
    )


def test_the_anchor_is_the_kl_from_the_encoders_belief_and_zero_there():
    at = line()
    objective = lookahead(*at, {Anchor(): 1.0}, horizon=1)
    posterior = at.moment.posterior
    assert objective(posterior, jr.key(0))[0] == 0.0
    moved = Gaussian(posterior.mean + 1.0, posterior.log_scale)
    expected = ask(moved, "kl", posterior)
    np.testing.assert_allclose(objective(moved, jr.key(0))[0], expected, rtol=1e-6)


def test_imagined_terms_are_summed_over_a_rollout_walked_by_hand():
    at = line()
    model, memory, posterior = at.model, at.moment.memory, at.moment.posterior
    weights = {"sig": 1.0, "elbo": 10.0, "entropy": 100.0}
    terms = dict(zip((SIG(), ELBO(), Entropy()), weights.values(), strict=True))
    total, found = lookahead(*at, terms, horizon=3, latent=Mode())(posterior, jr.key(0))
    state = State(memory, posterior.mean)
    expected = dict.fromkeys(weights, 0.0)
    for key in _policy_keys(jr.key(0), 3):
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
    weighted = sum(weights[name] * value for name, value in expected.items())
    np.testing.assert_allclose(total, weighted, rtol=1e-5)


def _policy_keys(key: jax.Array, horizon: int) -> list[jax.Array]:
    """The keys that one future gives the policy: documented by this test alone."""
    _, future_key = jr.split(key)
    (rollout_key,) = jr.split(future_key, 1)
    _, roll_key, _ = jr.split(rollout_key, 3)
    return [jr.split(k)[0] for k in jr.split(roll_key, horizon)]


def test_several_rollouts_are_averaged_not_summed():
    at = line()._replace(policy=lambda state, key: jnp.zeros(2))  # the same future each time
    one, five = (lookahead(*at, {SIG(): 1.0}, horizon=2, rollouts=n, latent=Mode()) for n in (1, 5))
    posterior = at.moment.posterior
    np.testing.assert_allclose(one(posterior, jr.key(0))[0], five(posterior, jr.key(0))[0], 1e-6)


def test_the_same_key_is_the_same_function_and_another_key_another():
    at = line()
    objective = jax.jit(lookahead(*at, {ELBO(): 1.0}, horizon=2, rollouts=2))
    first, same, other = (objective(at.moment.posterior, jr.key(k))[0] for k in (0, 0, 1))
    assert first == same
    assert first != other


def test_the_gradient_flows_through_the_policy_unless_it_is_detached():
    at = line()

    def gradient(policy: Any) -> Gaussian:
        objective = lookahead(*at._replace(policy=policy), {SIG(): 1.0}, horizon=3)
        slope = jax.jit(jax.grad(lambda belief: objective(belief, jr.key(0))[0]))
        return slope(at.moment.posterior)

    through, stopped = gradient(push), gradient(detached(push))
    assert np.abs(through.mean - stopped.mean).max() > 1e-3
    assert np.all(np.isfinite(stopped.mean))


def test_imagination_in_half_precision_keeps_its_types():
    """The scan failed: a bfloat16 latent went in and a float32 sample came out."""
    from helpers import tiny_dreamer

    def imagined(model: Any) -> Any:
        model = cast(model, jnp.bfloat16)
        return imagine(model, model.policy, model.initial(), horizon=2, key=jr.key(0))

    steps = jax.eval_shape(imagined, tiny_dreamer())
    assert steps.state.latent.dtype == steps.state.memory.dtype == jnp.bfloat16
    assert steps.prior.logits.dtype == jnp.float32


@pytest.mark.parametrize("horizon", [0, 3, slow(11)])
def test_unrolled_imagination_is_the_loop(monkeypatch, horizon):
    """As on a GPU, where 11 steps are 8 and 3."""
    from helpers import tiny_dreamer

    model = tiny_dreamer()

    def imagined() -> Any:
        return imagine(model, model.policy, model.initial(), horizon=horizon, key=jr.key(0))

    looped = imagined()
    steps = str(jax.make_jaxpr(partial(imagined))())  # a new function, or it is not traced again
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert str(jax.make_jaxpr(partial(imagined))()) != steps  # not the loop again
    unrolled = imagined()
    assert len(unrolled.action) == horizon
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), unrolled, looped)


class Sharpness(ImaginedTerm):
    """How far an imagined observation lies from its mean, in deviations, signed."""

    now: bool = False

    @property
    def at_present(self) -> bool:
        return self.now

    def at_step(self, model: Any, step: Any, *, key: Any) -> jax.Array:
        head = step.decoded["seen"]
        return jnp.sum((step.imagined["seen"] - head.mean) * jnp.exp(-head.log_scale))


def test_the_present_moment_is_imagined_with_noise_of_its_own():
    """Its noise once was that of an imagined step."""
    at = line(Fuzzy(jnp.array(0.8)))

    def noise(now: bool) -> float:
        objective = lookahead(*at, {Sharpness(now=now): 1.0}, horizon=1, imagery="sample")
        return float(objective(at.moment.posterior, jr.key(0))[0])

    imagined = noise(False)
    assert abs(noise(True) - 2 * imagined) > 1e-3
    assert abs(noise(True) - imagined) > 1e-3


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


def test_information_gain_of_a_belief_about_itself_is_zero_and_of_a_coin_one_bit():
    even, sure = Categorical(jnp.zeros((1, 2))), Categorical(jnp.array([[40.0, -40.0]]))
    assert state_information_gain(even, even) == 0.0
    np.testing.assert_allclose(state_information_gain(sure, even), np.log(2), rtol=1e-6)


@pytest.mark.parametrize("term", [SIG(), ELBO(), Evidence()], ids=lambda term: term.name)
def test_a_term_that_needs_a_decoder_is_refused_where_there_is_none(term):
    at = line(Blind(jnp.array(0.8)))
    with pytest.raises(ValueError, match=f"`{term.name}` .* no decoder.* `entropy`"):
        lookahead(*at, {term: 1.0}, horizon=1)


def test_entropy_needs_no_decoder():
    at = line(Blind(jnp.array(0.8)))
    value = lookahead(*at, {Entropy(): 1.0}, horizon=2)(at.moment.posterior, jr.key(0))[0]
    one = Gaussian(jnp.zeros(2), jnp.full(2, -0.5)).entropy()
    np.testing.assert_allclose(value, 2 * one, rtol=1e-6)


@pytest.mark.parametrize(
    ("term", "remedy"),
    [
        (PIG(), "thinkslow ensemble"),
        (Evidence(), "`beta`"),
        (Evidence(beta=1.0), "`free_nats`"),
    ],
)
def test_what_a_term_needs_and_a_model_lacks_is_said_with_the_remedy(term, remedy):
    with pytest.raises(ValueError, match=f"`{term.name}` .*{remedy}"):
        lookahead(*line(), {term: 1.0})


def test_what_is_no_term_is_refused():
    with pytest.raises(TypeError, match=r"such as SIG\(\); got 'magic'"):
        lookahead(*line(), {"magic": 1.0}, horizon=1)


@pytest.mark.parametrize("terms", [(SIG(), SIG()), (Evidence(0.1), Anchor(), Evidence(1.0))])
def test_a_term_that_is_there_twice_is_refused(terms):
    pairs = [(term, 1.0) for term in terms]
    with pytest.raises(ValueError, match=f"once; got {terms[0].name} more than once"):
        lookahead(*line(), pairs)
    with pytest.raises(ValueError, match=f"once; got {terms[0].name} more than once"):
        Thinking(pairs)


@pytest.mark.parametrize("name", ["horizon", "rollouts"])
def test_counts_below_one_are_refused(name):
    counts: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=rf"`{name}`.*got 0"):
        lookahead(*line(), {Entropy(): 1.0}, **counts)


def test_evidence_of_no_samples_is_refused():
    with pytest.raises(ValueError, match=r"`samples`.*got 0"):
        Evidence(samples=0)


@pytest.mark.parametrize(
    ("term", "count"), [(SIG(), "`rollouts`"), (Evidence(0.1, 0.0), "`samples` of evidence")]
)
def test_reinforce_compares_draws_and_refuses_one(term, count):
    with pytest.raises(ValueError, match=rf"{count}.*got 1"):
        lookahead(*line(), {term: 1.0}, latent=Reinforce())


def test_reinforce_refuses_a_memory_that_moves():
    """Its scores are those of the latent alone: what the memory does has no gradient in them."""
    with pytest.raises(ValueError, match=r"Reinforce .*`memory_share`.*got 0\.1"):
        Thinking({SIG(): 1.0}, rollouts=2, latent=Reinforce(), memory_share=0.1)


@pytest.mark.slow
def test_the_bound_of_barber_and_agakov_and_its_distance_come_out_beside_sig():
    at = line()
    model, memory, posterior = at.model, at.moment.memory, at.moment.posterior
    objective = lookahead(*at, {SIG(): 2.0}, horizon=1, latent=Mode())
    total, found = objective(posterior, jr.key(0))
    (key,) = _policy_keys(jr.key(0), 1)
    state = State(memory, posterior.mean)
    memory, prior = model.predict(state, push(state, key), jnp.array(False))
    again = model.infer(memory, {"seen": prior.mean + 0.1 * memory})
    bound = again.log_prob(prior.mean) - prior.log_prob(prior.mean)
    np.testing.assert_allclose(found["sig/barber-agakov"], bound, rtol=1e-5)
    np.testing.assert_allclose(found["sig/self-consistency"], found["sig"] - bound, rtol=1e-5)
    assert total == 2 * found["sig"]  # neither is descended


def test_parameters_that_agree_are_worth_nothing_and_opposed_ones_log_m():
    raw = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    same = Categorical(jnp.asarray(np.stack([raw] * 5)), 0.01)
    np.testing.assert_allclose(parameter_information_gain(same), 0.0, atol=1e-5)
    codes = 200 * np.eye(3, dtype=np.float32)[:, None, :].repeat(2, 1)
    opposed = Categorical(jnp.asarray(codes))  # two factors, three members
    np.testing.assert_allclose(parameter_information_gain(opposed), 2 * np.log(3), rtol=1e-5)
    many = jax.jit(jax.vmap(Gaussian))
    one = many(np.zeros((4, 3), np.float32), np.ones((4, 3), np.float32))
    np.testing.assert_allclose(parameter_information_gain(one), 0.0, atol=1e-6)
    steps = 1e3 * np.arange(4)[:, None] * np.ones(3)
    apart = many(steps.astype(np.float32), np.zeros((4, 3), np.float32))
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
            *(jnp.asarray(x.astype(np.float32)[:, None]) for x in (mean, np.log(scale)))
        )
        found = float(parameter_information_gain(belief))
        assert true - 1e-4 <= found <= np.log(4) + 1e-6


@pytest.mark.slow
def test_pig_is_summed_over_what_members_predict_from_the_imagined_states():
    at = line()
    model, memory, posterior = at.model, at.moment.memory, at.moment.posterior
    objective = lookahead(*at, {PIG(): 1.0}, horizon=2, latent=Mode(), members=gains(0.2, 1.0))
    found = objective(posterior, jr.key(0))[1]["pig"]
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
    heads = Noise(0.1, 7)(dreamer, key=jr.key(0))
    state, action = State(jnp.zeros(32), jnp.zeros((6, 8))), jnp.zeros(3)
    # `out_axes=None` refuses what was computed once per member.
    predict = jax.vmap(
        lambda part: eqx.combine(part, dreamer).predict(state, action, jnp.array(False)),
        out_axes=(None, 0),
    )
    memory, prior = jax.eval_shape(predict, heads.differing)
    assert (heads.count, memory.shape, prior.logits.shape) == (7, (32,), (7, 6, 8))


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


# Terms of one's own.


def test_a_term_of_ones_own_is_weighed_and_summed_as_ours_are():
    at = line()
    posterior = at.moment.posterior
    terms = {NearPlace(0.25): 3.0, Toll(): 2.0, Anchor(): 1.0}
    total, found = lookahead(*at, terms, horizon=2, latent=Mode())(posterior, jr.key(0))
    near = np.sum((posterior.mean - 0.25) ** 2)
    state, toll = State(at.moment.memory, posterior.mean), 0.0
    for key in _policy_keys(jr.key(0), 2):
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


def pushed(model: Any, state: State, key: jax.Array) -> jax.Array:
    return push(state, key)


def decided(agent: Agent, seen: Mapping[str, Any], times: int = 1) -> Any:
    """What an agent thinks when it has seen the same so many times."""
    carry, thought = agent.start(1), None
    batch = jax.tree.map(lambda x: x[None], dict(seen))
    for time in range(times):
        keys = jr.split(jr.key(time), 1)
        carry, _, thought = agent.act(carry, batch, np.array([time == 0]), keys=keys)
    return thought


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


# A memory that moves.


@pytest.mark.parametrize("kind", ["line", slow("dreamer")])
def test_evidence_at_a_moved_memory_is_against_the_prior_there(kind, dreamer):
    """It was against the prior of the memory that was left, as if moving it cost nothing."""
    at = line() if kind == "line" else dreaming(dreamer)
    thinking = Thinking(
        {Evidence(1.0, 0.0): 1.0}, steps=3, latent=Mode(), memory_share=0.5, update=Gradient(0.3)
    )
    agent = Agent(at.model, thinking, policy=lambda model, state, key: at.policy(state, key))
    thought = jax.tree.map(lambda x: x[0], decided(agent, at.seen, times=2))
    memory, belief = thought.state.memory, thought.after
    prior = Gaussian(0.8 * memory, jnp.full(2, -0.5)) if kind == "line" else dreamer.prior(memory)
    error = surprise(at.model, State(memory, belief.mode()), at.seen)
    found = thought.refined.loss[thought.refined.chosen]
    np.testing.assert_allclose(found, error + belief.kl(prior), rtol=1e-5)
    assert abs(belief.kl(thought.prior) - belief.kl(prior)) > 1e-3


@pytest.mark.parametrize("kind", ["dreamer", "v1"])
def test_the_prior_at_a_memory_is_that_of_the_step_that_led_there(kind, request):
    model = request.getfixturevalue(kind)
    action = jnp.array([0.0, 1.0, 0.0])
    memory, prior = ask(model, "predict", ask(model, "initial"), action, jnp.array(False))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)  # of another program
    jax.tree.map(close, ask(model, "prior", memory), prior)


def test_a_memory_whose_prior_is_not_known_stays():
    model, thinking = Coded(jnp.eye(3)), Thinking({Entropy(): 1.0}, steps=1, memory_share=0.1)
    with pytest.raises(ValueError, match=r"`memory_share` .*`prior\(memory\)`.*Define it, or"):
        Agent(model, thinking, policy=pushed)
    assert Agent(model, policy=pushed).cannot(dataclasses.replace(thinking, steps=0)) is None


def objective_of(terms: Any) -> Any:
    """Loss and terms where the belief begins."""
    at = line()
    objective = lookahead(*at, terms, horizon=1, latent=Mode())
    return objective(at.moment.posterior, jr.key(0))


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
