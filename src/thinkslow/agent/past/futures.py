"""Several predictions instead of missing frames; the next frame chooses among them.

A missing frame is replaced by one sample of the prior, and the memory is built on it. If the sample
was wrong, the memory stays wrong after frames return. So more futures are predicted in the same
way, and the first frame that returns tells which of them happened. Nothing here knows agents; all
functions are for one example.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from thinkslow.agent.past.particles import weighted
from thinkslow.trees import copies, only_if, put
from thinkslow.worldmodel import Action, Moment, Observation, State, WorldModel, perceive


class Futures(eqx.Module):
    """The states that are predicted besides the one that acts, while frames are missing."""

    others: State
    """Leading axis: `futures - 1`. Without missing frames they are not used."""
    unsure: Bool[Array, "*batch"]
    """Whether the last frame was missing, so that the others count."""

    def after(
        self,
        model: WorldModel,
        state: State,
        action: Action,
        is_first: Bool[Array, ""],
        seen: Bool[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> "Futures":
        """The futures after a decision. If its frame was missing, each moves on by a sample of its
        own prior; at the first missing frame all begin at the state that acts.

        Args:
            model: the model.
            state: the state that acted before this decision.
            action: the action that led to it.
            is_first: whether an episode begins here.
            seen: whether its frame could be used.
            key: random numbers of the samples.

        **Cost:** if the frame was missing, one step of the core for each other future.
        """
        begin = ~self.unsure

        def moved(other: State, key: PRNGKeyArray) -> State:
            before = jax.tree.map(lambda new, old: jnp.where(begin, new, old), state, other)
            memory, prior = model.predict(before, action, is_first)
            return State(memory, prior.sample(key=key).astype(state.latent.dtype))

        keys = jr.split(key, len(self.others.latent))
        others = only_if(~seen, lambda: jax.vmap(moved)(self.others, keys), self.others)
        return Futures(others, ~seen)


def no_futures(state: State, count: int) -> Futures:
    """The futures of an agent that predicts `count` of them, before its first frame."""
    many = jax.tree.map(lambda x: copies(x, count - 1), state)
    return Futures(many, put(np.zeros((), bool)))


def likely(
    model: WorldModel,
    state: State,
    others: State,
    action: Action,
    observation: Observation,
    absent: Mapping[str, Bool[Array, ""]] | None,
    *,
    key: PRNGKeyArray,
) -> Moment:
    """The moment after one of several states, drawn by how well each predicts the observation.

    The weights are those of a particle filter, so with many states the choice follows the posterior
    (`past.weighted`).

    Args:
        model: the model, with a decoder.
        state: one state to choose from.
        others: more of them, along a leading axis.
        action: the action that led to the observation.
        observation: the present observation.
        absent: by name, whether a part of it is missing.
        key: random numbers of latents and of the choice.

    **Cost:** one step of the core, one encoding and one decoding for each state.
    """
    states = jax.tree.map(lambda one, more: jnp.append(one[None], more, 0), state, others)
    count, no = len(states.latent), jnp.zeros((), bool)
    latent_key, pick_key = jr.split(key)

    def seen(state: State, key: PRNGKeyArray) -> tuple[Moment, State]:
        moment = perceive(model, state, action, no, observation, absent)
        latent = moment.posterior.sample(key=key).astype(state.latent.dtype)
        return moment, State(moment.memory, latent)

    moments, drawn = jax.vmap(seen)(states, jr.split(latent_key, count))
    even = jnp.full(count, -jnp.log(count))
    weights = weighted(model, even, moments, moments.posterior, drawn, observation)
    index = jr.categorical(pick_key, weights)
    return jax.tree.map(lambda x: x[index], moments)
