from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import scipy.special
from helpers import COST, bowl, categorical, equal, gaussian, linear, nightly, noisy, slow

from thinkslow import refinement
from thinkslow.distributions import Categorical, Gaussian
from thinkslow.refinement import Gradient, Mirror, Random, Status
from thinkslow.refinement.result import Iterates, chosen
from thinkslow.refinement.step import within

pytestmark = pytest.mark.usefixtures("strict")


refine = eqx.filter_jit(refinement.refine)


@partial(jax.jit, static_argnames=("objective", "update", "steps", "accept", "select"))
def descend(
    objective,
    belief,
    size,
    update,
    *,
    steps=4,
    seed=0,
    step_kl=jnp.inf,
    max_kl=jnp.inf,
    accept=False,
    select: Any = "last",
):
    direction = Random() if update is Random else update(size)
    return refine(
        objective,
        belief,
        direction,
        steps=steps,
        key=jr.key(seed),
        step_kl=step_kl,
        max_kl=max_kl,
        accept=accept,
        select=select,
    )


def test_zero_steps_are_the_identity_with_its_loss():
    belief = categorical()
    out = refine(linear, belief, Gradient(1.0), steps=0, key=jr.key(0))
    equal(out.belief, belief)
    np.testing.assert_array_equal(out.loss, [linear(belief, jr.key(0))[0]])
    assert (int(out.chosen), out.gradient_norm.shape, out.accepted.shape) == (0, (0,), (0,))
    assert out.moved[0] == 0.0


@pytest.mark.parametrize("update", [Gradient, slow(Mirror)])
@pytest.mark.parametrize("accept", [False, True])
def test_a_step_of_size_zero_is_the_identity_to_the_bit(update, accept):
    belief = categorical()
    out = descend(linear, belief, 0.0, update, accept=accept)
    equal(out.belief, belief)
    equal(out.moved, np.zeros(5, np.float32))


@pytest.mark.parametrize("bound", ["step_kl", "max_kl"])
@pytest.mark.parametrize("update", [Gradient, Mirror, Random])
@pytest.mark.parametrize("seed", range(5))
def test_zero_nats_are_the_identity_to_the_bit(bound, update, seed):
    """The KL of a tiny move rounds to 0, or below: comparing it with 0 let the move pass."""
    belief = categorical(seed)
    out = descend(linear, belief, 1.0, update, seed=seed, **{bound: 0.0})
    equal(out.belief, belief)


def test_plain_descent_is_the_textbook_iteration():
    belief = gaussian()
    out = descend(bowl, belief, 0.1, Gradient)
    mean, log_scale = np.asarray(belief.mean, np.float64), np.asarray(belief.log_scale, np.float64)
    for _ in range(4):
        mean, log_scale = mean - 0.2 * (mean - 3.0), log_scale - 0.2 * log_scale
    np.testing.assert_allclose(out.belief.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(out.belief.log_scale, log_scale, rtol=1e-6)
    assert np.all(np.diff(out.loss) < 0)
    first = 2 * np.sqrt(9 + 4 + 0.25 + 0.25)
    np.testing.assert_allclose(out.gradient_norm[0], first, rtol=1e-6)


def test_a_mirror_step_is_exponentiated_gradient_on_the_simplex():
    belief, size = categorical(3, mix=0.01), 0.7
    out = descend(linear, belief, size, Mirror, steps=3)
    probs = scipy.special.softmax(np.asarray(belief.logits, np.float64), -1)
    for _ in range(3):
        # The cost's slope by a probability before the mix is 99% of its slope after it.
        probs = probs * np.exp(-size * 0.99 * np.asarray(COST, np.float64))
        probs /= probs.sum(-1, keepdims=True)
    # Float32 exponentials, and logits that are known up to a constant.
    np.testing.assert_allclose(jax.nn.softmax(out.belief.logits), probs, rtol=1e-5)


def test_a_mirror_step_refuses_a_belief_that_is_no_categorical():
    with pytest.raises(TypeError, match=r"irror.*Ga"):
        refine(bowl, gaussian(), Mirror(1.0), steps=1, key=jr.key(0))


@pytest.mark.parametrize(
    "optimiser",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.lion(0.1),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5)),
    ],
    ids=["momentum", "lion", "clipped"],
)
def test_any_optax_optimiser_steps_as_it_does_by_hand(optimiser):
    belief = gaussian()
    out = refine(bowl, belief, Gradient(0.5, optimiser), steps=3, key=jr.key(0))
    state = optimiser.init(belief)
    for _ in range(3):
        gradient = jax.grad(lambda b: bowl(b, jr.key(0))[0])(belief)
        change, state = optimiser.update(gradient, state, belief)
        belief = jax.tree.map(lambda x, d: x + 0.5 * d, belief, change)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), out.belief, belief)


