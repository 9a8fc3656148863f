"""A finite problem with rewards: reward, discount and critic of the toy model, all exact.

The critic is the exact value of the policy in each state. The mean of a lambda-return of any length
is then the one-step return, so the value of an action under a belief is a sum.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thinkslow.distributions import Categorical
from thinkslow.spaces import Space
from thinkslow.toy.model import Toy, exact
from thinkslow.toy.problem import Problem
from thinkslow.worldmodel import State


class Known(eqx.Module):
    """A deterministic number, as a head's prediction."""

    number: Float[Array, ""]

    def mean(self) -> Float[Array, ""]:
        return self.number

    def mode(self) -> Float[Array, ""]:
        return self.number

    def log_prob(self, value: Float[Array, ""]) -> Float[Array, ""]:
        return -jnp.square(self.number - value)


class Rewarded(Toy):
    """The toy model of a problem with rewards."""

    rewards: Float[Array, " states"]
    """The reward for arriving in each state."""
    values: Float[Array, " states"]
    """The value of the policy from each state on."""
    rate: Float[Array, ""]
    """The discount of a reward one step later."""

    @property
    def action_spaces(self) -> tuple[tuple[str, Space], ...]:
        return (("action", Space((), "int32", self.problem.actions)),)

    def reward(self, state: State) -> Known:
        return Known(state.latent @ self.rewards)

    def discount(self, state: State) -> Float[Array, ""]:
        return self.rate

    def value(self, state: State) -> Known:
        return Known(state.latent @ self.values)

    def actor(self, state: State) -> dict[str, Categorical]:
        return {"action": Categorical(jnp.log(state.latent @ self.acts))}

    def worth(self, belief: Float[Array, " states"]) -> Float[Array, " actions"]:
        """The exact value of each action under a belief, if the policy acts afterwards."""
        later = self.rewards + self.rate * self.values
        return jnp.einsum("s,ast,t->a", belief, self.problem.dynamics, later)


def rewarded(
    problem: Problem,
    rewards: Float[np.ndarray, " states"],
    *,
    rate: float = 0.9,
    acts: Float[np.ndarray, "states actions"] | None = None,
) -> Rewarded:
    """The exact model of a problem with `rewards`; by default its policy is uniform.

    >>> from thinkslow.toy import ring
    >>> model = rewarded(ring(4), np.array([1.0, 0.0, 0.0, 0.0]))
    >>> bool(model.values[0] > model.values[2])
    True
    """
    plain = exact(problem)
    chances = plain.acts if acts is None else jnp.asarray(acts, jnp.float32)
    moves = jnp.einsum("sa,ast->st", chances, problem.dynamics)
    paid = jnp.asarray(rewards, jnp.float32)
    values = jnp.linalg.solve(jnp.eye(problem.states) - rate * moves, moves @ paid)
    return Rewarded(problem, plain.reader, chances, paid, values, jnp.float32(rate))
