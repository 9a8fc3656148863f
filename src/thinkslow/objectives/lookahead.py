"""Terms bound to a model and a moment: a function of the belief alone."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias, cast, get_args

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, PRNGKeyArray

from thinkslow.distributions import Belief
from thinkslow.needs import missing
from thinkslow.objectives.members import Members
from thinkslow.objectives.term import ImaginedStep, ImaginedTerm, Present, PresentTerm, Term, Values
from thinkslow.readouts import Readout, Sample
from thinkslow.worldmodel import (
    Moment,
    Observation,
    Policy,
    State,
    Step,
    WorldModel,
    detached,
    imagine,
)

Weight: TypeAlias = Float[Array, ""] | float
Terms: TypeAlias = Mapping[Any, Weight] | Iterable[tuple[Term, Weight]]
"""Terms with their weights: a mapping from each `Term` to its weight, or pairs."""
Objective: TypeAlias = Callable[[Belief, PRNGKeyArray], tuple[Float[Array, ""], Values]]
Imagery: TypeAlias = Literal["mode", "sample"]


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
        if (reason := missing(model, term.needs, members)) is not None:
            raise ValueError(f"`{term.name}` does not work with this model: {reason}.")
    present = [term for term, _ in weighted if isinstance(term, PresentTerm)]
    imagined = [term for term, _ in weighted if isinstance(term, ImaginedTerm)]
    here = Present(model, moment, observation, latent, start)
    acting = policy if through_policy else detached(policy)
    future = partial(
        _future, model, acting, moment, imagined, horizon, latent, imagery, members, through_memory
    )

    def objective(belief: Belief, key: PRNGKeyArray) -> tuple[Float[Array, ""], Values]:
        present_key, future_key = jr.split(key)
        keys = jr.split(present_key, max(1, len(present)))
        found: Values = {}
        for term, term_key in zip(present, keys, strict=False):
            found[term.name] = term.value(belief, here, key=term_key)
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
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"A term may be there once; got {', '.join(sorted(repeated))} more than once. Add up "
            "the weights."
        )
    return pairs


def check_counts(
    terms: Iterable[tuple[Term, Weight]], horizon: int, rollouts: int, latent: Readout,
    imagery: str,
) -> None:  # fmt: skip
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


def _future(
    model: WorldModel, policy: Policy, moment: Moment, terms: list[ImaginedTerm], horizon: int,
    latent: Readout, imagery: Imagery, members: Members | None, through_memory: bool,
    belief: Belief, key: PRNGKeyArray,
) -> tuple[Array, Values]:  # fmt: skip
    """The first latent of a future, and the terms summed over its steps."""
    start_key, roll_key, step_key = jr.split(key, 3)
    state = State(moment.memory, latent(belief, key=start_key))
    steps = imagine(
        model, policy, state, horizon=horizon, key=roll_key, readout=latent,
        through_memory=through_memory,
    )  # fmt: skip

    def each(before: State, at: Step, keys: Key[Array, " keys"]) -> Values:
        step = ImaginedStep(
            model, members, latent, imagery == "sample", before, at.action, at.prior, at.state,
            keys[:2],
        )  # fmt: skip
        found: Values = {}
        for term, term_key in zip(terms, keys[2:], strict=True):
            found[term.name] = term.at_step(model, step, key=term_key)
            found |= term.diagnostics(model, step)
        return found

    before = jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), state, steps.state
    )
    keys = jax.vmap(lambda k: jr.split(k, 2 + len(terms)))(jr.split(step_key, horizon))
    values = jax.tree.map(jnp.sum, jax.vmap(each)(before, steps, keys))
    for index, term in enumerate(terms):
        if term.at_present:
            # The action that led here does not matter, so the present moment is the first imagined
            # step.
            now_key = jr.fold_in(step_key, index)
            now = ImaginedStep(
                model, members, latent, imagery == "sample", state,
                jax.tree.map(lambda x: x[0], steps.action), moment.prior, state,
                jr.split(now_key),
            )  # fmt: skip
            values[term.name] += term.at_step(model, now, key=now_key)
    return state.latent, values