@pytest.mark.parametrize("select", ["last", "best"])
def test_the_reported_loss_belongs_to_the_returned_belief(select):
    # Steps of this size climb on the far side of the bowl's first coordinate.
    out = descend(bowl, gaussian(), 1.05, Gradient, select=select)
    np.testing.assert_allclose(out.loss[out.chosen], bowl(out.belief, jr.key(0))[0], rtol=1e-6)
    np.testing.assert_allclose(out.moved[out.chosen], out.belief.kl(gaussian()), rtol=1e-5)
    assert int(out.chosen) == (4 if select == "last" else 0)
    assert np.argmin(out.loss) == 0  # or the two would not differ


def test_terms_are_reported_for_every_iterate_unweighted():
    out = descend(linear, categorical(), 0.5, Gradient)
    np.testing.assert_array_equal(out.terms["cost"], out.loss)
    assert out.loss.shape == (5,)


@pytest.mark.parametrize("update", [Gradient, Mirror, Random])
@pytest.mark.parametrize("nats", [0.01, 0.3])
def test_a_long_step_moves_as_many_nats_as_it_may_and_no_more(update, nats):
    """A random control must move the same KL as what it controls."""
    belief = categorical(1)
    out = descend(linear, belief, 1e3, update, steps=1, step_kl=nats)
    moved = float(out.belief.kl(belief))
    # Bisection finds the share to a thousandth; the KL of it is quadratic, so two of them.
    assert nats * (1 - 3e-3) - 1e-6 <= moved <= nats
    np.testing.assert_allclose(out.moved[1], moved, atol=2e-7)  # sums in another order


def test_a_short_step_is_taken_whole_to_the_bit():
    belief = categorical(1)
    free = descend(linear, belief, 0.1, Gradient, steps=1)
    bound = descend(linear, belief, 0.1, Gradient, steps=1, step_kl=5.0, max_kl=5.0)
    equal(free.belief, bound.belief)
    assert free.moved[1] > 0


@pytest.mark.parametrize("nats", [1e-3, 0.1, 3.0])
def test_a_long_step_spends_its_nats(nats):
    """Of 256 beliefs none is left behind or moved too far."""
    first, change = (
        Categorical(size * jr.normal(key, (256, 4, 8)))
        for size, key in zip((1, 30), jr.split(jr.key(0)), strict=True)
    )
    moved = jax.jit(jax.vmap(partial(within, step_kl=nats, max_kl=jnp.inf)))
    spent = jax.vmap(lambda a, b: a.kl(b))(moved(first, change, first=first), first)
    np.testing.assert_allclose(spent, nats, rtol=0.01)


def test_each_step_stays_within_step_kl_and_all_within_max_kl():
    belief = categorical(2)
    out = descend(linear, belief, 1e3, Gradient, steps=8, step_kl=0.05, max_kl=0.12)
    # Nothing but float noise beyond the bound.
    assert np.all(out.moved <= 0.12 * (1 + 1e-5))
    assert out.moved[-1] > 0.1
    assert out.moved[1] <= 0.05 * (1 + 1e-5)
    alone = descend(linear, belief, 1e3, Gradient, steps=8, step_kl=0.05)
    assert alone.moved[-1] > 0.12  # steps of 0.05 nats go far beyond it together


@pytest.mark.parametrize("seed", range(20))
def test_accepted_steps_never_end_worse_on_the_judges_draw(seed):
    belief = categorical(seed)
    out = descend(noisy, belief, 5.0, Mirror, seed=seed, steps=6, step_kl=1.0, accept=True)
    judge = jr.split(jr.key(seed), 3)[1]
    before, after = noisy(belief, judge)[0], noisy(out.belief, judge)[0]
    assert after <= before
    assert bool(after < before) == bool(np.any(out.accepted))


