"""One step of a refinement, and what is kept of many: shared by every loop over steps."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from thinkslow.refinement.trust import within
from thinkslow.refinement.updates import Direction, Scalar
from thinkslow.trees import all_finite, where

Objective: TypeAlias = Callable[[Any, PRNGKeyArray], tuple[Array, dict[str, Array]]]
Select: TypeAlias = Literal["last", "best"]
CERTAINTY = 2.0
"""Standard errors by which an objective must fall on several judging draws."""


class Refined(NamedTuple):
    """A refined belief and the whole way to it. Arrays over iterates have `steps + 1` entries,
    the first being the belief that came in. A descent that stopped early repeats its last."""

    belief: Any
    chosen: Int[Array, ""]
    """Which iterate `belief` is."""
    loss: Float[Array, " iterates"]
    """The objective on one fixed draw of random numbers."""
    terms: dict[str, Float[Array, " iterates"]]
    """The unweighted terms, and diagnostics, on that draw."""
    moved: Float[Array, " iterates"]
    """KL from the first belief, nats."""
    gradient_norm: Float[Array, " steps"]
    accepted: Bool[Array, " steps"]
    """Whether the step was taken, and moved the belief."""
    finite: Bool[Array, " iterates"]
    """Whether the objective was finite there; a belief where it is not never leaves."""
    used: Int[Array, ""]
    """Steps made before the descent stopped."""


class Rules(eqx.Module):
    """What bounds a step and what accepts it."""

    objective: Objective = eqx.field(static=True)
    update: Direction
    first: Any
    budget: Scalar
    judges: Key[Array, " judges"] | None
    """Keys of the draws that judge a step; None: every finite step is taken."""

    def judge(self, belief: Any) -> Float[Array, " judges"]:
        if self.judges is None:
            return jnp.zeros(1)
        if len(self.judges) == 1:
            return self.objective(belief, self.judges[0])[0][None]
        return jax.vmap(lambda key: self.objective(belief, key)[0])(self.judges)

    def step(
        self, now: Any, loss: Array, gradient: Any, held: "Held", key: PRNGKeyArray
    ) -> tuple[Any, "Held", Float[Array, ""], Bool[Array, ""]]:
        """The next belief, what is held, the gradient's norm, and whether the step was taken."""
        norm = optax.tree.norm(gradient)
        change, state = self.update.propose(now, gradient, held.state, key=key)
        new = within(now, change, held.trust, first=self.first, budget=self.budget)
        after = self.judge(new)
        taken = jnp.isfinite(loss) & jnp.isfinite(norm) & all_finite(new)
        if self.judges is None:
            taken &= jnp.all(jnp.isfinite(after))
        else:
            taken &= _falls(after - held.judged)
        now_or_new = where(taken, new, now)
        judged = jnp.where(taken, after, held.judged)
        trust = jnp.where(taken, held.trust, held.trust / 2)
        return now_or_new, Held(state, trust, judged), norm, taken & _differ(new, now)


class Held(NamedTuple):
    """What a descent carries besides the belief."""

    state: PyTree
    trust: Float[Array, ""]
    judged: Float[Array, " judges"]


def choose(
    beliefs: Any, first: Any, losses: Array, terms: dict[str, Array], norms: Array,
    accepted: Array, used: Array, select: Select,
) -> Refined:  # fmt: skip
    """The iterate to return, of those up to `used`, and the record of all."""
    finite = jnp.isfinite(losses)
    index = jnp.arange(len(losses), dtype=used.dtype)
    order = -index.astype(losses.dtype) if select == "last" else losses
    order = jnp.where(finite & (index <= used), order, jnp.inf)
    chosen = jnp.argmin(order)
    moved = jax.vmap(lambda b: b.kl(first))(beliefs)
    out = jax.tree.map(lambda x: x[chosen], beliefs)
    return Refined(out, chosen, losses, terms, moved, norms, accepted, finite, used)


def _falls(change: Float[Array, " judges"]) -> Bool[Array, ""]:
    """Whether the mean is below 0, of several draws by two standard errors."""
    count = len(change)
    if count == 1:
        return change[0] < 0
    return jnp.mean(change) + CERTAINTY * jnp.std(change, ddof=1) / np.sqrt(float(count)) < 0


def _differ(new: Any, old: Any) -> Bool[Array, ""]:
    return jnp.any(jnp.array(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.any(a != b), new, old))))


def judging(key: PRNGKeyArray, judges: int) -> Key[Array, " judges"]:
    """Keys of the draws that judge."""
    return key[None] if judges == 1 else jr.split(key, judges)


def check(steps: int, judges: int, select: str) -> None:
    """**Errors:** `ValueError` for what no descent can be told."""
    if steps < 0:
        raise ValueError(f"`steps` must be 0 or more; got {steps}.")
    if judges < 1:
        raise ValueError(f"`judges` must be 1 or more; got {judges}.")
    if select not in ("last", "best"):
        raise ValueError(f"`select` must be 'last' or 'best'; got {select!r}.")
