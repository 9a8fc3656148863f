"""Steps beyond the plain ones: known answers on problems small enough to enumerate."""

import itertools
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special
from helpers import Coded, bowl, categorical, equal, gaussian, linear, noisy, slow

from thinkslow.distributions import Categorical, Gaussian
from thinkslow.objectives import Evidence, lookahead
from thinkslow.readouts import Gumbel, Reinforce, Sample
from thinkslow.refinement import (
    Anytime,
    Descent,
    Gradient,
    Langevin,
    Mirror,
    Random,
    coordinate,
    refine,
)
from thinkslow.refinement.joint import joint, shifted
from thinkslow.worldmodel import Moment

run = partial(jax.jit, static_argnames=("objective", "steps", "accept", "judges", "select"))(refine)


@pytest.mark.parametrize("steps", [slow(2), 5])
@pytest.mark.parametrize("seed", range(5))
def test_random_steps_add_up_to_the_nats_they_were_given(steps, seed):
    """Each in a direction of its own, five steps ended at a fifth of the nats: no control."""
    belief = categorical(seed)
    out = run(linear, belief, Random(), steps=steps, key=jr.key(seed), max_kl=0.3)
    np.testing.assert_allclose(out.moved[-1], 0.3, rtol=3e-3)
    # Bound by equal shares of a straight line, too, they go on in one direction.
    share = run(
        linear, belief, Random(), steps=steps, key=jr.key(seed), step_kl=0.3 / steps**2, max_kl=0.3
    )
    ways = np.diff(np.stack([belief.logits, share.belief.logits, out.belief.logits]), axis=0)
    first, last = ways[0].ravel(), (ways[0] + ways[1]).ravel()
    assert first @ last > (1 - 1e-5) * np.linalg.norm(first) * np.linalg.norm(last)
    assert share.moved[-1] > 0.15


@pytest.mark.parametrize("size", [1e3, 1e9, 1e20, 1e37])
def test_a_step_however_long_is_shortened_to_its_nats(size):
    """Beyond 2^24 times too long it moved nothing, and said that it was taken."""
    belief = categorical(1)
    out = run(linear, belief, Gradient(size), steps=1, key=jr.key(0), step_kl=0.1)
    np.testing.assert_allclose(out.moved[1], 0.1, rtol=3e-3)
    assert bool(out.accepted[0])


def test_a_step_that_moves_nothing_is_not_reported_as_taken():
    out = run(linear, categorical(), Gradient(1.0), steps=2, key=jr.key(0), step_kl=0.0)
    assert not np.any(out.accepted)


def test_langevin_without_heat_is_the_plain_gradient_and_with_it_depends_on_the_key():
    belief = categorical()
    cold = run(linear, belief, Langevin(0.1, 0.0), steps=3, key=jr.key(0))
    plain = run(linear, belief, Gradient(0.1), steps=3, key=jr.key(0))
    np.testing.assert_allclose(cold.belief.logits, plain.belief.logits, rtol=1e-6)
    hot, same, other = (
        run(linear, belief, Langevin(0.1, 1.0), steps=3, key=jr.key(k)) for k in (0, 0, 1)
    )
    equal(hot.belief, same.belief)
    assert np.any(hot.belief.logits != other.belief.logits)


def test_langevin_draws_from_the_density_that_its_objective_names():
    """exp(-(m - 3)^2) has mean 3 and variance 1/2."""

    def well(belief: Any, key: jax.Array) -> Any:
        return jnp.sum((belief.mean - 3.0) ** 2) + 0 * jnp.sum(belief.log_scale), {}

    start = Gaussian(jnp.full(512, 3.0), jnp.zeros(512))
    out = run(well, start, Langevin(0.05, 1.0), steps=60, key=jr.key(0))
    # 512 draws: the mean to 3 x .031, the variance to 3 x 6%, and 5% of the finite step size.
    np.testing.assert_allclose(np.mean(out.belief.mean), 3.0, atol=0.1)
    np.testing.assert_allclose(np.var(out.belief.mean), 0.5, rtol=0.25)


ADAPTIVE = [
    slow(linear, Gradient(0.5), {}),
    (noisy, Mirror(2.0), {"accept": True}),
    slow(linear, Random(), {"max_kl": 9.0, "step_kl": jnp.inf}),
]


@pytest.mark.parametrize(("objective", "update", "options"), ADAPTIVE)
def test_a_descent_that_may_stop_but_does_not_is_the_plain_one(objective, update, options):
    options = {"steps": 4, "key": jr.key(3), "step_kl": 0.2} | options
    plain = run(objective, categorical(1), update, **options)
    able = run(objective, categorical(1), update, tolerance=-jnp.inf, **options)
    assert int(able.used) == int(plain.used) == 4
    # The same sums, compiled apart.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), plain, able)


