"""The result of a refinement: the belief, all iterates, and why it stopped."""

import enum
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from thinkslow.settings import Select

Scalar: TypeAlias = Float[Array, ""] | float

SPENT = 0.99
"""Share of `max_kl` above which it counts as used up, because the bound is found to a
thousandth.
"""


class Status(enum.IntEnum):
    """Why a refinement stopped. `Status(int(refined.status)).text` is a readable sentence."""

    STEPS_DONE = 0
    TOLERANCE_MET = 1
    KL_SPENT = 2
    REFUSED = 3
    NOT_FINITE = 4

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS = {
    Status.STEPS_DONE: "all steps were made",
    Status.TOLERANCE_MET: "the last step lowered the objective by less than the tolerance",
    Status.KL_SPENT: "the belief moved as far as `max_kl` allows",
    Status.REFUSED: "the last step was refused, or moved nothing",
    Status.NOT_FINITE: "the objective or its gradient was non-finite; the last finite belief is "
    "returned",
}


class Refined(NamedTuple):
    """A refined belief and all iterates. Arrays over iterates have `steps + 1` entries, beginning
    with the first belief. If refinement stopped early, the last entry is repeated."""

    belief: Any
    status: Int[Array, ""]
    """The reason why it stopped, a `Status`."""
    chosen: Int[Array, ""]
    """The index of `belief` among the iterates."""
    loss: Float[Array, " iterates"]
    """The objective of each iterate, on one fixed draw of random numbers."""
    terms: dict[str, Float[Array, " iterates"]]
    """The unweighted terms, and diagnostics, on that draw."""
    moved: Float[Array, " iterates"]
    """KL from the first belief, nats."""
    gradient_norm: Float[Array, " steps"]
    accepted: Bool[Array, " steps"]
    """Whether each step was taken and moved the belief."""
    finite: Bool[Array, " iterates"]
    """Whether the objective of each iterate was finite. A belief with a non-finite objective is
    never returned.
    """
    used: Int[Array, ""]
    """The number of steps made before refinement stopped."""


class Iterates(NamedTuple):
    """Every belief of a refinement, beginning with the first, and the steps between them."""

    beliefs: Any
    losses: Float[Array, " iterates"]
    terms: dict[str, Float[Array, " iterates"]]
    norms: Float[Array, " steps"]
    """Norms of the gradients."""
    accepted: Bool[Array, " steps"]
    used: Int[Array, ""]
    """The number of steps made."""


def chosen(
    iterates: Iterates,
    first: Any,
    *,
    select: Select,
    max_kl: Scalar,
    finite: Bool[Array, " iterates"] | None = None,
) -> Refined:
    """The iterate to return, among those up to `used`, and the record of all.

    `finite` flags the iterates that may be returned; None: those with a finite loss.
    """
    beliefs, losses, terms, norms, accepted, used = iterates
    finite = jnp.isfinite(losses) if finite is None else finite
    index = jnp.arange(len(losses), dtype=used.dtype)
    allowed = finite & (index <= used)
    if select == "last":
        choice = jnp.argmax(jnp.where(allowed, index, -1))
    else:
        choice = jnp.argmin(jnp.where(allowed, losses, jnp.inf))
    moved = jax.vmap(lambda b: b.kl(first))(beliefs)
    belief = jax.tree.map(lambda x: x[choice], beliefs)
    status = _status(iterates, finite, moved, max_kl)
    return Refined(belief, status, choice, losses, terms, moved, norms, accepted, finite, used)


def _status(
    iterates: Iterates,
    finite: Bool[Array, " iterates"],
    moved: Float[Array, " iterates"],
    max_kl: Scalar,
) -> Int[Array, ""]:
    norms, accepted, used = iterates.norms, iterates.accepted, iterates.used
    steps = len(norms)
    made = jnp.arange(steps, dtype=used.dtype) < used
    reached = jnp.arange(steps + 1, dtype=used.dtype) <= used
    sound = jnp.all(finite | ~reached) & jnp.all(jnp.isfinite(norms) | ~made)
    # The bound applies to the last belief with a finite loss.
    spent = jnp.max(jnp.where(reached, moved, 0.0)) >= SPENT * jnp.asarray(max_kl, moved.dtype)
    refused = jnp.any(made) & ~jnp.any(accepted & (jnp.arange(steps) == used - 1))
    cases = [
        (~sound, Status.NOT_FINITE),
        (spent, Status.KL_SPENT),
        (refused, Status.REFUSED),
        (used < steps, Status.TOLERANCE_MET),
    ]
    found = jnp.asarray(Status.STEPS_DONE, jnp.int32)
    for holds, status in reversed(cases):
        found = jnp.where(holds, jnp.asarray(status, jnp.int32), found)
    return found
