"""Decision-time refinement of a latent belief.

A world model gives a belief about the present state in one encoder pass. This module improves
that belief, with every parameter frozen, by a few descent steps on an objective of the belief.
Nothing here knows the model: a belief is a pytree of floating arrays with a `kl`, an objective
any differentiable scalar function of it.

How far a step goes is bounded by the KL it moves the belief, because gradient norms differ
50-fold between states: a step length that suits one is nothing or ruin for another.
"""

import abc
from typing import Any, Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from thinkslow.distributions import Belief, Categorical
from thinkslow.objectives import Objective

Scalar: TypeAlias = Float[Array, ""] | float
SMALLEST = 24.0
"""Halvings of a step beyond which it is nothing."""
BISECTIONS = 15
"""To find the number of halvings to a thousandth."""


class Refined(NamedTuple):
    """A refined belief and the whole way to it. Arrays over iterates have `steps + 1` entries,
    the first being the belief that came in."""

    belief: Belief
    chosen: Int[Array, ""]
    """Which iterate `belief` is."""
    loss: Float[Array, " iterates"]
    """The objective on one fixed draw of random numbers."""
    terms: dict[str, Float[Array, " iterates"]]
    """The unweighted terms on that draw."""
    moved: Float[Array, " iterates"]
    """KL from the first belief, nats."""
    gradient_norm: Float[Array, " steps"]
    accepted: Bool[Array, " steps"]
    """Whether the step was taken."""
    finite: Bool[Array, " iterates"]
    """Whether the objective was finite there; a belief where it is not never leaves."""


class Direction(eqx.Module):
    """Where to go from a gradient. The contract of every update."""

    @abc.abstractmethod
    def init(self, belief: Belief) -> PyTree:
        """State to carry between steps."""

    @abc.abstractmethod
    def propose(
        self, belief: Belief, gradient: Belief, state: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Belief, PyTree]:
        """The displacement of each array of the belief, and the new state."""


class Gradient(Direction):
    """Descent by any Optax optimiser, its output scaled by `step_size`, which may be traced.

    >>> import optax
    >>> Gradient(0.1).optimiser == Gradient(0.2).optimiser
    True
    """

    step_size: Scalar
    optimiser: optax.GradientTransformation = eqx.field(static=True, default=optax.sgd(1.0))

    def init(self, belief: Any) -> PyTree:
        return self.optimiser.init(belief)

    def propose(self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray):
        change, state = self.optimiser.update(gradient, state, belief)
        return jax.tree.map(lambda x: self.step_size * x, change), state


class Mirror(Direction):
    """Exponentiated gradient on the simplex: the natural gradient of a categorical.

    The derivative by the probabilities, up to a constant in each factor, is the derivative by
    the logits divided by the probabilities; it moves the logits by minus `step_size` of that.
    """

    step_size: Scalar

    def init(self, belief: Belief) -> PyTree:
        if not isinstance(belief, Categorical):
            raise TypeError(
                f"A mirror step needs a categorical belief; this one is {type(belief).__name__}. "
                f"Use a gradient step."
            )

    def propose(self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray):
        # Below 1e-6 a class cannot be told from an absent one, and the quotient is noise.
        probs = jnp.maximum(jax.nn.softmax(belief.logits), 1e-6)
        return jax.tree.map(lambda g: -self.step_size * g / probs, gradient), state


class Random(Direction):
    """A random direction: the control that every gain must beat, at an equal KL moved."""

    def init(self, belief: Belief) -> PyTree:
        return None

    def propose(self, belief: Belief, gradient: Belief, state: PyTree, *, key: PRNGKeyArray):
        leaves, structure = jax.tree.flatten(belief)
        keys = jr.split(key, len(leaves))
        # Long enough that the KL bound, not the length, decides.
        noise = [1e3 * jr.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, noise), state


