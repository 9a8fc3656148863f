"""Refinement that stops by itself, in one compiled loop or in chunks from the host.

Its state is `Running`: buffers of fixed size hold every iterate, so it can stop after any step, and
`finish` returns the record.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from thinkslow.refinement.result import SPENT, Iterates, Refined, chosen
from thinkslow.refinement.step import Held, Rules


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
