"""Where to go from a gradient: plain or by any Optax optimiser, mirror, Langevin, at random.

How far a step goes is not decided here but by `trust.within`, in nats. An update of your own
subclasses `Update`.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray, PyTree

from thinkslow.distributions import Belief, Categorical
from thinkslow.needs import CATEGORICAL, Need
from thinkslow.refinement.result import Scalar
from thinkslow.trees import Alike


class Update(eqx.Module):
    """Where to go from a gradient. The contract of every update."""

    needs: ClassVar[tuple[Need, ...]] = ()
    keeps: ClassVar[tuple[str, ...]] = ()
    """Settings of a control made of this update that a study of other settings leaves alone."""

    @abc.abstractmethod
    def init(self, belief: Any) -> PyTree:
        """State to carry between steps."""

    @abc.abstractmethod
    def propose(
        self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Any, PyTree]:
        """The displacement of each array of the belief, and the new state."""

    def step_kl(self, max_kl: Scalar, steps: int) -> Scalar:
        """How far one of `steps` steps may move the belief, in nats, where nobody says.

        `max_kl / steps**2`, which adds up to `max_kl` along a straight line, where KL grows with
        the square of the way.
        """
        return max_kl / max(1, steps) ** 2


def _alike(optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimiser, equal to another that was made alike."""
    return type(optimiser)(*map(Alike, optimiser))


class Gradient(Update):
    """Descent by any Optax optimiser, its output scaled by `step_size`, which may be traced."""

    step_size: Scalar = 1.0
    optimiser: optax.GradientTransformation = eqx.field(
        static=True, default=optax.sgd(1.0), converter=_alike
    )

    def init(self, belief: Any) -> PyTree:
        return self.optimiser.init(belief)

    def propose(self, belief: Any, gradient: Any, state: PyTree, *, key: PRNGKeyArray):
        change, state = self.optimiser.update(gradient, state, belief)
        return jax.tree.map(lambda x: self.step_size * x, change), state


def adam(step_size: Scalar = 1.0) -> Gradient:
    """Descent by Adam."""
    return Gradient(step_size, optax.adam(1.0))


class Mirror(Update):
    """Exponentiated gradient on the simplex: the natural gradient of a categorical.

    The derivative by the probabilities, up to a constant in each factor, is the derivative by
    the logits divided by the probabilities; it moves the logits by minus `step_size` of that.
    """

    needs: ClassVar[tuple[Need, ...]] = (CATEGORICAL,)
    step_size: Scalar = 1.0

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


class Langevin(Update):
    """A gradient step with noise: `-a g + sqrt(2 a T) noise`, `a` the step size.

    Many small steps draw beliefs' parameters with density `exp(-objective / T)`; few let a
    descent leave a shallow place. `temperature` 0 is the plain gradient.

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
    """A random direction: the control that every gain must beat, at an equal KL moved.

    One direction for all steps of a descent, so that they add up: steps in directions of their
    own are orthogonal, and end at a fraction of the nats that they were given. Each step is so
    long that the KL bound alone decides how far it goes.
    """

    keeps: ClassVar[tuple[str, ...]] = ("update", "accept", "select")

    def step_kl(self, max_kl: Scalar, steps: int) -> Scalar:
        """No bound of its own: steps lie on one line and look at nothing."""
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
