"""The loops of a refinement: a fixed number of steps, or until it stops by itself.

The second has the state `Running`, whose buffers of fixed size hold every iterate. It can therefore
stop after any step, in one compiled call or in chunks from the host (`Anytime`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from thinkslow.distributions import Objective
from thinkslow.refinement.result import SPENT, Iterates, Refined, Scalar, chosen
from thinkslow.refinement.step import Descent, Held, Rules
from thinkslow.refinement.updates import Update
from thinkslow.settings import Select
from thinkslow.trees import all_finite


def refine(
    objective: Objective,
    belief: Any,
    update: Update | None = None,
    *,
    steps: int,
    key: PRNGKeyArray,
    max_kl: Scalar = math.inf,
    step_kl: Scalar | None = None,
    accept: bool = False,
    judges: int = 1,
    tolerance: Scalar | None = None,
    select: Select = "last",
    record: bool = True,
    fresh_noise: bool = False,
) -> Refined:
    """Minimise `objective` from `belief` in `steps` steps.

    All steps share one draw of random numbers, and `loss` is on that draw. A non-finite loss or
    gradient ends the refinement: the last finite belief is returned and `status` says so. If the
    first belief is already non-finite, it is returned unchanged.

    Args:
        objective: `objective(belief, key)` returns the loss and a dictionary of terms, all scalars.
        belief: the first belief: any pytree of floating arrays with a `kl(other)` in nats.
        update: the update rule; None: plain gradient descent with step size 1.
        steps: the number of steps, 0 or more.
        key: PRNG key of the objective, of the judges and of the update.
        max_kl: nats by which all steps together may move the belief; this and the next six
            arguments are the fields of `Descent`, which describes them.
        step_kl: nats of one step.
        accept: whether a step must lower the objective on fresh random numbers.
        judges: draws that judge a step.
        tolerance: when to stop early.
        select: which iterate to return, the `last` or the `best`.
        fresh_noise: whether each step has noise of its own.
        record: whether to evaluate the objective at the last belief too. Without it, the last loss
            and terms are NaN, and the last belief counts as finite if its arrays are. An update
            that uses neither loss nor gradient (`Update.ignores_objective`) then evaluates nothing.
            `tolerance` and `best` need every loss and always record.

    The step size of the update, `max_kl`, `step_kl` and `tolerance` may be traced: changing them
    does not compile again.

    **Cost:** `steps` gradients, plus one evaluation to `record`; with `tolerance`, `used + 1`
    gradients; with `accept`, also `(steps + 1) * judges` evaluations.

    **Errors:** `ValueError` for negative `steps`, no `judges`, or an unknown `select`;
    `TypeError` for a belief without `kl`, or an objective that returns something else.

    >>> import jax.random as jr
    >>> from thinkslow.distributions import Gaussian
    >>> from thinkslow.refinement import Gradient
    >>> q = Gaussian(jnp.zeros(1), jnp.zeros(1))
    >>> bowl = lambda q, key: (jnp.sum((q.mean - 3.0) ** 2), {})
    >>> refine(bowl, q, Gradient(0.25), steps=3, key=jr.key(0)).loss
    Array([9.       , 2.25     , 0.5625   , 0.140625], dtype=float32)
    """
    descent = Descent(steps, max_kl, step_kl, accept, judges, tolerance, select, fresh_noise)
    return descend(descent.of(objective, update, belief, key), record=record)


def descend(rules: Rules, *, record: bool = True) -> Refined:
    """The refinement by these rules, as `refine` describes it."""
    descent = rules.descent
    if descent.tolerance is not None and descent.steps:
        return finish(rules, advance(rules, begin(rules), descent.steps))
    return _every_step(rules, record=record or descent.select == "best")


def _every_step(rules: Rules, *, record: bool) -> Refined:
    """A fixed number of steps."""
    steps = rules.descent.steps
    evaluates = record or rules.judges is not None or not rules.update.ignores_objective
    differentiate = (
        jax.value_and_grad(rules.objective, has_aux=True)
        if evaluates
        else _without_evaluating(rules.objective)
    )

    def step(carry: tuple, keys: tuple) -> tuple[tuple, tuple]:
        (now, held), (key, noise) = carry, keys
        (loss, terms), gradient = differentiate(now, noise)
        after, held, norm, accepted = rules.step(now, loss, gradient, held, key)
        return (after, held), (now, loss, terms, norm, accepted)

    carry, (beliefs, losses, terms, norms, accepted) = jax.lax.scan(
        step, (rules.first, rules.start()), (rules.keys, rules.noises[:steps])
    )
    finite = jnp.isfinite(losses)
    if record:
        last = rules.objective(carry[0], rules.noises[steps])
        finite = jnp.append(finite, jnp.isfinite(last[0]))
    else:
        last = _nan((losses, terms), ())
        # A step that moved the belief started at a finite loss and gave a finite belief.
        finite = jnp.append(finite, accepted[-1] | finite[-1] if steps else True)
    beliefs, losses, terms = jax.tree.map(
        lambda many, last: jnp.concatenate([many, last[None]]),
        (beliefs, losses, terms),
        (carry[0], *last),
    )
    iterates = Iterates(beliefs, losses, terms, norms, accepted, jnp.asarray(steps, jnp.int32))
    found = chosen(
        iterates,
        rules.first,
        select=rules.descent.select,
        max_kl=rules.descent.max_kl,
        finite=finite,
    )
    if evaluates:
        return found
    return found._replace(loss=_nan(losses), terms=_nan(terms), gradient_norm=_nan(norms))


def _without_evaluating(objective: Objective) -> Callable[..., tuple]:
    """Zeros instead of value and gradient, for an update that uses neither; NaN if the belief is
    non-finite.
    """

    def nothing(belief: Any, key: PRNGKeyArray) -> tuple:
        value = jnp.where(all_finite(belief), 0.0, jnp.nan)
        shapes = jax.eval_shape(objective, belief, key), belief
        return jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype), shapes)

    return nothing


def _nan(tree: Any, shape: tuple[int, ...] | None = None) -> Any:
    return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan, shape=shape), tree)


class Running(NamedTuple):
    """The state of a refinement between two steps."""

    belief: Any
    gradient: Any
    held: Held
    going: Bool[Array, ""]
    iterates: Iterates


def begin(rules: Rules) -> Running:
    """The state before the first step."""
    belief, steps = rules.first, rules.descent.steps
    (loss, terms), gradient = jax.value_and_grad(rules.objective, has_aux=True)(
        belief, rules.noises[0]
    )

    def buffer(value: Array) -> Array:
        return jnp.broadcast_to(value, (steps + 1, *jnp.shape(value)))

    beliefs, losses, all_terms = jax.tree.map(buffer, (belief, loss, terms))
    iterates = Iterates(
        beliefs,
        losses,
        all_terms,
        jnp.zeros(steps, loss.dtype),
        jnp.zeros(steps, bool),
        jnp.zeros((), jnp.int32),
    )
    return Running(belief, gradient, rules.start(), jnp.isfinite(loss), iterates)


def advance(rules: Rules, running: Running, limit: Int[Array, ""] | int) -> Running:
    """Make steps until `limit` is reached, or a step lowers the objective by less than the share
    `tolerance`, or `max_kl` is spent, or no further step is possible."""
    max_kl, tolerance = rules.descent.max_kl, rules.descent.tolerance

    def step(run: Running) -> Running:
        so_far = run.iterates
        index = so_far.used
        before = so_far.losses[index]
        belief, held, norm, accepted = rules.step(
            run.belief, before, run.gradient, run.held, rules.keys[index]
        )
        (loss, terms), gradient = jax.value_and_grad(rules.objective, has_aux=True)(
            belief, rules.noises[index + 1]
        )
        enough = jnp.ones((), bool)
        if tolerance is not None:
            enough = before - loss >= tolerance * jnp.abs(before)
        # After a rejected step a shorter step is possible; further steps need a finite loss.
        again = jnp.where(accepted, enough, rules.judges is not None) & jnp.isfinite(loss)
        again &= belief.kl(rules.first) < SPENT * jnp.asarray(max_kl)
        later = jnp.arange(len(so_far.losses)) > index

        def put(many: Array, one: Array) -> Array:
            """Fill all later entries, so that entries after a stop repeat the last one."""
            return jnp.where(later.reshape(-1, *[1] * (many.ndim - 1)), one, many)

        beliefs, losses, all_terms = jax.tree.map(
            put, (so_far.beliefs, so_far.losses, so_far.terms), (belief, loss, terms)
        )
        iterates = Iterates(
            beliefs,
            losses,
            all_terms,
            so_far.norms.at[index].set(norm),
            so_far.accepted.at[index].set(accepted),
            index + 1,
        )
        return Running(belief, gradient, held, again, iterates)

    last = jnp.minimum(jnp.asarray(limit, jnp.int32), rules.descent.steps)
    return jax.lax.while_loop(lambda run: run.going & (run.iterates.used < last), step, running)


def finish(rules: Rules, running: Running) -> Refined:
    """The result of a refinement that has stopped."""
    descent = rules.descent
    return chosen(running.iterates, rules.first, select=descent.select, max_kl=descent.max_kl)
