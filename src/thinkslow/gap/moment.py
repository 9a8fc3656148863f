"""The gaps of one moment: the costs of its beliefs, under the frame and under later frames.

The memory is fixed: all beliefs of a moment are about one latent, given the agent's carry. Two
costs of that latent are used: of the present frame; and of the present frame together with the
later frames, which the model's own encoder explains one after the other. The programs are compiled
once for a model. Each moment is measured separately, so its numbers do not depend on other moments.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from thinkslow.distributions import Belief, Categorical
from thinkslow.gap.bounds import (
    Bound,
    Found,
    Target,
    best,
    costs,
    importance_bound,
    loss,
    unmixed,
)
from thinkslow.needs import DECODER, TRAINED_BETA, unmet
from thinkslow.worldmodel import Moment, Observation, State, perceive, surprise

JUDGES = 64
"""Number of latents for choosing the best of several beliefs."""
DRAWS = 512
"""Number of latents in the mean of a belief's cost."""
LATER = 2
"""Divisor of `DRAWS`, of `JUDGES` and of the draws of a sweep, if the cost is that of several
frames.
"""
WIDE = 3.0
"""Standard deviation of the logits of random starting beliefs."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """The effort of the search. Every number is part of a compiled program."""

    sizes: tuple[int, ...]
    """Samples of the importance-weighted bound, each a divisor of the next."""
    sweeps: int
    """Number of sweeps through all factors, from every starting belief."""
    restarts: int
    """Number of random starting beliefs, besides the encoder's belief and the prior."""
    draws: int
    """Number of latents in the mean of a cost, within a sweep."""


class Later(NamedTuple):
    """The later decisions and frames; leading axis: decisions."""

    actions: Float[Array, "lag action"]
    observations: Observation


class Scene(NamedTuple):
    """A moment whose gaps are measured."""

    moment: Moment
    """Memory, prior and the encoder's belief."""
    observation: Observation
    later: Later


class Searched(NamedTuple):
    """The best beliefs of a moment."""

    best: Found
    """For the present frame."""
    best_later: Found
    """For the present and the later frames."""
    bound: Bound
    """Under the present frame, from latents of the best belief."""


class Scores(NamedTuple):
    """The costs of beliefs, in nats; leading axis: beliefs."""

    loss: Float[Array, " beliefs"]
    """For the present frame."""
    kl: Float[Array, " beliefs"]
    """From the prior."""
    loss_later: Float[Array, " beliefs"]
    """For the present and the later frames."""
    next: Float[Array, " beliefs"]
    """-log p(next frame): of latents of the belief, the action that was taken, and the prior that
    it leads to. Lower is better."""


def refusal(model: Any, beta: float | None) -> str | None:
    """Why a model's gaps cannot be measured; None if they can.

    Args:
        model: a `WorldModel`.
        beta: weight of the KL; None: as the model was trained.
    """
    if (reason := unmet(model, (DECODER,))) is not None:
        return "it has no decoder, which is needed for the cost of a belief"
    if beta is None and (reason := unmet(model, (TRAINED_BETA,))) is not None:
        return f"{reason.partition('. ')[0]}. Give `beta`, such as 1"
    return None


@eqx.filter_jit
def perceived(
    model: Any, state: State, action: Array, is_first: Bool[Array, ""], observation: Observation
) -> Moment:
    """Memory, prior and the encoder's belief."""
    return perceive(model, state, action, is_first, observation)