def test_an_accepted_step_is_better_than_the_one_before_not_only_than_the_first():
    # From 5 to 1 beyond the bottom in one step; the next would end 3 on the other side.
    start = Gaussian(jnp.array([8.0]), jnp.zeros(1))
    out = descend(bowl, start, 1e3, Gradient, steps=4, step_kl=8.0, accept=True)
    assert np.all(np.diff(out.loss) <= 0)
    np.testing.assert_array_equal(out.accepted[:2], [True, False])


def test_without_acceptance_descent_over_fits_its_draw():
    """The reason for acceptance: on fresh noise many of these seeds end worse."""
    worse = 0
    for seed in range(20):
        belief = categorical(seed)
        out = descend(noisy, belief, 5.0, Mirror, seed=seed, steps=6, step_kl=1.0)
        judge = jr.split(jr.key(seed), 3)[1]
        assert out.loss[-1] < out.loss[0]
        worse += bool(noisy(out.belief, judge)[0] > noisy(belief, judge)[0])
    assert worse >= 5


def test_a_refused_step_halves_step_kl():
    # From 1.1 beyond the bottom, 8 nats are 4 deviations and 4 are 2.8: too far; 2 are 2.
    start = Gaussian(jnp.array([4.1]), jnp.zeros(1))
    out = descend(bowl, start, 1e3, Gradient, steps=3, step_kl=8.0, accept=True)
    np.testing.assert_array_equal(out.accepted, [False, False, True])
    np.testing.assert_allclose(out.moved, [0.0, 0.0, 0.0, 2.0], rtol=2e-3)