def refine(
    objective: Objective,
    belief: Belief,
    update: Direction,
    *,
    steps: int,
    key: PRNGKeyArray,
    trust: Scalar = jnp.inf,
    budget: Scalar = jnp.inf,
    accept: bool = False,
    select: Literal["last", "best"] = "last",
) -> Refined:
    """Descend `objective` from `belief` for `steps` steps.

    A step moves the belief by at most `trust` nats, KL(new || old), and never further than
    `budget` nats from where it began, KL(new || first): a longer one is shortened along its own
    line. With `accept`, a step is taken only if the objective falls on random
    numbers that it has not seen; a refused one halves the trust. All steps share one draw of
    random numbers, and `loss` is on that draw. `select` returns the last finite iterate or the
    one of least loss.

    A loss or gradient that is not finite ends the descent: the last good belief comes back and
    `finite`, or for a gradient `gradient_norm`, says so. If the first belief is already bad, it
    comes back as it was. `step_size`, `trust` and `budget` may be traced: changing them does not
    recompile.

    **Cost:** `steps` gradients and one evaluation; with `accept`, `steps + 1` evaluations more.

    **Errors:** `ValueError` for negative `steps` or an unknown `select`.

    >>> from thinkslow.distributions import Gaussian
    >>> q = Gaussian(jnp.zeros(1), jnp.zeros(1))
    >>> bowl = lambda q, key: (jnp.sum((q.mean - 3.0) ** 2), {})
    >>> refine(bowl, q, Gradient(0.25), steps=3, key=jr.key(0)).loss
    Array([9.       , 2.25     , 0.5625   , 0.140625], dtype=float32)
    """
    if steps < 0:
        raise ValueError(f"`steps` must be 0 or more; got {steps}.")
    if select not in ("last", "best"):
        raise ValueError(f"`select` must be 'last' or 'best'; got {select!r}.")
    noise_key, judge_key, step_key = jr.split(key, 3)
    differentiate = jax.value_and_grad(objective, has_aux=True)

    def judge(candidate: Belief) -> Float[Array, ""]:
        return objective(candidate, judge_key)[0] if accept else jnp.zeros(())

    def step(carry: tuple, key: PRNGKeyArray) -> tuple[tuple, tuple]:
        now, state, trust, judged = carry
        (loss, terms), gradient = differentiate(now, noise_key)
        norm = optax.tree.norm(gradient)
        change, state = update.propose(now, gradient, state, key=key)
        new = within(now, change, trust, first=belief, budget=budget)
        after = judge(new)
        taken = jnp.isfinite(loss) & jnp.isfinite(norm) & _finite(new)
        taken &= (after < judged) if accept else jnp.isfinite(after)
        iterate = (now, loss, terms, norm, taken)
        now = _where(taken, new, now)
        judged = jnp.where(taken, after, judged)
        return (now, state, jnp.where(taken, trust, trust / 2), judged), iterate

    trust = jnp.asarray(trust, jnp.float32)
    carry = (belief, update.init(belief), trust, judge(belief))
    carry, (beliefs, losses, terms, norms, taken) = jax.lax.scan(
        step, carry, jr.split(step_key, steps)
    )
    last_loss, last_terms = objective(carry[0], noise_key)
    beliefs, losses, terms = jax.tree.map(
        lambda many, last: jnp.concatenate([many, last[None]]),
        (beliefs, losses, terms), (carry[0], last_loss, last_terms),
    )  # fmt: skip
    finite = jnp.isfinite(losses)
    order = jnp.where(finite, -jnp.arange(steps + 1.0) if select == "last" else losses, jnp.inf)
    chosen = jnp.argmin(order)
    moved = jax.vmap(lambda b: b.kl(belief))(beliefs)
    out = jax.tree.map(lambda x: x[chosen], beliefs)
    return Refined(out, chosen, losses, terms, moved, norms, taken, finite)


def within(
    belief: Belief, change: Belief, trust: Scalar, *, first: Belief, budget: Scalar
) -> Belief:
    """The belief moved along `change`, as far as KL(moved || belief) stays within `trust` and
    KL(moved || first) within `budget`.

    To the bit the whole change where that fits; otherwise the share of it that fits, found by
    bisection to a thousandth. A change that is nothing, or a bound of 0, gives the belief back
    to the bit: the KL of a tiny move rounds to 0, so 0 nats are not left to the comparison.
    """

    def at(share: Scalar) -> Belief:
        return jax.tree.map(lambda x, d: x + share * d, belief, change)

    def fits(share: Scalar) -> Bool[Array, ""]:
        moved = at(share)
        return (moved.kl(belief) <= trust) & (moved.kl(first) <= budget)

    def bisect(bounds: tuple, _: None) -> tuple[tuple, None]:
        few, many = bounds  # halvings that do not fit, and that do
        middle = 0.5 * (few + many)
        good = fits(2.0**-middle)
        return (jnp.where(good, few, middle), jnp.where(good, middle, many)), None

    bounds = (jnp.zeros(()), jnp.full((), SMALLEST))
    (_, halvings), _ = jax.lax.scan(bisect, bounds, None, BISECTIONS)
    share = 2.0**-halvings
    share = jnp.where(fits(1.0), 1.0, jnp.where(fits(share), share, 0.0))
    return at(jnp.where((trust > 0) & (budget > 0), share, 0.0))


def _finite(tree: PyTree) -> Bool[Array, ""]:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _where(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
