"""The cost of a belief, the best belief of its family, and a lower bound for all beliefs.

With a prior p(z), a cost c(z), such as -log p(x | z), and a weight beta of the KL, a belief costs

    L(q) = E_q c(z) + beta KL(q || p).

The best of all distributions is proportional to p(z) exp(-c(z) / beta), and costs

    F = -beta log E_p exp(-c(z) / beta),

with beta 1 the negative log-evidence. Beliefs are of one family (independent factors, or a
diagonal Gaussian): L(q) - L(q*) of its best member q* is what the encoder loses, the amortisation
gap; L(q*) - F is what the family loses, the approximation gap. F is approached from above by

    F_K = -beta E log 1/K sum_k p(z_k) exp(-c(z_k) / beta) / q(z_k),    z_k ~ q,

which falls with K, and for K = 1 is L(q). Nothing here knows a model; all is for one example.

**References:** Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, arXiv
1509.00519; Cremer, Li and Duvenaud, Inference Suboptimality in Variational Autoencoders, arXiv
1801.03558.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Belief, Categorical, Gaussian
from thinkslow.refinement import adam, refine

Cost: TypeAlias = Callable[[Array, PRNGKeyArray], Float[Array, ""]]

CHUNK = 64
"""Number of latents whose costs are computed together, so that memory does not grow with their
number.
"""
GRADIENTS = 60
"""Number of gradient steps in a sweep, for a Gaussian belief."""
FIRST_STEP = 0.1
"""Step size of the first of these sweeps; each further sweep halves it."""


class Target(NamedTuple):
    """The cost by which a belief is judged."""

    prior: Belief
    beta: Float[Array, ""]
    """Weight of the KL from the prior, above 0."""
    cost: Cost
    """Cost of a latent, in nats. It may use its key for random numbers."""


class Found(NamedTuple):
    """The best belief that was found."""

    belief: Belief
    path: Belief
    """The path to it, one belief for each sweep; after the best belief it is repeated."""
    begin: Array
    """The index of the starting belief from which it was found."""


class Bound(NamedTuple):
    """The importance-weighted bound for each number of samples."""

    values: Float[Array, " sizes"]
    """F_K in nats, never increasing."""
    effective: Float[Array, ""]
    """Effective number of all samples, 1 / sum(w^2); near 1, the bound depends on a single
    sample.
    """


def refusal(belief: Any) -> str | None:
    """Why the best belief of this kind cannot be searched for; None if it can."""
    if isinstance(belief, Categorical | Gaussian):
        return None
    return (
        f"the best {type(belief).__name__} is not known how to find: its latent must be "
        "categorical or Gaussian"
    )


def costs(
    target: Target, belief: Belief, *, draws: int, key: PRNGKeyArray
) -> tuple[Array, Float[Array, " draws"]]:
    """Latents of a belief, and the cost of each. Two beliefs with the same key share the noise."""

    def one(key: PRNGKeyArray) -> tuple[Array, Array]:
        latent_key, cost_key = jr.split(key)
        latent = belief.sample(key=latent_key)
        return latent, target.cost(latent, cost_key)

    return jax.lax.map(one, jr.split(key, draws), batch_size=min(CHUNK, draws))


def loss(target: Target, belief: Belief, *, draws: int, key: PRNGKeyArray) -> Float[Array, ""]:
    """L(q) in nats. The cost is a mean over `draws` latents; the KL is exact.

    **Cost:** `draws` costs.
    """
    found = costs(target, belief, draws=draws, key=key)[1]
    return jnp.mean(found) + target.beta * belief.kl(target.prior)


def importance_bound(
    target: Target, belief: Belief, *, sizes: Sequence[int], key: PRNGKeyArray
) -> Bound:
    """F_K for each K of `sizes`, all from the same latents of `belief`; their number is the largest
    size.

    Smaller K are means over groups, so no bound exceeds a bound of fewer samples. The cost must
    depend on one latent only.

    Args:
        target: the cost by which beliefs are judged.
        belief: the belief from which latents are drawn; a better belief needs fewer latents.
        sizes: numbers of samples, each a divisor of the next.
        key: PRNG key of the draws.

    **Cost:** as many costs as the largest size.

    **Errors:** `ValueError` for sizes that do not divide each other.
    """
    if (
        not sizes
        or sizes[0] < 1
        or any(more % few or more <= few for few, more in itertools.pairwise(sizes))
    ):
        raise ValueError(
            f"`sizes` must be whole numbers, each a divisor of the next; got {list(sizes)}."
        )
    latents, found = costs(target, belief, draws=sizes[-1], key=key)

    def ratio(latent: Array) -> Array:
        return belief.log_prob(latent) - target.prior.log_prob(latent)

    weights = -(found / target.beta + jax.vmap(ratio)(latents))
    values = [
        -target.beta * jnp.mean(jax.nn.logsumexp(weights.reshape(-1, size), -1) - jnp.log(size))
        for size in sizes
    ]
    shares = jax.nn.log_softmax(weights)
    return Bound(jnp.stack(values), jnp.exp(-jax.nn.logsumexp(2 * shares)))


def best(
    target: Target,
    begins: Sequence[Belief],
    *,
    sweeps: int,
    draws: int,
    judges: int,
    key: PRNGKeyArray,
) -> Found:
    """The belief with the lowest L that coordinate descent finds from several starting beliefs.

    For a categorical belief, a sweep sets every factor in turn to its best distribution with the
    others fixed: q_i(c) is proportional to p_i(c) exp(-V_c / beta), where V_c is the mean cost over
    latents of the other factors, with this factor at c. For a Gaussian belief there is no such
    step; a sweep is `GRADIENTS` steps of Adam on means and scales. Every step draws new noise. The
    best sweep over all starting beliefs is chosen on new draws; the starting beliefs themselves are
    candidates.

    Args:
        target: the cost by which beliefs are judged.
        begins: the starting beliefs, of one kind and shape.
        sweeps: number of sweeps through all factors.
        draws: number of latents per cost within a sweep.
        judges: number of latents per cost for the final judgement.
        key: PRNG key of everything random.

    The result may be worse than the best belief. Except for noise, gaps to it are therefore never
    too large.

    **Cost:** for each starting belief `sweeps * factors * classes * draws` costs, or `sweeps *
    GRADIENTS * draws` gradients; `judges` costs for each sweep.

    **Errors:** `TypeError` for a belief that is neither categorical nor Gaussian.
    """
    begins = [unmixed(belief) for belief in begins]
    if (reason := refusal(begins[0])) is not None:
        raise TypeError(f"{reason[0].upper()}{reason[1:]}.")
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *begins)
    sweep_key, judge_key = jr.split(key)

    def sweep(belief: Any, given: tuple[PRNGKeyArray, Array]) -> tuple[Belief, Belief]:
        key, size = given
        if isinstance(belief, Categorical):
            found = _each_factor(target, belief, draws, key)
        else:
            found = _gradients(target, belief, draws, size, key)
        return found, found

    sizes = FIRST_STEP * 0.5 ** jnp.arange(sweeps, dtype=jnp.float32)

    def descend(belief: Belief) -> Belief:
        way = jax.lax.scan(sweep, belief, (jr.split(sweep_key, sweeps), sizes))[1]
        return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), belief, way)

    ways = jax.lax.map(descend, stacked)

    def judged(belief: Belief) -> Array:
        return loss(target, belief, draws=judges, key=judge_key)

    losses = jax.lax.map(lambda way: jax.lax.map(judged, way), ways)
    losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
    begin, at = jnp.divmod(jnp.argmin(losses.reshape(-1)), sweeps + 1)
    index = jnp.minimum(jnp.arange(sweeps + 1), at)
    path = jax.tree.map(lambda x: x[begin][index], ways)
    return Found(jax.tree.map(lambda x: x[-1], path), path, begin)


def _each_factor(target: Target, belief: Categorical, draws: int, key: PRNGKeyArray) -> Categorical:
    """One sweep of coordinate descent."""
    shape = belief.logits.shape
    classes = shape[-1]
    prior = target.prior
    assert isinstance(prior, Categorical)  # the sweep for this kind of belief
    log_prior = prior.log_probs().reshape(-1, classes)
    codes = jnp.eye(classes, dtype=belief.logits.dtype)

    def improve(logits: Array, given: tuple[Array, PRNGKeyArray]) -> tuple[Array, None]:
        factor, key = given
        now = dataclasses.replace(belief, logits=logits.reshape(shape))

        def values(key: PRNGKeyArray) -> Array:
            latent_key, cost_key = jr.split(key)
            latent = now.sample(key=latent_key).reshape(-1, classes)

            def at(code: Array) -> Array:
                return target.cost(latent.at[factor].set(code).reshape(shape), cost_key)

            return jax.vmap(at)(codes)

        found = jnp.mean(jax.vmap(values)(jr.split(key, draws)), 0)
        found = jnp.where(jnp.isfinite(found), found, jnp.inf)
        least = jnp.min(found)
        apart = jnp.where(jnp.isfinite(least), found - least, 0.0)
        chances = jax.nn.softmax(log_prior[factor] - apart / target.beta)
        row = _raw(_no_less(chances, belief.mix / classes), belief.mix)
        return logits.at[factor].set(row.astype(logits.dtype)), None

    factors = jnp.arange(log_prior.shape[0])
    given = factors, jr.split(key, len(factors))
    logits = jax.lax.scan(improve, belief.logits.reshape(-1, classes), given)[0]
    return dataclasses.replace(belief, logits=logits.reshape(shape))


def _no_less(chances: Float[Array, " classes"], least: float) -> Float[Array, " classes"]:
    """The nearest distribution in KL with all probabilities at least `least`: smaller ones are
    raised to it, the others shrink in proportion.
    """
    if not least:
        return chances

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = (low + high) / 2
        over = jnp.sum(jnp.maximum(middle * chances, least)) > 1
        return (jnp.where(over, low, middle), jnp.where(over, middle, high)), None

    ends = jnp.zeros((), chances.dtype), jnp.ones((), chances.dtype)
    (share, _), _ = jax.lax.scan(halve, ends, None, length=30)
    lifted = jnp.maximum(share * chances, least)
    return lifted / jnp.sum(lifted)


def _gradients(
    target: Target, belief: Belief, draws: int, size: Array, key: PRNGKeyArray
) -> Belief:
    """One sweep of gradient steps."""

    def objective(belief: Belief, key: PRNGKeyArray) -> tuple[Array, dict[str, Array]]:
        def one(key: PRNGKeyArray) -> Array:
            latent_key, cost_key = jr.split(key)
            return target.cost(belief.sample(key=latent_key), cost_key)

        found = jax.vmap(one)(jr.split(key, draws))
        return jnp.mean(found) + target.beta * belief.kl(target.prior), {}

    return refine(
        objective, belief, adam(size), steps=GRADIENTS, key=key, record=False, fresh_noise=True
    ).belief


def unmixed(belief: Any) -> Any:
    """The same distribution with raw logits and a separate uniform share.

    With any logits it stays in the family: no class is less likely than the uniform share allows.
    """
    if not isinstance(belief, Categorical) or not belief.mixed:
        return belief
    return Categorical(_raw(belief.probs(), belief.mix), belief.mix)


def _raw(chances: Float[Array, "*factors classes"], mix: float) -> Float[Array, "*factors classes"]:
    """Logits that give these probabilities together with a share `mix` of the uniform
    distribution.
    """
    apart = (chances - mix / chances.shape[-1]) / (1 - mix)
    return jnp.log(jnp.maximum(apart, 1e-30))
