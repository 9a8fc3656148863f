"""Trust region: scale a step so that the KL by which it moves the belief stays within a bound."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from thinkslow.refinement.result import Scalar

LONGEST = 2.0**10
"""A change that is too large is first shortened so that no number changes by more than this."""
HALVINGS = 34.0
"""Number of halvings after which the change is set to 0."""
BISECTIONS = 15
"""Number of bisections, which find the number of halvings to a thousandth."""


def within(belief: Any, change: Any, step_kl: Scalar, *, first: Any, max_kl: Scalar) -> Any:
    """The belief moved along `change`, as far as KL(moved || belief) stays within `step_kl` and
    KL(moved || first) within `max_kl`.

    If the whole change fits, it is applied bit for bit. Otherwise bisection finds the share that
    fits, to a thousandth, however long the change is. A zero change, or a bound of 0, returns the
    belief bit for bit. (A bound of 0 is handled separately, because the KL of a tiny move rounds
    to 0.)
    """
    longest = jnp.max(jnp.array([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(change)]))
    start = jnp.minimum(1.0, LONGEST / longest)

    def at(share: Scalar) -> Any:
        return jax.tree.map(lambda x, d: x + share * d, belief, change)

    def fits(share: Scalar) -> Bool[Array, ""]:
        moved = at(share)
        return (moved.kl(belief) <= step_kl) & (moved.kl(first) <= max_kl)

    def bisect(bounds: tuple, _: None) -> tuple[tuple, None]:
        few, many = bounds  # numbers of halvings that are too few, and enough
        middle = 0.5 * (few + many)
        good = fits(start * 2.0**-middle)
        return (jnp.where(good, few, middle), jnp.where(good, middle, many)), None

    bounds = (jnp.zeros_like(start), jnp.full_like(start, HALVINGS))
    (_, halvings), _ = jax.lax.scan(bisect, bounds, None, BISECTIONS)
    share = start * 2.0**-halvings
    share = jnp.where(fits(1.0), 1.0, jnp.where(fits(share), share, 0.0))
    return at(jnp.where((step_kl > 0) & (max_kl > 0), share, 0.0))