def test_it_stops_when_a_step_gains_too_little_and_says_after_how_many():
    """Each step takes the loss of this bowl to 0.64 of itself; 14 added make that less and less."""

    def raised(belief: Any, key: jax.Array) -> Any:
        return jnp.sum((belief.mean - 3.0) ** 2) + jnp.sum(belief.log_scale**2) + 14.0, {}

    belief = gaussian()
    out = run(raised, belief, Gradient(0.1), steps=20, key=jr.key(0), tolerance=0.05)
    losses = [float(raised(belief, jr.key(0))[0]) - 14]
    while True:
        losses.append(0.64 * losses[-1])
        if losses[-2] - losses[-1] < 0.05 * (losses[-2] + 14):
            break
    used = len(losses) - 1
    assert 2 < used < 20
    assert int(out.used) == int(out.chosen) == used
    np.testing.assert_allclose(out.loss[: used + 1], np.array(losses) + 14, rtol=1e-5)
    np.testing.assert_array_equal(out.loss[used:], out.loss[used])
    np.testing.assert_array_equal(out.accepted, np.arange(20) < used)


def test_it_stops_when_its_nats_are_spent():
    out = run(
        linear,
        categorical(2),
        Gradient(1e3),
        steps=12,
        key=jr.key(0),
        step_kl=0.05,
        max_kl=0.12,
        tolerance=-jnp.inf,
    )
    assert int(out.used) < 6
    assert 0.99 * 0.12 <= out.moved[-1] <= 0.12 * (1 + 1e-5)


def test_each_of_a_batch_stops_by_itself():
    means = jnp.array([[3.1], [40.0]])
    many = jax.vmap(Gaussian)(means, jnp.zeros((2, 1)))

    def raised(belief: Any, key: jax.Array) -> Any:
        return bowl(belief, key)[0] + 1.0, {}

    go = partial(run, raised, update=Gradient(0.1), steps=30, key=jr.key(0), tolerance=0.01)
    together = jax.vmap(go)(many)
    for index in range(2):
        alone = go(Gaussian(means[index], jnp.zeros(1)))
        assert int(together.used[index]) == int(alone.used)
        np.testing.assert_allclose(together.belief.mean[index], alone.belief.mean, rtol=1e-5)
    assert together.used[0] < together.used[1]


def harmful(belief: Any, key: jax.Array) -> Any:
    """Every move is worse in truth, by its KL; the noise hides it."""
    noise = jnp.sum(jr.normal(key, belief.logits.shape) * belief.probs())
    return 3 * noise + belief.kl(categorical(0)), {}


@pytest.mark.slow
def test_several_judges_refuse_what_one_takes_for_a_gain():
    """In expectation over fresh noise, and not only on the noise that the step saw."""

    def taken(judges: int) -> float:
        go = jax.vmap(
            lambda key: refine(
                harmful,
                categorical(0),
                Gradient(1e3),
                steps=1,
                key=key,
                step_kl=0.3,
                accept=True,
                judges=judges,
            ).belief.kl(categorical(0))
        )
        return float(np.mean(jax.jit(go)(jr.split(jr.key(0), 400)) > 0.01))

    one, many = taken(1), taken(16)
    assert one > 0.25
    assert many < 0.06  # two standard errors of 16: 3%


@pytest.mark.slow
def test_scores_are_unbiased_where_straight_through_is_not():
    """Two factors of three classes, a cost that no linear function of the code matches."""
    table = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)

    model = Coded(table)
    belief = categorical(4, mix=0.01)

    def exact(belief: Categorical) -> jax.Array:
        first, second = belief.probs()
        return jnp.einsum("a,b,ab->", first, second, table**2)

    def estimate(how: Any) -> np.ndarray:
        objective = lookahead(
            model,
            lambda s, k: jnp.zeros(1),
            Moment(jnp.zeros(1), belief, belief, jnp.ones((), bool)),
            {"seen": jnp.zeros(())},
            {Evidence(beta=0.0, free_nats=0.0, samples=4): 1.0},
            horizon=1,
            latent=how,
        )
        slope = jax.vmap(lambda key: jax.grad(lambda b: objective(b, key)[0])(belief).logits)
        return np.asarray(jax.jit(slope)(jr.split(jr.key(1), 20_000)))

    truth = np.asarray(jax.jit(jax.grad(exact))(belief).logits)
    hows = {"reinforce": Reinforce(), "sample": Sample(), "gumbel": Gumbel()}
    found = {name: estimate(how) for name, how in hows.items()}
    error = {
        how: np.max(np.abs(draws.mean(0) - truth) / (draws.std(0) / np.sqrt(len(draws)) + 1e-9))
        for how, draws in found.items()
    }
    assert error["reinforce"] < 4.5  # of 6 numbers, in standard errors
    assert error["sample"] > 10
    assert error["gumbel"] > 10


