"""One step of a refinement: its direction, its length, and whether it is taken.

A step stays within a trust region: the KL by which it moves the belief is bounded.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray, PyTree

from thinkslow.distributions import Objective
from thinkslow.refinement.result import Scalar
from thinkslow.refinement.updates import Gradient, Update
from thinkslow.settings import Select, check_range
from thinkslow.trees import all_finite, described, one_number, register, same_form, where

CERTAINTY = 2.0
"""Standard errors by which an objective must fall on several judging draws."""
LONGEST = 2.0**10
"""A change that is too large is first shortened so that no number changes by more than this."""
HALVINGS = 34.0
"""Number of halvings after which the change is set to 0."""
ROUNDS, SHARES = 3, 32
"""Rounds of a search and shares tried at once in each, which find the number of halvings to a
thousandth."""


@register
@dataclasses.dataclass(frozen=True)
class Descent:
    """How a refinement steps, and when it stops.

    A pytree: its floats may change without compiling again.

    **Errors:** `ValueError` for a number that is negative or NaN, no `judges`, or an unknown
    `select`.
    """

    steps: int
    """The number of steps, 0 or more."""
    max_kl: Scalar = math.inf
    """The largest KL(new || first), in nats, by which all steps together may move the belief. A
    longer step is scaled down in its direction."""
    step_kl: Scalar | None = None
    """The largest KL(new || old) of one step, in nats; None: as `update` says, for most updates
    `max_kl / steps**2`."""
    accept: bool = False
    """Take a step only if the objective falls on fresh random numbers; a rejected step halves
    `step_kl`."""
    judges: int = 1
    """Draws that judge a step, the same at every step. With one draw, the objective must fall. With
    several, the mean must fall by two standard errors, so a step that is worse in expectation is
    rarely taken."""
    tolerance: Scalar | None = None
    """Stop after a step that lowers the objective by less than this share, and when `max_kl` is
    spent; `used` counts the steps. None: make all steps."""
    select: Select = "last"
    """Which iterate to return: the `last` finite one, or the `best`, with the lowest loss."""
    fresh_noise: bool = False
    """Draw new noise for the objective at each step. The loss of each iterate is then on its own
    draw."""

    def __post_init__(self) -> None:
        least = {"steps": 0, "max_kl": 0, "step_kl": 0, "judges": 1, "tolerance": 0}
        for name, number in least.items():
            check_range(name, getattr(self, name), number)
        if self.select not in ("last", "best"):
            raise ValueError(f"`select` must be 'last' or 'best'; got {self.select!r}.")

    def of(
        self, objective: Objective, update: Update | None, belief: Any, key: PRNGKeyArray
    ) -> "Rules":
        """The rules of one refinement, with its random draws.

        Args:
            objective: as for `refine`.
            update: the update rule; None: plain gradient descent with step size 1.
            belief: the first belief.
            key: PRNG key.

        **Errors:** `TypeError` for a belief that cannot be refined, or what is not an `Update`.
        """
        _check_belief(belief)
        update = Gradient() if update is None else update
        if not isinstance(update, Update):
            raise TypeError(
                "`update` must be an `Update`, such as `Gradient(0.1)`, `adam(0.1)` or, with an "
                f"Optax optimiser, `Gradient(optimiser=...)`; got {update!r}."
            )
        noise, judge_key, step_key = jr.split(key, 3)
        many = self.steps + 1
        judges = judge_key[None] if self.judges == 1 else jr.split(judge_key, self.judges)
        longest = update.step_kl(self.max_kl, self.steps) if self.step_kl is None else self.step_kl
        return Rules(
            checked(objective),
            update,
            belief,
            self,
            step_kl=jnp.asarray(longest, jnp.float32),
            judges=judges if self.accept else None,
            noises=jr.split(noise, many) if self.fresh_noise else jnp.broadcast_to(noise, many),
            keys=jr.split(step_key, self.steps),
        )


@dataclasses.dataclass(frozen=True)
class Rules:
    """One refinement: its objective, its bounds and its random draws."""

    objective: Objective
    update: Update
    first: Any
    descent: Descent
    step_kl: Float[Array, ""]
    """The bound of the first step, nats."""
    judges: Key[Array, " judges"] | None
    """Keys of the draws that judge a step; None: every finite step is taken."""
    noises: Key[Array, " iterates"]
    """Keys of the objective at each iterate."""
    keys: Key[Array, " steps"]
    """Keys of the update at each step."""

    def start(self) -> "Held":
        """The state before the first step."""
        return Held(self.update.init(self.first), self.step_kl, self.judge(self.first))

    def judge(self, belief: Any) -> Float[Array, " judges"]:
        if self.judges is None:
            return jnp.zeros(1)
        if len(self.judges) == 1:
            return self.objective(belief, self.judges[0])[0][None]
        return jax.vmap(lambda key: self.objective(belief, key)[0])(self.judges)

    def step(
        self, now: Any, loss: Array, gradient: Any, held: "Held", key: PRNGKeyArray
    ) -> tuple[Any, "Held", Float[Array, ""], Bool[Array, ""]]:
        """The next belief, the next state, the norm of the gradient, and whether the step was
        taken.
        """
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(gradient)))
        proposed = self.update.propose(now, gradient, held.state, key=key)
        change, state = _checked_proposal(proposed, now, held.state, self.update)
        new = within(now, change, held.step_kl, first=self.first, max_kl=self.descent.max_kl)
        after = self.judge(new)
        taken = jnp.isfinite(loss) & jnp.isfinite(norm) & all_finite(new)
        if self.judges is None:
            taken &= jnp.all(jnp.isfinite(after))
        else:
            taken &= _falls(after - held.judged)
        now_or_new = where(taken, new, now)
        judged = jnp.where(taken, after, held.judged)
        step_kl = jnp.where(taken, held.step_kl, held.step_kl / 2)
        return now_or_new, Held(state, step_kl, judged), norm, taken & _differ(new, now)


def within(belief: Any, change: Any, step_kl: Scalar, *, first: Any, max_kl: Scalar) -> Any:
    """The belief moved along `change`, as far as KL(moved || belief) stays within `step_kl` and
    KL(moved || first) within `max_kl`.

    If the whole change fits, it is applied bit for bit. Otherwise a search finds the share that
    fits, to a thousandth, however long the change is. A zero change, or a bound of 0, returns the
    belief bit for bit. (A bound of 0 is handled separately, because the KL of a tiny move rounds
    to 0.)

    **Cost:** the KLs of `ROUNDS * SHARES` beliefs, in `ROUNDS` serial steps.
    """
    longest = jnp.max(jnp.array([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(change)]))
    start = jnp.minimum(1.0, LONGEST / longest)

    def at(share: Scalar) -> Any:
        return jax.tree.map(lambda x, d: x + share * d, belief, change)

    def fits(share: Scalar) -> Bool[Array, ""]:
        moved = at(share)
        return (moved.kl(belief) <= step_kl) & (moved.kl(first) <= max_kl)

    # Numbers of halvings: `few` are too few, `many` are enough.
    few, many = jnp.zeros_like(start), jnp.full_like(start, HALVINGS)
    parts = jnp.asarray(np.arange(1, SHARES + 1) / (SHARES + 1), start.dtype)
    for _ in range(ROUNDS):
        between = few + (many - few) * parts
        good = jax.vmap(fits)(start * 2.0**-between)
        many = jnp.min(jnp.where(good, between, many))
        few = jnp.max(jnp.where(between < many, between, few))
    # Judged once more, by itself, the share that was found could fail by rounding.
    share = jnp.where(many < HALVINGS, start * 2.0**-many, 0.0)
    share = jnp.where(fits(1.0), 1.0, share)
    return at(jnp.where((step_kl > 0) & (max_kl > 0), share, 0.0))


def _checked_proposal(
    proposed: Any, belief: Any, state: PyTree, update: Update
) -> tuple[Any, PyTree]:
    """What `propose` returned. **Errors:** `TypeError` for anything else than a change of every
    array of the belief, and a state like the one before.
    """
    name = type(update).__name__
    if not isinstance(proposed, tuple) or len(proposed) != 2:
        raise TypeError(
            f"{name}.propose must return two things, the change of the belief and the new state; "
            f"got {described(proposed)}."
        )
    change = same_form(f"The change that {name}.propose returns", proposed[0], belief)
    return change, same_form(f"The new state that {name}.propose returns", proposed[1], state)


class Held(NamedTuple):
    """The state of a refinement besides the belief."""

    state: PyTree
    step_kl: Float[Array, ""]
    judged: Float[Array, " judges"]


def _falls(change: Float[Array, " judges"]) -> Bool[Array, ""]:
    """Whether the mean is below 0; with several draws, by two standard errors."""
    count = len(change)
    if count == 1:
        return change[0] < 0
    return jnp.mean(change) + CERTAINTY * jnp.std(change, ddof=1) / np.sqrt(float(count)) < 0


def _differ(new: Any, old: Any) -> Bool[Array, ""]:
    return jnp.any(jnp.array(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.any(a != b), new, old))))


def _check_belief(belief: Any) -> None:
    if not hasattr(belief, "kl"):
        raise TypeError(
            "A belief must have `kl(other)`, which bounds its steps, as `Categorical` and "
            f"`Gaussian` do; this one is {type(belief).__name__}."
        )
    for leaf in jax.tree.leaves(belief):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"A belief must be made of floating arrays, which can be stepped; this "
                f"{type(belief).__name__} holds {jnp.result_type(leaf)}."
            )


def checked(objective: Objective) -> Objective:
    """The same objective, with checks of what it returns."""

    def call(belief: Any, key: PRNGKeyArray) -> tuple[Array, dict[str, Array]]:
        out = objective(belief, key)
        if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], Mapping)):
            raise TypeError(
                "An objective must return two things, the loss and a dictionary of terms (which "
                f"may be empty); got {type(out).__name__}."
            )
        loss = one_number("The loss of an objective", out[0])
        return loss, {
            name: one_number(f"The term {name!r} of an objective", value)
            for name, value in out[1].items()
        }

    return call