def sick(belief: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """An expected cost that is not a number once the belief has moved by 0.2 nats."""
    cost = linear(belief, key)[0]
    return jnp.where(belief.kl(categorical()) > 0.2, jnp.nan, cost), {}


@pytest.mark.parametrize("select", ["last", "best"])
@pytest.mark.parametrize("accept", [False, True])
def test_the_last_finite_belief_leaves_where_the_objective_fails_on_the_way(select, accept):
    out = descend(
        sick, categorical(), 3.0, Gradient, steps=8, step_kl=0.02, select=select, accept=accept
    )
    assert np.all(np.isfinite(out.belief.logits))
    assert np.isfinite(out.loss[out.chosen])
    assert 0.05 < out.moved[out.chosen] <= 0.2
    np.testing.assert_array_equal(out.finite, np.isfinite(out.loss))
    if not accept:  # an accepting descent never steps there
        assert not np.all(out.finite)
        first_bad = int(np.argmin(out.finite))
        assert int(out.chosen) == first_bad - 1
        np.testing.assert_array_equal(out.accepted[first_bad:], False)


def test_a_belief_that_is_bad_from_the_start_comes_back_as_it_was_and_flagged():
    belief = categorical()
    out = descend(lambda b, key: (jnp.nan * jnp.sum(b.logits), {}), belief, 1.0, Gradient)
    equal(out.belief, belief)
    assert int(out.chosen) == 0
    assert not np.any(out.finite)
    assert not np.any(out.accepted)


def test_a_belief_of_nan_comes_back_flagged_not_hidden():
    belief = Categorical(jnp.full((2, 3), jnp.nan), 0.01)
    out = descend(linear, belief, 1.0, Gradient)
    assert np.all(np.isnan(out.belief.logits))
    assert not np.any(out.finite)


def test_a_gradient_that_is_no_number_moves_nothing_and_shows_in_its_norm():
    belief = Gaussian(jnp.zeros(2), jnp.zeros(2))
    out = descend(lambda b, key: (jnp.sum(jnp.sqrt(b.mean)), {}), belief, 1.0, Gradient)
    equal(out.belief, belief)
    assert not np.any(np.isfinite(out.gradient_norm))
    assert not np.any(out.accepted)


@pytest.mark.parametrize(
    ("update", "accept", "steps"),
    [
        (Gradient(0.3), False, 3),
        slow(Random(), True, 3),
        *(
            nightly(update, accept, steps)
            for update in (Gradient(0.3), Mirror(0.3), Random())
            for accept in (False, True)
            for steps in (0, 1, 3)
        ),
    ],
)
def test_a_descent_without_its_record_ends_where_the_recorded_one_does(update, accept, steps):
    given = {"steps": steps, "key": jr.key(1), "max_kl": 0.2, "accept": accept}
    recorded = refine(noisy, categorical(), update, **given)
    out = refine(noisy, categorical(), update, **given, record=False)
    # Two programs: their rounding differs.
    np.testing.assert_allclose(out.belief.logits, recorded.belief.logits, atol=1e-6)
    assert np.isnan(out.loss[-1])
    if not update.ignores_objective or accept:
        np.testing.assert_allclose(out.loss[:-1], recorded.loss[:-1], atol=1e-6)


def test_without_its_record_an_update_that_looks_at_nothing_evaluates_nothing():
    def nowhere(belief, key):
        return jnp.nan * jnp.sum(belief.logits), {}

    given = {"steps": 2, "key": jr.key(0), "max_kl": 0.5}
    assert refine(nowhere, categorical(), Random(), **given).status == Status.NOT_FINITE
    out = refine(nowhere, categorical(), Random(), **given, record=False)
    assert out.status == Status.KL_SPENT
    np.testing.assert_allclose(out.moved[-1], 0.5, rtol=0.1)


@pytest.mark.slow
def test_without_its_record_the_last_finite_belief_leaves_if_its_loss_was_seen():
    given = {"steps": 9, "key": jr.key(0), "step_kl": 0.02}
    out = refine(sick, categorical(), Gradient(3.0), **given, record=False)
    recorded = refine(sick, categorical(), Gradient(3.0), **given)
    assert out.status == recorded.status == Status.NOT_FINITE
    equal(out.belief, recorded.belief)


def test_a_gaussian_belief_is_bound_too():
    out = descend(bowl, gaussian(), 10.0, Gradient, steps=1, step_kl=0.5)
    assert 0.49 < out.belief.kl(gaussian()) <= 0.5
    assert out.loss[1] < out.loss[0]


def test_random_steps_do_not_look_at_the_objective_and_differ_by_key():
    belief = categorical()
    one, same = (descend(f, belief, 1.0, Random, step_kl=0.3) for f in (linear, noisy))
    other = descend(linear, belief, 1.0, Random, step_kl=0.3, seed=1)
    equal(one.belief, same.belief)
    assert not np.array_equal(one.belief.logits, other.belief.logits)


CASES: list[tuple[Any, Any, Any, dict[str, Any]]] = [
    slow(linear, categorical, Gradient, {}),
    (noisy, categorical, Mirror, {"accept": True}),
    slow(linear, categorical, Random, {}),
    (bowl, gaussian, Gradient, {"select": "best"}),
]


@pytest.mark.parametrize(("objective", "make", "update", "options"), CASES)
def test_a_batch_is_as_one_by_one(objective, make, update, options):
    beliefs = [make()] if make is gaussian else [make(seed) for seed in range(3)]
    many = jax.tree.map(lambda *x: jnp.stack(x), *beliefs)
    run = partial(descend, objective, size=0.5, update=update, step_kl=0.2, **options)
    together = jax.vmap(run)(many)
    for index, belief in enumerate(beliefs):
        alone = run(belief)
        one = jax.tree.map(lambda x, i=index: x[i], together)
        # Sums in another order.
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one, alone)


def test_the_same_key_gives_the_same_result_and_structure_is_kept():
    belief = categorical()
    one, two = (descend(noisy, belief, 1.0, Gradient, accept=True) for _ in range(2))
    equal(one, two)
    assert jax.tree.structure(one.belief) == jax.tree.structure(belief)
    assert one.belief.logits.dtype == belief.logits.dtype


