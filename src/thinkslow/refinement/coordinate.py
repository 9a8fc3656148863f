"""The best categorical belief for an objective, factor by factor. Slow; used to measure gaps.

A gradient step uses local information about all factors. Here one factor at a time is tried at
each of its classes, with the others fixed, and is set to the best distribution over them. This is
repeated from several starting points. The distance of a refinement from this result is what it
could still gain.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from thinkslow.distributions import Categorical, Objective
from thinkslow.refinement.result import Iterates, Refined, Scalar, chosen
from thinkslow.trees import where

CERTAIN = 40.0
"""A logit so large that the other classes keep only the mix."""


def coordinate(
    objective: Objective,
    belief: Categorical,
    *,
    sweeps: int,
    key: PRNGKeyArray,
    temperature: Scalar = 1.0,
    restarts: int = 0,
) -> Refined:
    """Coordinate descent of `objective` over the factors of `belief`, exact over their classes.

    Let `V_c` be the objective if the factor is certainly `c`. The factor becomes
    softmax(-V / temperature), if this lowers the objective. It is the best belief about the factor,
    given the others, for an objective that is an expected cost plus `temperature` times
    KL(belief || prior): the evidence term with `beta` as the temperature, above its free nats and
    without a mix. For any other objective it is only a proposal. All evaluations share one draw of
    random numbers; the soft latent needs none.

    Args:
        objective: maps a belief and a key to the loss and a dictionary of terms.
        belief: the first belief.
        sweeps: how often to go through all factors, 1 or more.
        key: PRNG key of the objective and of the restarts.
        temperature: see above; 0 tries single classes.
        restarts: further runs that begin at random beliefs, 0 or more.

    Returns the best run. Its iterates are the sweeps, beginning with the first belief; `moved` is
    the KL from `belief`.

    **Cost:** `sweeps * (restarts + 1) * factors * (classes + 1)` evaluations.

    **Errors:** `TypeError` for a belief that is not categorical; `ValueError` for fewer than 1
    sweep or negative `restarts`.

    >>> cost = jnp.array([[3.0, 1.0, 2.0]])
    >>> def free_energy(q, key):
    ...     return jnp.sum(q.probs() * cost) - q.entropy(), {}
    >>> out = coordinate(free_energy, Categorical(jnp.zeros((1, 3))), sweeps=1, key=jr.key(0))
    >>> bool(jnp.allclose(out.belief.probs(), jax.nn.softmax(-cost)))
    True
    """
    if not isinstance(belief, Categorical):
        raise TypeError(
            f"Coordinate descent goes over the classes of a categorical belief; this one is "
            f"{type(belief).__name__}. Use `refine` with many steps."
        )
    if sweeps < 1 or restarts < 0:
        raise ValueError(
            f"`sweeps` must be 1 or more and `restarts` 0 or more; got {sweeps} and {restarts}."
        )
    shape = belief.logits.shape
    noise, begin_key = jr.split(key)
    random = 3 * jr.normal(begin_key, (restarts, *shape), belief.logits.dtype)
    begins = jnp.concatenate([belief.logits[None], random])

    def value(logits: Array) -> Float[Array, ""]:
        return objective(dataclasses.replace(belief, logits=logits), noise)[0]

    def improve(logits: Array, factor: Int[Array, ""]) -> tuple[Array, None]:
        flat = logits.reshape(-1, shape[-1])
        sure = CERTAIN * jnp.eye(shape[-1], dtype=flat.dtype)
        values = jax.vmap(lambda row: value(flat.at[factor].set(row).reshape(shape)))(sure)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        heat = jnp.maximum(jnp.asarray(temperature, values.dtype), 1e-6)
        best = jnp.maximum((jnp.min(values) - values) / heat, -2 * CERTAIN).astype(flat.dtype)
        proposed = flat.at[factor].set(best).reshape(shape)
        return where(value(proposed) < value(logits), proposed, logits), None

    factors = jnp.tile(jnp.arange(math.prod(shape[:-1])), (sweeps, 1))

    def sweep(logits: Array, factors: Array) -> tuple[Array, Array]:
        logits, _ = jax.lax.scan(improve, logits, factors)
        return logits, logits

    def descend(logits: Array) -> Array:
        return jnp.concatenate([logits[None], jax.lax.scan(sweep, logits, factors)[1]])

    ways = jax.vmap(descend)(begins)
    ends = jax.vmap(value)(ways[:, -1])
    way = ways[jnp.argmin(jnp.where(jnp.isfinite(ends), ends, jnp.inf))]
    beliefs = jax.vmap(lambda logits: dataclasses.replace(belief, logits=logits))(way)
    losses, terms = jax.vmap(lambda one: objective(one, noise))(beliefs)
    changed = jnp.any((way[1:] != way[:-1]).reshape(sweeps, -1), -1)
    nothing = jnp.zeros(sweeps, losses.dtype)
    used = jnp.asarray(sweeps, jnp.int32)
    found = Iterates(beliefs, losses, terms, nothing, changed, used)
    return chosen(found, belief, select="last", max_kl=jnp.inf)