@eqx.filter_jit
def searched(
    model: Any, scene: Scene, beta: Array, key: PRNGKeyArray, *, effort: Effort
) -> Searched:
    """The best beliefs, and the bound from the first of them.

    **Cost:** see `best`, and as many decodings as the largest of the sizes.
    """
    keys, moment = jr.split(key, 4), scene.moment
    own = target(model, scene, beta)
    random = _random(unmixed(moment.prior), effort.restarts, keys[0])
    begins = [moment.posterior, moment.prior, *random]
    found = best(own, begins, sweeps=effort.sweeps, draws=effort.draws, judges=JUDGES, key=keys[1])
    bound = importance_bound(own, found.belief, sizes=effort.sizes, key=keys[2])
    both = target(model, scene, beta, with_later=True)
    found_later = best(
        both,
        [found.belief, moment.posterior],
        sweeps=effort.sweeps,
        draws=max(1, effort.draws // LATER),
        judges=JUDGES // LATER,
        key=keys[3],
    )
    return Searched(found, found_later, bound)


@eqx.filter_jit
def scored(model: Any, scene: Scene, beliefs: Belief, beta: Array, key: PRNGKeyArray) -> Scores:
    """The costs of several beliefs, all on the same random numbers.

    Args:
        model: for one example.
        scene: the moment, and what followed.
        beliefs: the beliefs, along a leading axis.
        beta: weight of the KL.
        key: PRNG key of all draws.

    **Cost:** for each belief `2 * DRAWS` decodings, and `DRAWS / LATER` of all later frames.
    """
    own_key, later_key, next_key = jr.split(key, 3)
    own = target(model, scene, beta)
    both = target(model, scene, beta, with_later=True)
    following = jax.tree.map(lambda x: x[0], scene.later)

    def of(belief: Belief) -> Scores:
        return Scores(
            loss=loss(own, belief, draws=DRAWS, key=own_key),
            kl=belief.kl(scene.moment.prior),
            loss_later=loss(both, belief, draws=DRAWS // LATER, key=later_key),
            next=_next(model, scene.moment, following, belief, next_key),
        )

    return jax.lax.map(of, beliefs)


def target(model: Any, scene: Scene, beta: Array, *, with_later: bool = False) -> Target:
    """The cost by which a belief at a moment is judged.

    Args:
        model: a model with a decoder.
        scene: the moment.
        beta: weight of the KL.
        with_later: whether the cost of the later frames, under the model's own beliefs, counts too.
    """
    moment = scene.moment
    dtype = jax.eval_shape(model.initial).latent.dtype

    def cost(latent: Array, key: PRNGKeyArray) -> Array:
        state = State(moment.memory, latent.astype(dtype))
        found = surprise(model, state, scene.observation)
        return found + _followed(model, state, scene.later, beta, key) if with_later else found

    return Target(moment.prior, beta, cost)


def _followed(
    model: Any, state: State, later: Later, beta: Array, key: PRNGKeyArray
) -> Float[Array, ""]:
    """The cost of the later frames: for each, its error plus beta times its KL, with latents drawn
    from the encoder's beliefs one after the other.
    """

    def step(state: State, given: tuple) -> tuple[State, Array]:
        action, observation, key = given
        memory, prior = model.predict(state, action, jnp.zeros((), bool))
        belief = model.infer(memory, observation)
        state = State(memory, belief.sample(key=key).astype(state.latent.dtype))
        return state, surprise(model, state, observation) + beta * belief.kl(prior)

    keys = jr.split(key, len(later.actions))
    return jnp.sum(jax.lax.scan(step, state, (later.actions, later.observations, keys))[1])


def _next(
    model: Any, moment: Moment, later: Later, belief: Belief, key: PRNGKeyArray
) -> Float[Array, ""]:
    dtype = jax.eval_shape(model.initial).latent.dtype

    def cost(latent: Array, key: PRNGKeyArray) -> Array:
        state = State(moment.memory, latent.astype(dtype))
        memory, prior = model.predict(state, later.actions, jnp.zeros((), bool))
        state = State(memory, prior.sample(key=key).astype(dtype))
        return surprise(model, state, later.observations)

    found = costs(Target(moment.prior, jnp.float32(1), cost), belief, draws=DRAWS, key=key)[1]
    return jnp.log(float(DRAWS)) - jax.nn.logsumexp(-found)


def _random(prior: Belief, count: int, key: PRNGKeyArray) -> list[Belief]:
    """Random starting beliefs for a descent."""
    if isinstance(prior, Categorical):
        shape, dtype = prior.logits.shape, prior.logits.dtype
        return [
            dataclasses.replace(prior, logits=WIDE * jr.normal(k, shape, dtype))
            for k in jr.split(key, count)
        ]
    assert hasattr(prior, "mean")  # `best` refuses other kinds of belief
    return [
        dataclasses.replace(prior, mean=WIDE * jr.normal(k, prior.mean.shape, prior.mean.dtype))  # pyright: ignore
        for k in jr.split(key, count)
    ]
