"""How a value of the latent is taken from a belief: to act on, or inside an objective.

A readout decides what the gradient of an objective is: straight-through (`Sample`, `Mode`), exact
on the expectation (`Soft`), of a relaxed sample (`Gumbel`), or of the score of samples
(`Reinforce`). One of your own subclasses `Readout`.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Belief
from thinkslow.needs import DECODER, Need


class Readout(eqx.Module):
    """A way to take a latent from a belief."""

    needs: ClassVar[tuple[Need, ...]] = ()
    noiseless: ClassVar[bool] = False
    """Whether two draws from one belief are always equal."""
    least_draws: ClassVar[int] = 1
    """Draws without which `mean` has no gradient."""

    @abc.abstractmethod
    def of(self, belief: Belief, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """The latent that the noise of one draw makes.

        Args:
            belief: the one to read.
            noise: from `Belief.noise`.
        """

    def __call__(self, belief: Belief, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        """One latent."""
        return self.of(belief, belief.noise(key=key))

    def mean(
        self, values: Float[Array, " draws"], latents: Float[Array, "draws ..."], belief: Belief
    ) -> Float[Array, ""]:
        """The mean of an objective's values at latents drawn from the belief.

        Args:
            values: the objective at each latent.
            latents: leading axis: the draws.
            belief: the one they were drawn from.
        """
        return jnp.mean(values)

    def best(
        self,
        belief: Belief,
        error: Callable[[Array], Float[Array, ""]],
        *,
        key: PRNGKeyArray,
        other_key: PRNGKeyArray,
    ) -> Float[Array, "..."]:
        """The latent to act on.

        Args:
            belief: after refinement.
            error: of a latent, -log p(present observation | latent) in nats.
            key: of the draw that every readout shares, so that agents differ by thinking alone.
            other_key: for whatever else is random.
        """
        return self(belief, key=key)


class Sample(Readout):
    """One sample; the gradient passes straight through."""

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.sample_of(noise)


class Mode(Readout):
    """The likeliest latent; the gradient passes straight through."""

    noiseless: ClassVar[bool] = True

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.mode()


class Soft(Readout):
    """The expectation in place of a latent: no noise, but no real code."""

    noiseless: ClassVar[bool] = True

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.soft()


class Gumbel(Readout):
    """A relaxed sample of temperature 1, whose own gradient is exact."""

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.relaxed_of(noise)


class Reinforce(Readout):
    """Samples without a gradient of their own; `mean` has that of their scores.

    Each score is weighted by how far its value is above the mean of the others (leave-one-out):
    without bias, and noisy.
    """

    least_draws: ClassVar[int] = 2

    def of(self, belief: Belief, noise: Array) -> Array:
        return jax.lax.stop_gradient(belief.sample_of(noise))

    def mean(self, values: Array, latents: Array, belief: Belief) -> Float[Array, ""]:
        mean = jnp.mean(values)
        others = (jnp.sum(values) - values) / (len(values) - 1)
        scores = jax.vmap(belief.log_prob)(latents)
        surrogate = jnp.mean(jax.lax.stop_gradient(values - others) * scores)
        return mean + (surrogate - jax.lax.stop_gradient(surrogate))


class Softened(Readout):
    """A control: a sample moved towards the expectation by `length`, at most up to it.

    What a step of that length on the latent's numbers must beat: it softens, and knows nothing.
    """

    length: float = 0.5

    def of(self, belief: Belief, noise: Array) -> Array:
        sample, soft = belief.sample_of(noise), belief.soft()
        apart = soft - sample
        far = jnp.sqrt(jnp.sum(jnp.square(apart)))
        return sample + jnp.minimum(1.0, self.length / jnp.maximum(far, 1e-9)) * apart


class BestOf(Readout):
    """Of `count` samples, the one that reconstructs the present observation best."""

    needs: ClassVar[tuple[Need, ...]] = (DECODER,)
    count: int = 8

    def __check_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"`count` must be 1 or more; got {self.count}.")

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.sample_of(noise)

    def best(
        self, belief: Belief, error: Callable, *, key: PRNGKeyArray, other_key: PRNGKeyArray
    ) -> Any:
        first = belief.sample(key=key)
        others = jax.vmap(lambda k: belief.sample(key=k))(jr.split(other_key, self.count - 1))
        latents = jnp.concatenate([first[None], others])
        return latents[jnp.argmin(jax.vmap(error)(latents))]
