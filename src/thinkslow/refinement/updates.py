"""Update rules: plain gradient or any Optax optimiser, mirror, Langevin, random.

`step.within` decides how far a step goes, in nats. Subclass `Update` for your own rule.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray, PyTree

from thinkslow.distributions import Belief, Categorical
from thinkslow.needs import CATEGORICAL, Need
from thinkslow.refinement.result import Scalar
from thinkslow.trees import Alike


class Update(eqx.Module):
    """An update rule: the change of a belief, given a gradient."""

    keeps: ClassVar[tuple[str, ...]] = ()
    """Settings of a control that flags and studies do not change."""
    ignores_objective: ClassVar[bool] = False
    """Whether it uses neither the loss nor the gradient."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs from a model."""
        return ()

    @abc.abstractmethod
    def init(self, belief: Any) -> PyTree:
        """The state to carry from step to step.

        Args:
            belief: the first belief, any pytree of floating arrays.
        """

    @abc.abstractmethod
    def propose(
        self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Any, PyTree]:
        """The displacement of each array of the belief, and the new state.

        If the displacement moves the belief too far, in nats, it is scaled down afterwards.

        Args:
            belief: the present belief.
            gradient: the gradient of the objective, with the same structure.
            state: the state from `init` or from the previous step.
            key: PRNG key of this step.
        """

    def step_kl(self, max_kl: Scalar, steps: int) -> Scalar:
        """The default bound of one step, in nats.

        By default `max_kl / steps**2`: KL grows with the square of the distance, so `steps` equal
        steps in one direction use the whole budget.

        Args:
            max_kl: the budget of all steps together, nats.
            steps: the number of steps.
        """
        return max_kl / max(1, steps) ** 2


@runtime_checkable
class Optimiser(Protocol):
    """An Optax transformation. Optax itself, which takes a while to import, is not needed here."""

    @property
    def init(self) -> Callable[..., Any]:
        """`init(belief)` returns the first state."""
        ...

    @property
    def update(self) -> Callable[..., Any]:
        """`update(gradient, state, belief)` returns the change and the next state."""
        ...


class _Plain(NamedTuple):
    init: Callable[..., Any]
    update: Callable[..., Any]


def _downhill(gradient: Any, state: PyTree, belief: Any) -> tuple[Any, PyTree]:
    return jax.tree.map(lambda x: -x, gradient), state


def _alike(optimiser: Any) -> Any:
    """The same optimiser, made equal to another one with the same code."""
    return type(optimiser)(*map(Alike, optimiser))


class Gradient(Update):
    """Descent by any Optax optimiser.

    Args:
        step_size: multiplies the optimiser's output. The bound in nats shortens a step that is
            too long, so a large value such as 1000 leaves the bound to decide. May be traced.
        optimiser: any Optax transformation; by default plain gradient descent.
    """

    step_size: Scalar = 1.0
    optimiser: Optimiser = eqx.field(
        static=True, default=_Plain(lambda belief: (), _downhill), converter=_alike
    )

    def init(self, belief: Any) -> PyTree:
        return self.optimiser.init(belief)

    def propose(self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray):
        change, state = self.optimiser.update(gradient, state, belief)
        return jax.tree.map(lambda x: self.step_size * x, change), state


def adam(step_size: Scalar = 1.0) -> Gradient:
    """Descent by Adam.

    Args:
        step_size: the learning rate of Adam. May be traced.
    """
    import optax

    return Gradient(step_size, optax.adam(1.0))


class Mirror(Update):
    """Exponentiated gradient on the simplex: the natural gradient of a categorical belief.

    The gradient by the probabilities, up to a constant in each factor, is the gradient by the
    logits divided by the probabilities. A step subtracts `step_size` times that from the logits.

    Args:
        step_size: multiplies the gradient by the probabilities. May be traced.

    **Errors:** `TypeError` for a belief that is not categorical.
    """

    step_size: Scalar = 1.0

    @property
    def needs(self) -> tuple[Need, ...]:
        return (CATEGORICAL,)

    def init(self, belief: Belief) -> PyTree:
        if not isinstance(belief, Categorical):
            raise TypeError(
                f"A mirror step needs a categorical belief; this one is {type(belief).__name__}. "
                f"Use a gradient step."
            )

    def propose(self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray):
        # Below 1e-6 a class is practically absent, and the quotient is noise.
        probs = jnp.maximum(jax.nn.softmax(belief.logits), 1e-6)
        return jax.tree.map(lambda g: -self.step_size * g / probs, gradient), state


class Langevin(Update):
    """A gradient step with noise: `-a g + sqrt(2 a T) noise`, with step size a, temperature T.

    Many small steps sample the belief's parameters with density `exp(-objective / T)`. A few
    steps let a descent leave a shallow local minimum.

    Args:
        step_size: a. May be traced.
        temperature: T; 0 is plain gradient descent. May be traced.

    **References:** Welling and Teh, Bayesian Learning via Stochastic Gradient Langevin Dynamics,
    ICML 2011.
    """

    step_size: Scalar = 1.0
    temperature: Scalar = 1.0

    def init(self, belief: Any) -> PyTree:
        return None

    def propose(self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray):
        spread = jnp.sqrt(2 * jnp.asarray(self.step_size) * self.temperature)
        noise = _normal(key, belief)
        return jax.tree.map(
            lambda g, n: -self.step_size * g + spread.astype(n.dtype) * n, gradient, noise
        ), state


class Random(Update):
    """A random direction: a control that moves the belief by the same KL without a gradient.

    All steps go in one direction, so they add up. Steps in independent directions are nearly
    orthogonal and would use only a fraction of the budget. Each step is so long that the KL bound
    alone decides its length.
    """

    keeps: ClassVar[tuple[str, ...]] = ("update", "accept", "select")
    ignores_objective: ClassVar[bool] = True

    def step_kl(self, max_kl: Scalar, steps: int) -> Scalar:
        """No bound for a single step: all steps lie on one line."""
        return jnp.inf

    def init(self, belief: Any) -> PyTree:
        return jax.tree.map(jnp.zeros_like, belief), jnp.zeros((), bool)

    def propose(self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray):
        before, drawn = state
        fresh = jax.tree.map(lambda n: 1e3 * n, _normal(key, belief))
        change = jax.tree.map(lambda old, new: jnp.where(drawn, old, new), before, fresh)
        return change, (change, jnp.ones((), bool))


def _normal(key: PRNGKeyArray, belief: Any) -> Any:
    leaves, structure = jax.tree.flatten(belief)
    keys = jr.split(key, len(leaves))
    noise = [jr.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)
