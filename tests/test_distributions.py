import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import ask
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkslow.distributions import Categorical, Gaussian, straight_through
from thinkslow.heads import (
    Bernoulli,
    BoundedNormal,
    Squared,
    SymlogSquared,
    SymlogTwoHot,
    TwoHot,
    symexp,
    symlog,
)

pytestmark = pytest.mark.usefixtures("strict")

MIXES = [0.0, 0.01, 0.5]


def close(found: jax.Array, expected: object) -> None:
    """Sums of a few float32 logarithms of order ten."""
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)


def logits(seed: int, shape: tuple[int, ...] = (3, 5)) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, 3, shape), jnp.float32)


@pytest.mark.parametrize("mix", MIXES)
def test_probabilities_are_the_softmax_with_a_share_of_uniform(mix):
    raw = logits(0)
    expected = (1 - mix) * scipy.special.softmax(np.asarray(raw, np.float64), -1) + mix / 5
    close(ask(Categorical(raw, mix), "probs"), expected)
    close(ask(Categorical(raw, mix), "log_probs"), np.log(expected))


@pytest.mark.parametrize("mix", MIXES)
def test_entropy_and_kl_are_those_of_scipy_summed_over_factors(mix):
    p, q = Categorical(logits(1), mix), Categorical(logits(2), mix)
    a, b = (np.asarray(ask(x, "probs"), np.float64) for x in (p, q))
    close(ask(p, "entropy"), scipy.stats.entropy(a, axis=-1).sum())
    close(ask(p, "kl", q), scipy.stats.entropy(a, b, axis=-1).sum())


@pytest.mark.parametrize("mix", MIXES)
def test_kl_from_uniform_is_what_entropy_lacks_of_its_maximum(mix):
    p = Categorical(logits(3), mix)
    even = Categorical(jnp.zeros((3, 5)), mix)
    close(ask(p, "kl", even) + ask(p, "entropy"), 3 * np.log(5))


def test_the_mix_is_a_floor_under_every_probability():
    sure = Categorical(jnp.array([[1e4, 0.0, -1e4, 0.0]]), 0.01)
    np.testing.assert_allclose(np.asarray(ask(sure, "probs"))[0, 1:], 0.0025, rtol=1e-6)
    other = Categorical(jnp.array([[-1e4, 0.0, 1e4, 0.0]]), 0.01)
    assert np.isfinite(ask(sure, "kl", other))


def test_a_belief_that_holds_the_mix_is_the_same_belief_with_another_gradient():
    raw, other = Categorical(logits(3), 0.3), Categorical(logits(4), 0.3)
    held = ask(raw, "holding_mixed")
    assert (held.mix, held.mixed) == (0.3, True)
    close(held.logits, np.log(ask(raw, "probs")))
    close(ask(held, "probs"), ask(raw, "probs"))
    close(ask(held, "entropy"), ask(raw, "entropy"))
    close(ask(held, "kl", ask(other, "holding_mixed")), ask(raw, "kl", other))
    close(ask(held, "holding_mixed").logits, held.logits)
    slope = jax.jit(jax.grad(lambda belief: belief.entropy()))
    assert np.abs(np.asarray(slope(raw).logits) - slope(held).logits).max() > 0.1


