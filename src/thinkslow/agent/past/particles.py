"""Several samples of the latent, weighted by how well they predict the observations.

An RSSM carries one sample of its latent; other possibilities are lost.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from thinkslow.distributions import Belief
from thinkslow.worldmodel import Moment, Observation, State, WorldModel, surprise_at


class Cloud(eqx.Module):
    """A belief as weighted samples; the axis `particles` leads in every array."""

    states: State
    log_weights: Float[Array, "*batch particles"]
    """Normalised."""


class Mixture(eqx.Module):
    """The belief of a cloud before one sample was drawn from each particle's own."""

    beliefs: Belief
    log_weights: Float[Array, "*batch particles"]
    """Normalised; the present observation counts."""


def weighted(
    model: WorldModel,
    log_weights: Float[Array, " particles"],
    moments: Moment,
    proposals: Belief,
    states: State,
    observation: Observation,
) -> Float[Array, " particles"]:
    """The log-weights after an observation, normalised.

    A particle whose latent was drawn from `proposals` gains log p(x | h, z) + log p(z | h)
    - log q(z), which estimates log p(x | h) without bias, and equals it if q is exact. A non-finite
    observation, or one that no particle can explain, does not change the weights.

    **Cost:** one decoding for each particle.

    The model must have a decoder.
    """

    def gain(moment: Moment, proposal: Belief, state: State) -> Float[Array, ""]:
        ratio = moment.prior.log_prob(state.latent) - proposal.log_prob(state.latent)
        return ratio - surprise_at(model, moment, state.latent, observation)

    total = log_weights + jax.vmap(gain)(moments, proposals, states)
    informative = jnp.isfinite(jax.nn.logsumexp(total))
    return jnp.where(informative, jax.nn.log_softmax(total), log_weights)


def resampled(cloud: Cloud, *, key: PRNGKeyArray) -> Cloud:
    """The same particles, or resampled ones with equal weights if the effective sample size,
    1 / sum(w^2), is below half their number.
    """
    count = cloud.log_weights.shape[-1]
    chosen = jax.tree.map(lambda x: x[systematic(cloud.log_weights, key=key)], cloud.states)
    even = Cloud(chosen, jnp.full_like(cloud.log_weights, -jnp.log(count)))
    few = effective(cloud.log_weights) < count / 2
    return jax.tree.map(lambda new, old: jnp.where(few, new, old), even, cloud)


def effective(log_weights: Float[Array, " particles"]) -> Float[Array, ""]:
    """The effective sample size of normalised weights.

    >>> round(float(effective(jnp.log(jnp.array([0.5, 0.5, 1e-9])))), 3)
    2.0
    """
    return jnp.exp(-jax.nn.logsumexp(2 * log_weights))


def systematic(
    log_weights: Float[Array, " particles"], *, key: PRNGKeyArray
) -> Int[Array, " particles"]:
    """Indices by systematic resampling: each is drawn `particles * weight` times on average, with a
    deviation below 1. One uniform number is used for all.
    """
    count = log_weights.shape[-1]
    teeth = (jnp.arange(count, dtype=log_weights.dtype) + jr.uniform(key)) / count
    ends = jnp.cumsum(jnp.exp(log_weights))
    # Because of rounding, the last cumulative weight may be below the last point of the comb.
    return jnp.minimum(jnp.searchsorted(ends, teeth, side="right"), count - 1)
