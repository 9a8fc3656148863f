"""A model at one moment, and the values of its terms there, which all entries use."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from thinkslow.objectives import Objective, Term, lookahead
from thinkslow.objectives.members import Members
from thinkslow.readouts import Readout
from thinkslow.trees import parts, whole
from thinkslow.worldmodel import Moment, Observation, Policy, State


class Given(NamedTuple):
    """The inputs of an objective, besides the belief, which are arguments of every program."""

    arrays: list[Any]
    """The arrays of the model."""
    members: Members | None
    observation: Observation
    at: tuple[Any, Any, Any]
    """Memory, prior and posterior."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, its observation, and the action that led there."""

    model: Any
    members: Members | None
    observation: Observation
    action: Any
    policy: Policy

    @property
    def name(self) -> str:
        return type(self.model).__name__

    @property
    def arrays(self) -> list[Any]:
        """The arrays and floats of the model, which are arguments of every program. Its functions
        and integers are not, as in an agent.
        """
        return parts(self.model).arrays

    def having(self, arrays: list[Any]) -> Any:
        """The model with other arrays."""
        return whole(parts(self.model).structure, arrays)

    def start(self, arrays: list[Any]) -> State:
        """The state after the first observation of an episode."""
        model = self.having(arrays)
        memory, _ = model.predict(model.initial(), self.action, jnp.ones((), bool))
        return State(memory, model.infer(memory, dict(self.observation)).mode())

    def beliefs(self, arrays: list[Any]) -> tuple[Any, Any, Any]:
        """Memory, prior and posterior after the next action and the same observation."""
        model = self.having(arrays)
        memory, prior = model.predict(self.start(arrays), self.action, jnp.zeros((), bool))
        return memory, prior, model.infer(memory, dict(self.observation))

    def objective(
        self,
        terms: Sequence[Term],
        weights: dict[str, Any],
        given: Given,
        *,
        policy: Policy | None = None,
        latent: Readout | None = None,
    ) -> Objective:
        memory, prior, posterior = given.at
        return lookahead(
            self.having(given.arrays),
            policy or self.policy,
            Moment(memory, prior, posterior, jnp.ones((), bool)),
            given.observation,
            [(term, weights[term.name]) for term in terms],
            horizon=2,
            rollouts=2,
            latent=latent,
            members=given.members,
        )

    def given(self, at: tuple[Any, Any, Any]) -> Given:
        """The inputs at a moment."""
        return Given(self.arrays, self.members, dict(self.observation), at)

    def refuses(self, term: Term) -> str:
        """Why a term does not apply to the model; empty if it does."""
        try:
            at = jax.eval_shape(self.beliefs, self.arrays)
            jax.eval_shape(
                lambda given: self.objective([term], {term.name: 1.0}, given)(
                    given.at[2], jr.key(0)
                )[0],
                self.given(at),
            )
        except ValueError as error:
            return str(error)
        return ""


class Traced:
    """Several terms as a function of all inputs, traced once for all programs that use them.

    Weights are arguments. One that is 0 leaves its term out of the sum even where the term is
    not a number, so that each term can be judged separately.
    """

    def __init__(self, case: Case, terms: Sequence[Term]):
        self.objects = tuple(terms)
        self.terms = tuple(term.name for term in terms)

        @jax.jit
        def found(weights: dict[str, Any], given: Given, belief: Any, key: PRNGKeyArray):
            return case.objective(self.objects, weights, given)(belief, key)

        self.found = found

    def objective(self, weights: dict[str, Any], given: Given) -> Objective:
        """The objective of `refine`."""

        def objective(belief: Any, key: Any) -> tuple[Any, dict[str, Any]]:
            _, found = self.found(weights, given, belief, key)
            return weighed(weights, found), {name: found[name] for name in weights}

        return objective

    def weights(self, *terms: str) -> dict[str, Any]:
        """Weights: 1 for these terms and 0 for the others."""
        return {name: jnp.float32(name in terms) for name in self.terms}


def weighed(weights: dict[str, Any], found: dict[str, Any]) -> Any:
    """The weighted sum of the terms whose weight is not 0."""
    parts = (jnp.where(w != 0, w * found[name], 0.0) for name, w in weights.items())
    return sum(parts, jnp.zeros(()))


def fingerprint(tree: Any) -> str:
    """A hash of every array."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
