"""How an action is chosen, given a belief.

A choice gets the belief, the state that was read from it and the policy's action there, and may
take another action. Without a reason to change, it takes the policy's action. Subclass `Choice`
for your own. Nothing here changes the belief: a belief that values could move would become wishful
thinking.
"""

import abc
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from thinkslow.distributions import Belief
from thinkslow.needs import ACTOR, Need
from thinkslow.objectives.members import Members
from thinkslow.spaces import Space
from thinkslow.worldmodel import Action, State, WorldModel

HALVINGS = 30
"""Number of bisections in the search for a tilt."""


class Facing(NamedTuple):
    """The inputs of a choice: one decision, without a batch axis.

    Attributes:
        model: the world model.
        policy: `policy(state, key)` returns an action vector; what the agent acts by in imagined
            futures.
        greedy: whether the policy takes its most likely action instead of a sample.
        belief: the belief after refinement.
        state: memory and latent that were read from the belief.
        action: the policy's action in `state`, as one vector; discrete actions are one-hot.
        members: plausible parameters, if the agent has them; otherwise None.
        returns: the range of the agent's returns, from 5% to 95%; None unless the choice is
            `scaled`.
    """

    model: WorldModel
    policy: Callable[[State, PRNGKeyArray], Action]
    greedy: bool
    belief: Belief
    state: State
    action: Action
    members: Members | None
    returns: Float[Array, ""] | float | None


class Chosen(eqx.Module):
    """The numbers behind a choice, for records and the viewer.

    Attributes:
        actions: vectors of the actions that were compared, `(actions, action)`.
        log_probs: the policy's log-probability of each of them, `(actions,)`.
        advantages: their imagined advantages over the policy's mean, in units of return.
        errors: standard errors of the advantages.
        improved: log-probabilities that the action was taken by.
        kl: KL(improved || policy), nats; a scalar.
    """

    actions: Float[Array, "*batch actions action"]
    log_probs: Float[Array, "*batch actions"]
    advantages: Float[Array, "*batch actions"]
    errors: Float[Array, "*batch actions"]
    improved: Float[Array, "*batch actions"]
    kl: Float[Array, "*batch"]


class Choice(eqx.Module):
    """A way to choose an action. Subclass it for your own."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs from a model."""
        return (ACTOR,)

    @property
    def scaled(self) -> bool:
        """Whether it needs the range of the agent's returns; `thinkslow.calibrated` and
        evaluations measure it.
        """
        return False

    @abc.abstractmethod
    def __call__(self, facing: Facing, *, key: PRNGKeyArray) -> tuple[Action, Chosen | None]:
        """The action of one decision, and the numbers behind it, or None.

        Args:
            facing: the model, the belief, and the policy's own action.
            key: PRNG key of the choice's random draws.

        The action has the shape and type of `facing.action`: one vector, in the order of the
        model's `action_spaces`, with discrete actions one-hot. `facing.model.parts` cuts it into
        the named actions.
        """


class Likeliest(Choice):
    """The policy's most likely action: a greedy control without imagination."""

    def __call__(self, facing: Facing, *, key: PRNGKeyArray) -> tuple[Action, None]:
        model: Any = facing.model
        action = jnp.concatenate([d.mode().ravel() for d in model.actor(facing.state).values()])
        return action.astype(facing.action.dtype), None


def every_action(
    spaces: tuple[tuple[str, Space], ...], most: int
) -> Float[np.ndarray, "actions action"] | None:
    """Vectors of all actions of discrete spaces; None if there are more than `most`, or any space
    is continuous."""
    kinds = [space.classes for _, space in spaces for _ in range(math.prod(space.shape))]
    if not spaces or any(classes is None for classes in kinds):
        return None
    whole = [classes for classes in kinds if classes is not None]
    if math.prod(whole) > most:
        return None
    rows = [np.eye(classes, dtype=np.float32) for classes in whole]
    return np.stack(
        [
            np.concatenate([rows[part][index] for part, index in enumerate(joint)])
            for joint in itertools.product(*map(range, whole))
        ]
    )


def log_probability(
    model: Any, state: State, actions: Float[Array, "actions action"]
) -> Float[Array, " actions"]:
    """The policy's log-probability of each action vector, or its log-density."""
    heads = model.actor(state)

    def one(action: Array) -> Float[Array, ""]:
        parts = model.parts(action)
        each = (
            head.log_prob(parts[name].reshape(jnp.shape(head.mode())))
            for name, head in heads.items()
        )
        return sum(each, jnp.zeros(()))

    return jax.vmap(one)(actions)


def perturbed(
    log_probs: Float[Array, " actions"], taken: Int[Array, ""], *, key: PRNGKeyArray
) -> Float[Array, " actions"]:
    """Log-probabilities with Gumbel noise under which the action `taken` is the largest.

    If `taken` was drawn with these probabilities, the noise has the distribution of independent
    Gumbels. The largest entry of `perturbed + tilt` is then a draw from the tilted probabilities.
    It is the same action unless the tilt changes it.

    **References:** Maddison, Tarlow and Minka, A* Sampling, arXiv 1411.0030.
    """
    top_key, key = jr.split(key)
    top = jr.gumbel(top_key, (), log_probs.dtype)
    free = log_probs + jr.gumbel(key, log_probs.shape, log_probs.dtype)
    return (-jnp.logaddexp(-top, -free)).at[taken].set(top)


def divergence(
    log_probs: Float[Array, " actions"], tilt: Float[Array, " actions"]
) -> Float[Array, ""]:
    """KL(tilted || given) of the probabilities, in nats."""
    improved = jax.nn.log_softmax(log_probs + tilt)
    return jnp.sum(jnp.exp(improved) * (improved - jax.nn.log_softmax(log_probs)))


def strength(
    log_probs: Float[Array, " actions"],
    direction: Float[Array, " actions"],
    kl: Float[Array, ""],
    most: Float[Array, ""],
) -> Float[Array, ""]:
    """The largest tilt along a direction, up to `most`, whose KL does not exceed a bound.

    KL grows with the strength, so bisection finds it.
    """

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = (low + high) / 2
        below = divergence(log_probs, middle * direction) <= kl
        return (jnp.where(below, middle, low), jnp.where(below, high, middle)), None

    (low, _), _ = jax.lax.scan(halve, (jnp.zeros_like(most), most), None, length=HALVINGS)
    whole = divergence(log_probs, most * direction) <= kl
    return jnp.where(kl > 0, jnp.where(whole, most, low), 0.0)
