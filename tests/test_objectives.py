import dataclasses
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Blind, Coded, Fuzzy, Trained, ask, gains, push, slow
from looking_ahead import decided, dreaming, line, lookahead, policy_keys, pushed

from thinkslow import objectives
from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Categorical, Gaussian
from thinkslow.objectives import ELBO, PIG, SIG, Anchor, Entropy, Evidence
from thinkslow.objectives.members import Noise
from thinkslow.objectives.term import ImaginedTerm
from thinkslow.readouts import Mode, Reinforce
from thinkslow.refinement import Gradient
from thinkslow.trees import cast
from thinkslow.worldmodel import State, detached, imagine, surprise

parameter_information_gain, state_information_gain = (
    jax.jit(gain)
    for gain in (objectives.parameter_information_gain, objectives.state_information_gain)
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
    for key in policy_keys(jr.key(0), 3):
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
    (key,) = policy_keys(jr.key(0), 1)
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
    for key in policy_keys(jr.key(0), 2):
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
