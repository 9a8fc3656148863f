"""Exact quantities of a finite problem, by sums over all cases."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Float, Int

from thinkslow.toy.problem import Problem


class Filtered(NamedTuple):
    """The exact beliefs along one episode."""

    priors: Float[Array, "time states"]
    """p(s_t | x_<t)."""
    beliefs: Float[Array, "time states"]
    """p(s_t | x_≤t)."""
    log_evidence: Float[Array, " time"]
    """log p(x_t | x_<t)."""


class Information(NamedTuple):
    """The entropy of an observation x, and its three parts, in nats."""

    sig: Float[Array, ""]
    """I(x; z): its information about the state."""
    pig: Float[Array, ""]
    """I(x; theta | z): its information about the parameters."""
    ambiguity: Float[Array, ""]
    """E H(x | z, theta): the remaining noise."""
    entropy: Float[Array, ""]
    """H(x), computed separately."""


def filtered(
    problem: Problem, actions: Int[Array, " time"], symbols: Int[Array, " time"]
) -> Filtered:
    """The exact filter: the sum over all paths, one step at a time. `actions[0]` is ignored."""

    def step(belief: Array, inputs: tuple) -> tuple[Array, tuple[Array, Array, Array]]:
        time, action, symbol = inputs
        prior = jnp.where(time == 0, problem.start, belief @ problem.dynamics[action])
        joint = prior * problem.emission[:, symbol]
        belief = joint / jnp.sum(joint)
        return belief, (prior, belief, jnp.log(jnp.sum(joint)))

    inputs = (jnp.arange(len(symbols)), actions, symbols)
    return Filtered(*jax.lax.scan(step, problem.start, inputs)[1])


def information(
    prior: Float[Array, " states"], emissions: Float[Array, "members states symbols"]
) -> Information:
    """Each part of H(x) = I(x; z) + I(x; theta | z) + E H(x | z, theta), summed on its own.

    z ~ `prior`, theta uniform over the members and independent of z, x ~ p(x | z, theta).
    """
    mean = jnp.mean(emissions, 0)
    shown = prior @ mean
    return Information(
        sig=jnp.sum(prior[:, None] * mean * jnp.log(mean / shown)),
        pig=jnp.sum(prior[:, None] * jnp.mean(emissions * jnp.log(emissions / mean), 0)),
        ambiguity=-jnp.sum(prior[:, None] * jnp.mean(xlogy(emissions, emissions), 0)),
        entropy=-jnp.sum(xlogy(shown, shown)),
    )
