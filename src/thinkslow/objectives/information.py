"""Information gains between beliefs: exact or bounded, non-negative, in nats."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from thinkslow.distributions import Belief, Categorical
from thinkslow.heads import Bernoulli


def state_information_gain(posterior: Belief, prior: Belief) -> Float[Array, ""]:
    """How much an observation would move the belief: KL(posterior || prior), in nats.

    Exact, non-negative, summed over factors, mixed as the model was trained. No free-nats floor
    is applied: that belongs to training.

    Args:
        posterior: the belief after the observation.
        prior: the belief before it, of the same kind.

    >>> from thinkslow.distributions import Categorical
    >>> even, sure = Categorical(jnp.zeros((1, 2))), Categorical(jnp.array([[40.0, -40.0]]))
    >>> float(state_information_gain(sure, even))       # one bit
    0.6931471...
    """
    return posterior.kl(prior)


def parameter_information_gain(members: Any) -> Float[Array, ""]:
    """How much a value would tell which of M equally plausible members is right, in nats.

    For a `Categorical` (or `Bernoulli`) this is H(mean_m p_m) - mean_m H(p_m), exact in each
    factor and summed over the factors: 0 for identical members, at most log M per factor. For any
    other belief it is the upper bound -mean_i log mean_j exp(-KL(p_i || p_j)): 0 for identical
    members, at most log M in all.

    Args:
        members: one distribution whose arrays have a leading axis of length M.

    **References:** Kolchinsky and Tracey, Estimating Mixture Entropy with Pairwise Distances,
    Entropy 19(7), 2017.

    >>> opposed = Categorical(jnp.array([[[40.0, -40.0]], [[-40.0, 40.0]]]))   # two members
    >>> float(parameter_information_gain(opposed))      # a value tells them apart: one bit
    0.6931471...
    """
    if isinstance(members, Bernoulli):
        return parameter_information_gain(
            Categorical(jnp.stack([jnp.zeros_like(members.logit), members.logit], -1))
        )
    if isinstance(members, Categorical):
        log_probs = members.log_probs()
        mixture = jax.nn.logsumexp(log_probs, axis=0) - jnp.log(
            jnp.asarray(len(log_probs), log_probs.dtype)
        )
        gain = jnp.sum(members.probs() * (log_probs - mixture)) / len(log_probs)
        return jnp.maximum(gain, 0.0)  # rounding may give a value below 0
    apart = jax.vmap(lambda one: jax.vmap(one.kl)(members))(members)
    log_count = jnp.log(jnp.asarray(len(apart), apart.dtype))
    return jnp.mean(log_count - jax.nn.logsumexp(-apart, axis=-1))
