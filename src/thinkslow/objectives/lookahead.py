"""Terms bound to a model and a moment: a function of the belief alone."""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias, cast, get_args

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, PRNGKeyArray

from thinkslow.distributions import Belief, Objective
from thinkslow.needs import unmet
from thinkslow.objectives.members import Members
from thinkslow.objectives.term import (
    ImaginedStep,
    ImaginedTerm,
    Present,
    PresentTerm,
    Term,
    TermValues,
)
from thinkslow.readouts import Readout, Sample
from thinkslow.settings import Imagery
from thinkslow.trees import one_number
from thinkslow.worldmodel import (
    Moment,
    Observation,
    Policy,
    Rollout,
    State,
    WorldModel,
    detached,
    imagine,
)

Weight: TypeAlias = Float[Array, ""] | float
Terms: TypeAlias = Mapping[Any, Weight] | Iterable[tuple[Term, Weight]]
"""Terms with their weights: a mapping from each `Term` to its weight, or pairs."""


def lookahead(
    model: WorldModel,
    policy: Policy,
    moment: Moment,
    observation: Observation,
    terms: Terms,
    *,
    horizon: int = 3,
    rollouts: int = 1,
    latent: Readout | None = None,
    imagery: Imagery = "mode",
    members: Members | None = None,
    start: Belief | None = None,
    through_policy: bool = True,
    through_memory: bool = True,
) -> Objective:
    """The weighted sum of terms as a function of the belief about the present latent.

    With the same key the objective is the same function of the belief, without noise.

    Args:
        model: the model, for one example.
        policy: the policy in imagined futures.
        moment: the present moment, from `perceive`.
        observation: the present observation, by name.
        terms: each with its weight, which may be traced.
        horizon: the number of imagined steps, 1 or more.
        rollouts: the number of imagined futures to average over, each from its own latent.
        latent: how a latent is taken from a belief, which decides the gradient; None: `Sample`.
        imagery: an imagined observation is the decoder's `mode`, or a `sample` if the decoder has
            a spread (information gains are exact only with samples).
        members: plausible parameters, for terms that compare them.
        start: the first belief, for terms that keep the belief near it; None: the encoder's belief.
        through_policy: whether the gradient flows through the actions of imagined futures.
        through_memory: whether it flows from one imagined memory to the next.

    Returns a function that maps a belief and a key to the weighted sum, and to the unweighted terms
    by name with their diagnostics.

    **Cost:** with imagined terms, `rollouts * horizon` steps of the core and the policy, plus the
    cost of each term.

    **Errors:** `ValueError` for a count that is too small, a repeated term, or a term whose needs
    the model lacks.
    """
    latent = latent or Sample()
    weighted = paired(terms)
    check_counts(weighted, horizon, rollouts, latent, imagery)
    for term, _ in weighted:
        if (reason := unmet(model, term.needs, members)) is not None:
            raise ValueError(f"`{term.name}` does not work with this model: {reason}.")
    present = [term for term, _ in weighted if isinstance(term, PresentTerm)]
    imagined = [term for term, _ in weighted if isinstance(term, ImaginedTerm)]
    here = Present(model, moment, observation, latent, start)
    acting = policy if through_policy else detached(policy)
    future = _Future(
        model, acting, moment, imagined, horizon, latent, imagery, members, through_memory
    )

    def objective(belief: Belief, key: PRNGKeyArray) -> tuple[Float[Array, ""], TermValues]:
        present_key, future_key = jr.split(key)
        keys = jr.split(present_key, max(1, len(present)))
        found: TermValues = {}
        for term, term_key in zip(present, keys, strict=False):
            found[term.name] = _checked(term, term.value(belief, here, key=term_key))
        if imagined:
            latents, values = jax.vmap(partial(future, belief))(jr.split(future_key, rollouts))
            found |= {name: latent.mean(each, latents, belief) for name, each in values.items()}
        parts = (weight * found[term.name] for term, weight in weighted)
        return sum(parts, jnp.zeros(())), found

    return objective


