"""A fixed number of steps, or the adaptive loop: one compiled call."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from thinkslow.refinement.adaptive import adaptive, drawn
from thinkslow.refinement.result import Refined, Scalar, Select, chosen
from thinkslow.refinement.step import Held, Objective, Rules, check, checked, judging
from thinkslow.refinement.updates import Gradient, Update
from thinkslow.trees import all_finite


def refine(
    objective: Objective,
    belief: Any,
    update: Update | None = None,
    *,
    steps: int,
    key: PRNGKeyArray,
    max_kl: Scalar = jnp.inf,
    step_kl: Scalar | None = None,
    accept: bool = False,
    judges: int = 1,
    tolerance: Scalar | None = None,
    select: Select = "last",
    record: bool = True,
    fresh_noise: bool = False,
) -> Refined:
    """Descend `objective` from `belief` for `steps` steps.

    All steps share one draw of random numbers, and `loss` is on that draw. A loss or gradient
    that is not finite ends the descent: the last good belief comes back and `status` says so. If
    the first belief is already bad, it comes back as it was.

    Args:
        objective: `objective(belief, key)` gives the loss and a dictionary of terms, each a scalar.
        belief: where to begin: any pytree of floating arrays with a `kl(other)` in nats.
        update: where a step goes; None: plain gradient descent of step size 1.
        steps: the number of steps, 0 or more.
        key: random numbers of the objective, of the judges and of the update.
        max_kl: the most that all steps together may move the belief, KL(new || first) in nats. A
            longer step is shortened along its own line.
        step_kl: the most that one step may move it, KL(new || old) in nats; None: as `update`
            says, for most updates `max_kl / steps**2`.
        accept: take a step only if the objective falls on random numbers that it has not seen;
            a refused step halves `step_kl`.
        judges: draws that judge a step, the same at every step: on one, it must fall; of
            several, the mean must fall by two standard errors, so that a step that is worse in
            expectation is rarely taken.
        tolerance: stop after a step that lowers the objective by less than this share of it, and
            once `max_kl` is spent; `used` counts the steps. None: make every step.
        fresh_noise: draw the objective's noise anew for each step, not once for all of them; each
            iterate's loss is then on a draw of its own.
        select: which iterate to return, the `last` finite one or the `best`, of least loss.
        record: whether to evaluate the objective at the last belief too. Without, its loss and
            terms are NaN, and it counts as finite if its arrays are; an update that looks at
            neither loss nor gradient (`Update.blind`) then evaluates nothing. `tolerance` and
            `best` need every loss and record always.

    The step size of the update, `max_kl`, `step_kl` and `tolerance` may be traced: changing them
    does not compile again.

    **Cost:** `steps` gradients and, to `record`, one evaluation; or `used + 1` gradients with
    `tolerance`; with `accept`, `(steps + 1) * judges` evaluations more.

    **Errors:** `ValueError` for negative `steps`, no `judges`, or an unknown `select`;
    `TypeError` for a belief without `kl`, or an objective that returns something else.

    >>> from thinkslow.distributions import Gaussian
    >>> from thinkslow.refinement import Gradient
    >>> q = Gaussian(jnp.zeros(1), jnp.zeros(1))
    >>> bowl = lambda q, key: (jnp.sum((q.mean - 3.0) ** 2), {})
    >>> refine(bowl, q, Gradient(0.25), steps=3, key=jr.key(0)).loss
    Array([9.       , 2.25     , 0.5625   , 0.140625], dtype=float32)
    """
    check(belief, steps, judges, select)
    update = update or Gradient()
    if step_kl is None:
        step_kl = update.step_kl(max_kl, steps)
    noise, judge_key, step_key = jr.split(key, 3)
    objective = checked(objective)
    rules = Rules(objective, update, belief, max_kl, judging(judge_key, judges) if accept else None)
    keys = jr.split(step_key, steps)
    if tolerance is not None and steps:
        return adaptive(
            rules, step_kl, steps=steps, tolerance=tolerance,
            noise=drawn(noise, steps, fresh_noise), keys=keys, select=select,
        )  # fmt: skip
    record |= select == "best"
    seen = record or accept or not update.blind
    differentiate = jax.value_and_grad(objective, has_aux=True) if seen else _unseen(objective)

    noises = drawn(noise, steps, fresh_noise)

    def step(carry: tuple, keys: tuple) -> tuple[tuple, tuple]:
        (now, held), (key, noise) = carry, keys
        (loss, terms), gradient = differentiate(now, noise)
        after, held, norm, accepted = rules.step(now, loss, gradient, held, key)
        return (after, held), (now, loss, terms, norm, accepted)

    held = Held(update.init(belief), jnp.asarray(step_kl, jnp.float32), rules.judge(belief))
    carry, (beliefs, losses, terms, norms, accepted) = jax.lax.scan(
        step, (belief, held), (keys, noises[:steps])
    )
    finite = jnp.isfinite(losses)
    if record:
        last = objective(carry[0], noises[steps])
        finite = jnp.append(finite, jnp.isfinite(last[0]))
    else:
        last = _nan((losses, terms), ())
        # A step that moved the belief led from a finite loss to a finite belief.
        finite = jnp.append(finite, accepted[-1] | finite[-1] if steps else True)
    beliefs, losses, terms = jax.tree.map(
        lambda many, last: jnp.concatenate([many, last[None]]),
        (beliefs, losses, terms), (carry[0], *last),
    )  # fmt: skip
    used = jnp.asarray(steps, jnp.int32)
    found = chosen(
        beliefs, belief, losses, terms, norms, accepted, used, select=select, max_kl=max_kl,
        finite=finite,
    )  # fmt: skip
    if seen:
        return found
    return found._replace(loss=_nan(losses), terms=_nan(terms), gradient_norm=_nan(norms))


def _unseen(objective: Objective) -> Callable[..., tuple]:
    """Zeros in place of value and gradient, for an update that looks at neither; NaN where the
    belief is not finite."""

    def nothing(belief: Any, key: PRNGKeyArray) -> tuple:
        value = jnp.where(all_finite(belief), 0.0, jnp.nan)
        shapes = jax.eval_shape(objective, belief, key), belief
        return jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype), shapes)

    return nothing


def _nan(tree: Any, shape: tuple[int, ...] | None = None) -> Any:
    return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan, shape=shape), tree)
