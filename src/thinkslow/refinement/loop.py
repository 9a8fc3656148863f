"""A fixed number of steps, or the adaptive loop: one compiled call."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from thinkslow.refinement.adaptive import adaptive
from thinkslow.refinement.step import (
    Held,
    Objective,
    Refined,
    Rules,
    Select,
    check,
    choose,
    judging,
)
from thinkslow.refinement.updates import Direction, Scalar


def refine(
    objective: Objective,
    belief: Any,
    update: Direction,
    *,
    steps: int,
    key: PRNGKeyArray,
    trust: Scalar = jnp.inf,
    budget: Scalar = jnp.inf,
    accept: bool = False,
    judges: int = 1,
    tolerance: Scalar | None = None,
    select: Select = "last",
) -> Refined:
    """Descend `objective` from `belief` for `steps` steps.

    A step moves the belief by at most `trust` nats, KL(new || old), and never further than
    `budget` nats from where it began, KL(new || first): a longer one is shortened along its own
    line. With `accept`, a step is taken only if the objective falls on random numbers that it
    has not seen: on one draw, or in the mean of several `judges` by two standard errors, so that
    a step that is worse in expectation is rarely taken; a refused one halves the trust. Judges
    are the same at every step. All steps share one draw of random numbers, and `loss` is on that
    draw. With a `tolerance`, the descent stops after a step that lowers the objective by less
    than that share of it, and once the budget is spent; `used` counts the steps. `select`
    returns the last finite iterate or the one of least loss.

    A loss or gradient that is not finite ends the descent: the last good belief comes back and
    `finite`, or for a gradient `gradient_norm`, says so. If the first belief is already bad, it
    comes back as it was. `step_size`, `trust`, `budget` and `tolerance` may be traced: changing
    them does not recompile.

    **Cost:** `steps` gradients and one evaluation, or `used + 1` gradients with `tolerance`;
    with `accept`, `(steps + 1) * judges` evaluations more.

    **Errors:** `ValueError` for negative `steps`, no `judges`, or an unknown `select`.

    >>> from thinkslow.distributions import Gaussian
    >>> from thinkslow.refinement import Gradient
    >>> q = Gaussian(jnp.zeros(1), jnp.zeros(1))
    >>> bowl = lambda q, key: (jnp.sum((q.mean - 3.0) ** 2), {})
    >>> refine(bowl, q, Gradient(0.25), steps=3, key=jr.key(0)).loss
    Array([9.       , 2.25     , 0.5625   , 0.140625], dtype=float32)
    """
    check(steps, judges, select)
    noise, judge_key, step_key = jr.split(key, 3)
    rules = Rules(objective, update, belief, budget, judging(judge_key, judges) if accept else None)
    keys = jr.split(step_key, steps)
    if tolerance is not None and steps:
        return adaptive(
            rules, trust, steps=steps, tolerance=tolerance, noise=noise, keys=keys, select=select
        )
    differentiate = jax.value_and_grad(objective, has_aux=True)

    def step(carry: tuple, key: PRNGKeyArray) -> tuple[tuple, tuple]:
        now, held = carry
        (loss, terms), gradient = differentiate(now, noise)
        after, held, norm, accepted = rules.step(now, loss, gradient, held, key)
        return (after, held), (now, loss, terms, norm, accepted)

    held = Held(update.init(belief), jnp.asarray(trust, jnp.float32), rules.judge(belief))
    carry, (beliefs, losses, terms, norms, accepted) = jax.lax.scan(step, (belief, held), keys)
    last_loss, last_terms = objective(carry[0], noise)
    beliefs, losses, terms = jax.tree.map(
        lambda many, last: jnp.concatenate([many, last[None]]),
        (beliefs, losses, terms), (carry[0], last_loss, last_terms),
    )  # fmt: skip
    used = jnp.asarray(steps, jnp.int32)
    return choose(beliefs, belief, losses, terms, norms, accepted, used, select)