def paired(terms: Terms) -> tuple[tuple[Term, Weight], ...]:
    """Terms with their weights, in order.

    **Errors:** `TypeError` for an object that is not a term, `ValueError` for a repeated term.
    """
    pairs: tuple[tuple[Term, Weight], ...] = tuple(
        cast(Iterable, terms.items() if isinstance(terms, Mapping) else terms)
    )
    for term, _ in pairs:
        if not isinstance(term, PresentTerm | ImaginedTerm):
            raise TypeError(
                f"A term must be a PresentTerm or an ImaginedTerm, such as SIG(); got {term!r}."
            )
    names = [term.name for term, _ in pairs]
    for name in names:
        if "/" in name:
            raise ValueError(f"A term's name has no '/', which begins a diagnostic; got {name}.")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"A term may be there once; got {', '.join(sorted(repeated))} more than once. Add up "
            "the weights."
        )
    return pairs


def check_counts(
    terms: Iterable[tuple[Term, Weight]],
    horizon: int,
    rollouts: int,
    latent: Readout,
    imagery: str,
) -> None:
    """**Errors:** `ValueError` for impossible arguments of an objective."""
    for name, count in (("horizon", horizon), ("rollouts", rollouts)):
        if count < 1:
            raise ValueError(f"`{name}` must be 1 or more; got {count}.")
    if imagery not in get_args(Imagery):
        raise ValueError(f"`imagery` must be 'mode' or 'sample'; got {imagery!r}.")
    for term, _ in terms:
        name, draws = "`rollouts`", rollouts
        if isinstance(term, PresentTerm):
            name, draws = f"`samples` of {term.name}", term.draws
        if draws is not None and draws < latent.least_draws:
            raise ValueError(
                f"{type(latent).__name__} compares each draw with the others: {name} must be "
                f"{latent.least_draws} or more; got {draws}."
            )


def _checked(term: Term, value: Any) -> Float[Array, ""]:
    """The value of a term. **Errors:** `TypeError` unless it is one floating number."""
    return one_number(f"The value of {type(term).__name__}", value)


@dataclasses.dataclass(frozen=True)
class _Future:
    """A future to imagine, and the terms to sum over its steps."""

    model: WorldModel
    policy: Policy
    moment: Moment
    terms: list[ImaginedTerm]
    horizon: int
    latent: Readout
    imagery: Imagery
    members: Members | None
    through_memory: bool

    def __call__(self, belief: Belief, key: PRNGKeyArray) -> tuple[Array, TermValues]:
        """The first latent, and the terms."""
        start_key, roll_key, step_key = jr.split(key, 3)
        state = State(self.moment.memory, self.latent(belief, key=start_key))
        steps = imagine(
            self.model,
            self.policy,
            state,
            horizon=self.horizon,
            key=roll_key,
            readout=self.latent,
            through_memory=self.through_memory,
        )
        before = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), state, steps.state
        )
        # The first key of each step is not used.
        split = jax.vmap(lambda k: jr.split(k, 2 + len(self.terms)))
        keys = split(jr.split(step_key, self.horizon))
        values = jax.tree.map(jnp.sum, jax.vmap(self._at)(before, steps, keys[:, 1:]))
        for index, term in enumerate(self.terms):
            if term.at_present:
                # The action that led here does not matter, so the present moment is the first
                # imagined step.
                image_key, now_key = jr.split(jr.fold_in(step_key, self.horizon + index))
                action = jax.tree.map(lambda x: x[0], steps.action)
                here = Rollout(action, self.moment.prior, state)
                now = self._imagined(state, here, image_key)
                values[term.name] += _checked(term, term.at_step(self.model, now, key=now_key))
        return state.latent, values

    def _at(self, before: State, step: Rollout, keys: Key[Array, " keys"]) -> TermValues:
        """The terms of one step, with their diagnostics."""
        imagined = self._imagined(before, step, keys[0])
        found: TermValues = {}
        for term, key in zip(self.terms, keys[1:], strict=True):
            found[term.name] = _checked(term, term.at_step(self.model, imagined, key=key))
            for name, value in term.diagnostics(self.model, imagined).items():
                found[f"{term.name}/{name}"] = value
        return found

    def _imagined(self, before: State, step: Rollout, key: PRNGKeyArray) -> ImaginedStep:
        return ImaginedStep(
            self.model,
            before,
            step,
            latent=self.latent,
            members=self.members,
            image_key=key if self.imagery == "sample" else None,
        )