@pytest.mark.parametrize("how", ["sample", "mode"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_straight_through_value_is_one_hot_to_the_bit(how, compiled):
    def read(raw, key):
        belief = Categorical(raw, 0.01)
        return belief.sample(key=key) if how == "sample" else belief.mode()

    value = (jax.jit(read) if compiled else read)(logits(4, (50, 7)), jr.key(0))
    assert set(np.unique(value)) == {0.0, 1.0}
    np.testing.assert_array_equal(value.sum(-1), 1.0)


@pytest.mark.parametrize("how", ["sample", "mode"])
def test_the_gradient_of_a_straight_through_value_is_that_of_the_probabilities(how):
    weights = logits(5)

    def through(raw):
        belief = Categorical(raw, 0.01)
        value = belief.sample(key=jr.key(1)) if how == "sample" else belief.mode()
        return jnp.sum(weights * value)

    soft = jax.jit(jax.grad(lambda raw: jnp.sum(weights * Categorical(raw, 0.01).soft())))
    straight, soft = jax.jit(jax.grad(through))(logits(6)), soft(logits(6))
    np.testing.assert_array_equal(straight, soft)
    assert np.abs(straight).max() > 0.01


def test_straight_through_is_the_value_where_adding_would_round():
    one, small = jnp.float32(1.0), jnp.float32(0.3)
    assert (one + small) - small != one  # what went wrong: not one-hot any more
    assert straight_through(one, small) == one


def test_samples_come_as_often_as_their_probabilities_say():
    belief = Categorical(jnp.array([[0.0, 1.0, 2.0]]), 0.3)
    count = 20_000
    each = jax.vmap(lambda k: belief.sample(key=k))
    often = jax.jit(lambda k: each(jr.split(k, count)).mean(0))(jr.key(0))
    # Five standard deviations of a frequency.
    np.testing.assert_allclose(often, ask(belief, "probs"), atol=5 * 0.5 / count**0.5)


@pytest.mark.parametrize("mix", MIXES)
def test_inverting_takes_each_class_for_its_share_of_the_numbers(mix):
    belief = Categorical(logits(3), mix)
    count = 20_000
    numbers = ((np.arange(count) + 0.5) / count).astype(np.float32)
    draws = np.asarray(jax.jit(jax.vmap(lambda u: belief.inverse_of(jnp.full(3, u))))(numbers))
    assert set(np.unique(draws)) == {0.0, 1.0}
    np.testing.assert_allclose(draws.mean(0), ask(belief, "probs"), atol=1.5 / count)


def test_inverting_never_takes_a_class_that_cannot_be_nor_one_beyond_the_last():
    belief = Categorical(jnp.array([-jnp.inf, 0.0, 0.0, -jnp.inf]))
    largest = np.nextafter(np.float32(1), np.float32(0))
    for number, expected in ((np.float32(0), 1), (largest, 2)):
        assert np.argmax(ask(belief, "inverse_of", jnp.asarray(number))) == expected


def test_the_gradient_of_inverting_is_that_of_the_probabilities():
    weights, raw = logits(4, (2, 3)), logits(5, (2, 3))

    @jax.jit
    @jax.grad
    def inverting(x: jax.Array) -> jax.Array:
        return jnp.sum(weights * Categorical(x).inverse_of(jnp.full(2, 0.4)))

    close(
        inverting(raw), jax.jit(jax.grad(lambda x: jnp.sum(weights * Categorical(x).probs())))(raw)
    )


def test_the_mode_is_the_likeliest_class_and_a_log_probability_reads_it():
    belief = Categorical(logits(7), 0.1)
    best = np.asarray(ask(belief, "probs")).max(-1)
    close(ask(belief, "log_prob", ask(belief, "mode")), np.log(best).sum())


def test_gaussian_kl_entropy_and_density_are_those_of_scipy():
    p = Gaussian(jnp.array([0.5, -1.0]), jnp.array([0.2, -0.7]))
    q = Gaussian(jnp.array([0.1, 0.3]), jnp.array([-0.4, 0.1]))
    first, second = ((np.asarray(b.mean), np.exp(b.log_scale)) for b in (p, q))
    norm = scipy.stats.norm
    close(ask(p, "entropy"), norm.entropy(*first).sum())
    x = np.array([0.4, 0.9], np.float32)
    close(ask(p, "log_prob", x), norm.logpdf(x, *first).sum())
    grid = np.linspace(-12, 12, 20001)[:, None]
    ratio = norm.logpdf(grid, *first) - norm.logpdf(grid, *second)
    close(ask(p, "kl", q), np.trapezoid(norm.pdf(grid, *first) * ratio, grid, axis=0).sum())
    assert ask(p, "kl", p) == 0.0


def test_a_bounded_normal_agrees_with_the_normal_of_its_spread():
    mean, scale = jnp.array([0.1, -0.2]), np.array([0.3, 1.0], np.float32)
    bounded = BoundedNormal(mean, jnp.asarray(scale))
    normal = Gaussian(mean, jnp.asarray(np.log(scale)))
    x = jnp.array([0.5, 0.5])
    close(ask(bounded, "log_prob", x), ask(normal, "log_prob", x))
    close(ask(bounded, "entropy"), ask(normal, "entropy"))
    key = jr.key(2)
    close(ask(bounded, "sample", key=key), ask(normal, "sample", key=key))


@pytest.mark.parametrize("logit", [-90.0, -1.0, 0.0, 2.5, 90.0])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_bernoulli_is_a_cross_entropy_that_stays_finite(logit, value):
    yes, no = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
    found = ask(Bernoulli(jnp.float32(logit)), "log_prob", jnp.float32(value))
    close(found, value * yes + (1 - value) * no)


def test_squared_and_symlog_squared_are_sums_not_means():
    mean = jnp.array([[0.0, 1.0], [0.5, 0.5]])
    assert ask(Squared(mean), "log_prob", jnp.ones((2, 2))) == -(1 + 0 + 0.25 + 0.25)
    head = SymlogSquared(jax.jit(symlog)(jnp.array([10.0, -3.0])))
    np.testing.assert_allclose(ask(head, "mode"), [10.0, -3.0], rtol=1e-5)
    found = ask(head, "log_prob", jnp.array([0.0, -3.0]))
    np.testing.assert_allclose(found, -(np.log(11.0) ** 2), rtol=1e-5)


# Float32 keeps 24 bits: of symlog's argument below, of its value (up to 14) above.
@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6, width=32))
def test_symexp_undoes_symlog(x):
    found = float(symexp(symlog(jnp.float32(x))))
    assert found == pytest.approx(x, rel=2e-6 * 14, abs=1e-30)