def test_coordinate_descent_finds_the_best_of_all_codes():
    """Three factors of four classes whose cost is a random table: 64 codes, all tried by hand."""
    table = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4, 4)), jnp.float32)

    def cost(belief: Any, key: jax.Array) -> Any:
        a, b, c = belief.probs()
        return jnp.einsum("abc,a,b,c->", table, a, b, c), {}

    start = Categorical(jnp.zeros((3, 4)))
    go = jax.jit(partial(coordinate, cost), static_argnames=("sweeps", "restarts"))
    out = go(start, sweeps=6, restarts=16, key=jr.key(0), temperature=0.0)
    np.testing.assert_allclose(out.loss[-1], table.min(), atol=1e-4)
    assert np.all(np.diff(out.loss) <= 1e-6)
    code = np.argmax(out.belief.logits, -1)
    np.testing.assert_array_equal(code, np.unravel_index(np.argmin(table), (4, 4, 4)))


def test_one_sweep_over_one_factor_is_bayes_rule():
    prior = Categorical(jnp.array([[0.3, -0.2, 1.0, 0.0]]))
    likelihood = jnp.array([[-0.1, -2.0, -0.5, -1.0]])

    def surprise(belief: Any, key: jax.Array) -> Any:
        return belief.kl(prior) - jnp.sum(belief.probs() * likelihood), {}

    sweep = jax.jit(partial(coordinate, surprise, sweeps=1, key=jr.key(0)))
    out = sweep(Categorical(jnp.zeros((1, 4))))
    joint = scipy.special.log_softmax(prior.logits, -1) + np.asarray(likelihood)
    found = scipy.special.softmax(out.belief.logits, -1)
    np.testing.assert_allclose(found, scipy.special.softmax(joint, -1), rtol=1e-4)
    np.testing.assert_allclose(out.loss[-1], -scipy.special.logsumexp(joint), rtol=1e-5)


def test_memory_moves_with_the_belief_within_its_own_radius():
    memory = jnp.array([3.0, 4.0])

    def far(both: Any, key: jax.Array) -> Any:
        here = shifted(memory, both.shift, 0.1)
        return bowl(both.belief, key)[0] + jnp.sum((here - 10.0) ** 2), {}

    out = run(far, joint(gaussian(), memory), Gradient(0.1), steps=5, key=jr.key(0), max_kl=2.0)
    here = shifted(memory, out.belief.shift, 0.1)
    np.testing.assert_allclose(jnp.linalg.norm(here - memory), 0.5, rtol=1e-5)
    assert np.all(here > memory)
    assert out.moved[-1] > 0.1
    equal(shifted(memory, out.belief.shift, 0.0), memory)
    equal(shifted(memory, jnp.zeros(2), 0.1), memory)


ONE = jnp.ones(())


def steep(scale: jax.Array, context: jax.Array) -> Any:
    def objective(belief: Any, key: jax.Array) -> Any:
        return scale * jnp.sum((belief.mean - context) ** 2) + jnp.sum(belief.log_scale**2), {}

    return objective


def test_a_deadline_gives_the_best_so_far_and_more_time_no_worse():
    anytime = Anytime(steep, Gradient(0.1), Descent(16, select="best"), chunk=2)
    beliefs = jax.vmap(Gaussian)(jnp.zeros((3, 2)), jnp.ones((3, 2)))
    context, keys = jnp.arange(3.0) + 1, jr.split(jr.key(0), 3)
    anytime.warm(ONE, context, beliefs, keys=keys)
    none = anytime(ONE, context, beliefs, keys=keys, deadline_ms=0.0)
    equal(none.belief, beliefs)
    np.testing.assert_array_equal(none.used, 0)
    all_steps = anytime(ONE, context, beliefs, keys=keys, deadline_ms=1e6)
    np.testing.assert_array_equal(all_steps.used, 16)
    begun = Gaussian(jnp.zeros(2), jnp.ones(2))
    plain = run(steep(ONE, context[1]), begun, Gradient(0.1), steps=16, key=keys[1])
    np.testing.assert_allclose(all_steps.belief.mean[1], plain.belief.mean, rtol=1e-5)


def test_between_two_looks_at_the_clock_a_deadline_stops_the_descent(monkeypatch):
    """A clock ticks 10 ms a look: a piece that would end after the deadline never begins."""
    ticks = itertools.count(0.0, 0.010)
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    anytime = Anytime(steep, Gradient(0.1), Descent(50, select="best"), chunk=3)
    beliefs = jax.vmap(Gaussian)(jnp.zeros((1, 2)), jnp.ones((1, 2)))
    out = anytime(ONE, jnp.ones(1), beliefs, keys=jr.split(jr.key(0), 1), deadline_ms=45.0)
    # Begun at 0, started at 10, pieces to 20, 30 and 40; the next would end at 50.
    assert int(out.used[0]) == 9


def test_without_a_tolerance_an_objective_of_zero_stops_nothing():
    """-inf times 0 was NaN, and NaN stopped the descent after a step."""

    def objective(shared: Any, context: Any) -> Any:
        return lambda q, key: (context * jnp.sum(q.mean) - context * jnp.sum(q.mean), {})

    anytime = Anytime(objective, Langevin(0.1, 1.0), Descent(5))
    beliefs = jax.vmap(Gaussian)(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    out = anytime(ONE, jnp.ones(1), beliefs, keys=jr.split(jr.key(0), 1), deadline_ms=1e6)
    assert int(out.used[0]) == 5
