"""Refinement that stops by itself, in one compiled loop or in chunks from the host.

Its state is `Running`: buffers of fixed size hold every iterate, so it can stop after any step, and
`finish` returns the record.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from thinkslow.refinement.result import SPENT, Refined, Scalar, Select, chosen
from thinkslow.refinement.step import Held, Rules


class Running(NamedTuple):
    """The state of a refinement between two steps."""

    belief: Any
    gradient: Any
    held: Held
    used: Int[Array, ""]
    going: Bool[Array, ""]
    beliefs: Any
    losses: Float[Array, " iterates"]
    terms: dict[str, Float[Array, " iterates"]]
    norms: Float[Array, " steps"]
    accepted: Bool[Array, " steps"]


def drawn(noise: PRNGKeyArray, steps: int, fresh: bool) -> Key[Array, " iterates"]:
    """The noise keys of the objective at each iterate: the same key, or one for each."""
    return jr.split(noise, steps + 1) if fresh else jnp.broadcast_to(noise, steps + 1)


def begin(rules: Rules, step_kl: Scalar, *, steps: int, noise: Key[Array, " iterates"]) -> Running:
    """The state before the first of at most `steps` steps."""
    belief = rules.first
    (loss, terms), gradient = jax.value_and_grad(rules.objective, has_aux=True)(belief, noise[0])
    held = Held(rules.update.init(belief), jnp.asarray(step_kl, jnp.float32), rules.judge(belief))

    def buffer(value: Array) -> Array:
        return jnp.broadcast_to(value, (steps + 1, *jnp.shape(value)))

    beliefs, losses, all_terms = jax.tree.map(buffer, (belief, loss, terms))
    return Running(
        belief,
        gradient,
        held,
        jnp.zeros((), jnp.int32),
        jnp.isfinite(loss),
        beliefs,
        losses,
        all_terms,
        jnp.zeros(steps, loss.dtype),
        jnp.zeros(steps, bool),
    )


def advance(
    rules: Rules,
    running: Running,
    limit: Int[Array, ""] | int,
    *,
    tolerance: Scalar | None,
    noise: Key[Array, " iterates"],
    keys: Key[Array, " steps"],
) -> Running:
    """Make steps until `limit` is reached, or a step lowers the objective by less than the share
    `tolerance` (None: no such limit), or `max_kl` is spent, or no further step is possible."""

    def step(run: Running) -> Running:
        index = run.used
        before = run.losses[index]
        belief, held, norm, accepted = rules.step(
            run.belief, before, run.gradient, run.held, keys[index]
        )
        (loss, terms), gradient = jax.value_and_grad(rules.objective, has_aux=True)(
            belief, noise[index + 1]
        )
        enough = jnp.ones((), bool)
        if tolerance is not None:
            enough = before - loss >= tolerance * jnp.abs(before)
        # After a rejected step a shorter step is possible; further steps need a finite loss.
        again = jnp.where(accepted, enough, rules.judges is not None) & jnp.isfinite(loss)
        again &= belief.kl(rules.first) < SPENT * jnp.asarray(rules.max_kl)
        later = jnp.arange(len(run.losses)) > index

        def put(many: Array, one: Array) -> Array:
            """Fill all later entries, so that entries after a stop repeat the last one."""
            return jnp.where(later.reshape(-1, *[1] * (many.ndim - 1)), one, many)

        beliefs, losses, all_terms = jax.tree.map(
            put, (run.beliefs, run.losses, run.terms), (belief, loss, terms)
        )
        return Running(
            belief,
            gradient,
            held,
            index + 1,
            again,
            beliefs,
            losses,
            all_terms,
            run.norms.at[index].set(norm),
            run.accepted.at[index].set(accepted),
        )

    last = jnp.minimum(jnp.asarray(limit, jnp.int32), len(keys))
    return jax.lax.while_loop(lambda run: run.going & (run.used < last), step, running)


def finish(rules: Rules, running: Running, select: Select) -> Refined:
    return chosen(
        running.beliefs,
        rules.first,
        running.losses,
        running.terms,
        running.norms,
        running.accepted,
        running.used,
        select=select,
        max_kl=rules.max_kl,
    )


def adaptive(
    rules: Rules,
    step_kl: Scalar,
    *,
    steps: int,
    tolerance: Scalar,
    noise: Key[Array, " iterates"],
    keys: Key[Array, " steps"],
    select: Select,
) -> Refined:
    """At most `steps` steps in one compiled loop.

    **Cost:** `used + 1` gradients; under `vmap`, those of the slowest member of the batch.
    """
    running = begin(rules, step_kl, steps=steps, noise=noise)
    running = advance(rules, running, steps, tolerance=tolerance, noise=noise, keys=keys)
    return finish(rules, running, select)
