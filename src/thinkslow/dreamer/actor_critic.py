"""The parts of every Dreamer besides the world model: an actor, a critic, and action vectors.

An action is one float vector: the actions of all keys joined, discrete ones one-hot.
"""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from thinkslow.distributions import Belief, Categorical
from thinkslow.dreamer.nets import Linear
from thinkslow.dreamer.vision import width
from thinkslow.heads import Bernoulli, BoundedNormal, SymlogTwoHot, TwoHot
from thinkslow.spaces import Space
from thinkslow.worldmodel import State, WorldModel


class ActorCritic(WorldModel):
    """A world model with an actor and a critic. The memory is one vector, the latent any array."""

    config: eqx.AbstractVar[Any]
    """Its sizes and settings, a frozen dataclass that can be written to JSON and read back."""

    @property
    @abc.abstractmethod
    def observation_spaces(self) -> tuple[tuple[str, Space], ...]:
        """Its observations, in the order in which the encoder joins them."""

    @property
    @abc.abstractmethod
    def action_spaces(self) -> tuple[tuple[str, Space], ...]:
        """Its actions, in the order in which an action vector joins them."""

    @property
    @abc.abstractmethod
    def prior_layer(self) -> Linear:
        """The last layer of the head that predicts the prior from the memory."""

    @abc.abstractmethod
    def prior(self, memory: Float[Array, " deter"]) -> Belief:
        """The prior belief given a memory, as in `predict`."""

    @abc.abstractmethod
    def reward(self, state: State) -> TwoHot | SymlogTwoHot: ...

    @abc.abstractmethod
    def continuation(self, state: State) -> Bernoulli: ...

    @abc.abstractmethod
    def discount(self, state: State) -> Float[Array, ""]:
        """The discount of rewards after this state, as in the agent's own imagination."""

    @abc.abstractmethod
    def value(self, state: State) -> TwoHot | SymlogTwoHot:
        """The critic: the discounted return from this state on.

        **Errors:** `ValueError` for an agent that was stored without its critic.
        """

    @abc.abstractmethod
    def actor(self, state: State) -> dict[str, Categorical | BoundedNormal]:
        """The distribution of each action, in the order of `action_spaces`."""

    def policy(self, state: State, key: PRNGKeyArray) -> Float[Array, " action"]:
        """A sampled action vector; the gradient reaches the actor's probabilities."""
        heads = [*self.actor(state).values()]
        return self.join(_drawn(heads, jr.split(key, len(heads))))

    def join(self, parts: list[Array]) -> Float[Array, " action"]:
        """Join actions, in the order of `action_spaces`, into one vector."""
        return jnp.concatenate([part.ravel() for part in parts])

    def encode_action(
        self, actions: Mapping[str, Array | np.ndarray]
    ) -> Float[Array, "*batch action"]:
        """The inverse of `split`: actions in the form of the environment, joined into one
        vector.
        """
        flat = []
        for name, space in self.action_spaces:
            action = jnp.asarray(actions[name])
            lead = action.shape[: action.ndim - len(space.shape)]
            if space.classes is not None:
                action = jax.nn.one_hot(action, space.classes)
            flat.append(action.reshape(*lead, width(space)))
        return jnp.concatenate(flat, -1)

    def features(self, state: State) -> Float[Array, " features"]:
        """The input of every head except the decoder: memory, then latent."""
        return jnp.concatenate([state.memory, state.latent.ravel().astype(state.memory.dtype)])


def _drawn(heads: list[Categorical | BoundedNormal], keys: Key[Array, " heads"]) -> list[Array]:
    """A sample of each head. Those of equal form are drawn together, which gives the same numbers.

    XLA otherwise compiles as many generators of random numbers as there are actions.
    """
    alike: dict[Any, list[int]] = {}
    for index, head in enumerate(heads):
        leaves, form = jax.tree.flatten(head)
        alike.setdefault((form, *(leaf.shape for leaf in leaves)), []).append(index)
    drawn = {}
    for group in alike.values():
        stacked = jax.tree.map(lambda *each: jnp.stack(each), *(heads[i] for i in group))
        samples = jax.vmap(lambda head, key: head.sample(key=key))(stacked, keys[jnp.array(group)])
        drawn |= dict(zip(group, samples, strict=True))
    return [drawn[index] for index in range(len(heads))]