def test_changing_sizes_and_bounds_traces_once():
    traces = 0

    def counted(belief, key):
        nonlocal traces
        traces += 1
        return linear(belief, key)

    belief, seen = categorical(), []
    for size, step_kl, max_kl in ((0.1, 0.2, 0.3), (0.5, 1.0, 2.0), (9.0, 0.01, 0.02)):
        out = descend(counted, belief, size, Gradient, step_kl=step_kl, max_kl=max_kl)
        seen.append(traces)
        assert out.moved[-1] <= max_kl * (1 + 1e-5)
    assert seen[0] > 0
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, r"`steps` must be 0 or more; got -1\."),
        ({"steps": 1, "max_kl": -1.0}, r"`max_kl` must be 0 or more; got -1\.0"),
        ({"steps": 1, "max_kl": float("nan")}, "`max_kl` must be 0 or more; got nan"),
        ({"steps": 1, "tolerance": float("nan")}, "`tolerance` must be 0 or more; got nan"),
        ({"steps": 1, "select": "first"}, "`select` must be 'last' or 'best'; got 'first'"),
    ],
)
def test_impossible_arguments_are_refused_with_rule_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        refine(linear, categorical(), Gradient(1.0), key=jr.key(0), **options)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("update", ["adam", "", optax.adam(0.1), Gradient, 0.1])
def test_what_is_no_update_is_refused_with_the_remedy(update):
    with pytest.raises(TypeError, match=r"Gradient\(optimiser=\.\.\.\)"):
        refine(linear, categorical(), update, steps=1, key=jr.key(0))


# Why a descent stopped, and what it refuses.


def status(**options: Any) -> Status:
    belief = options.pop("belief", categorical())
    objective = options.pop("objective", linear)
    options = {"steps": 3, "key": jr.key(0)} | options
    return Status(int(refine(objective, belief, options.pop("update", None), **options).status))


def flat(belief: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    return jnp.zeros(()) * jnp.sum(belief.logits), {}


def lost(belief: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    return jnp.log(-jnp.sum(belief.probs())), {}


def test_a_descent_says_why_it_stopped():
    assert status(update=Gradient(0.01)) is Status.STEPS_DONE
    assert status(update=Gradient(0.01), tolerance=10.0) is Status.TOLERANCE_MET
    assert status(update=Gradient(1e3), max_kl=0.1, step_kl=0.1) is Status.KL_SPENT
    assert status(objective=flat) is Status.REFUSED  # a step that moves nothing is none
    assert status(objective=lost) is Status.NOT_FINITE
    assert all(one.text for one in Status)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (lambda q, key: jnp.sum(q.probs()), "a dictionary of terms"),
        (lambda q, key: (q.probs(), {}), r"The loss .* shape \(2, 3\)"),
        (
            lambda q, key: (jnp.sum(q.probs()), {"each": q.probs()}),
            "The term .each. of an objective",
        ),
        (lambda q, key: (jnp.argmax(q.probs()), {}), "one floating number; got int32"),
    ],
)
def test_what_an_objective_must_return_is_said(objective, said):
    with pytest.raises(TypeError, match=said):
        refine(objective, categorical(), steps=1, key=jr.key(0))


@pytest.mark.usefixtures("untyped")
def test_a_belief_needs_a_kl():
    with pytest.raises(TypeError, match=r"kl\(other\).* this one is"):
        refine(linear, jnp.zeros(3), steps=1, key=jr.key(0))


def test_of_many_iterates_in_half_precision_the_last_is_the_last():
    """Beyond 256, bfloat16 counted them by twos, and an earlier one came back."""
    steps = 300

    @jax.jit
    def last() -> jax.Array:
        losses = jnp.zeros(steps + 1, jnp.bfloat16)
        beliefs = jax.vmap(Gaussian)(jnp.zeros((steps + 1, 2)), jnp.zeros((steps + 1, 2)))
        none, used = jnp.zeros(steps), jnp.asarray(steps, jnp.int32)
        first = Gaussian(jnp.zeros(2), jnp.zeros(2))
        iterates = Iterates(beliefs, losses, {}, none, none > 0, used)
        return chosen(iterates, first, select="last", max_kl=jnp.inf).chosen

    assert int(last()) == steps


def test_a_term_called_loss_does_not_hide_a_loss_of_several_numbers():
    def objective(belief: Any, key: jax.Array) -> Any:
        return belief.mean**2, {"loss": jnp.sum(belief.mean)}

    with pytest.raises(TypeError, match="The loss of an objective must be one floating number"):
        refine(objective, Gaussian(jnp.ones(3), jnp.zeros(3)), steps=1, key=jr.key(0))