@pytest.mark.parametrize("count", [255, 41, 10])
def test_bins_are_antisymmetric_to_the_bit_and_reach_symexp_of_twenty(count):
    bins = np.asarray(ask(TwoHot(jnp.zeros(count)), "bins"))
    np.testing.assert_array_equal(bins, -bins[::-1])
    assert np.all(np.diff(bins) >= 0)
    np.testing.assert_allclose(bins[-1], np.expm1(20.0), rtol=1e-5)
    assert np.sum(bins == 0) == 2 - count % 2  # an even number has zero twice


@pytest.mark.parametrize("count", [255, 10])
def test_equal_masses_cancel_so_a_new_head_predicts_exactly_zero(count):
    assert ask(TwoHot(jnp.zeros(count)), "mean") == 0.0


@jax.jit
def encoded(value: jax.Array, count: jax.Array) -> jax.Array:
    """The two-hot shares that `log_prob` gives a value, read off its gradient."""
    logits = jnp.zeros_like(count)
    share = jax.grad(lambda x: TwoHot(x).log_prob(value))(logits)
    return share + jax.nn.softmax(logits)


@settings(max_examples=200, deadline=None)
@given(st.floats(-4e8, 4e8, width=32))
def test_a_value_is_shared_between_its_two_neighbours_and_read_back(value):
    count = jnp.zeros(255)
    shares = np.asarray(encoded(jnp.float32(value), count), np.float64)
    # Shares come back from a gradient of float32 softmaxes.
    assert shares.sum() == pytest.approx(1.0, abs=1e-5)
    held = np.flatnonzero(shares > 1e-5)
    assert 1 <= len(held) <= 2
    assert held[-1] - held[0] <= 1
    bins = np.asarray(ask(TwoHot(count), "bins"), np.float64)
    step = np.abs(bins[held]).max() + 1e-3
    assert shares @ bins == pytest.approx(value, abs=1e-4 * step)


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e4, 1e4, width=32))
def test_the_mean_of_a_values_own_encoding_is_the_value(value):
    bins = np.asarray(ask(TwoHot(jnp.zeros(255)), "bins"), np.float64)
    above = int(np.searchsorted(bins, value, "right"))
    low, high = bins[above - 1], bins[above]
    share = (high - value) / (high - low)
    with np.errstate(divide="ignore"):
        masses = np.full(255, -np.inf)
        masses[above - 1], masses[above] = np.log(share), np.log(1 - share)
    found = float(ask(TwoHot(jnp.asarray(masses, jnp.float32)), "mean"))
    # The sum holds terms of the size of the neighbouring bins, in float32.
    assert found == pytest.approx(value, abs=1e-5 * (max(abs(low), abs(high)) + 1))


@pytest.mark.parametrize(("value", "bin_"), [(1e30, -1), (-1e30, 0)])
def test_a_value_beyond_the_bins_belongs_to_the_last_one(value, bin_):
    raw = logits(8, (41,))
    expected = scipy.special.log_softmax(np.asarray(raw, np.float64))[bin_]
    found = ask(TwoHot(raw), "log_prob", jnp.float32(value))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_two_hot_of_2023_means_in_symlog_space():
    # Half on symlog(x) = 1, half on 2: symexp(1.5), not the mean of symexp(1) and symexp(2).
    half = np.full(41, -1e9, np.float32)
    half[21:23] = 0.0
    close(ask(SymlogTwoHot(jnp.asarray(half)), "mean"), np.expm1(1.5))
    # symlog(e^1.25 - 1) lies a quarter of the way from the bin of 1 to that of 2.
    uneven = SymlogTwoHot(jnp.asarray(np.eye(41, dtype=np.float32)[22]))
    log_probs = scipy.special.log_softmax(np.asarray(uneven.logits))
    value = jnp.float32(np.expm1(1.25))
    close(ask(uneven, "log_prob", value), 0.75 * log_probs[21] + 0.25 * log_probs[22])
    close(ask(uneven, "log_prob", jnp.float32(-1e30)), log_probs[0])


def test_noise_is_of_the_beliefs_own_type():
    """A Gaussian of bfloat16 once drew float32, and strict promotion refused the sum."""
    half = jnp.zeros(3, jnp.bfloat16)
    for kind in (Gaussian, BoundedNormal):
        drawn = jax.eval_shape(kind(half, half).sample, key=jr.key(0))
        assert drawn.dtype == jnp.bfloat16
