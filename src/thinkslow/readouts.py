"""Readouts: how a latent is taken from a belief, to act or inside an objective.

A readout decides how the gradient of an objective is computed: straight-through (`Sample`,
`Mode`), exact for the expectation (`Soft`), of a relaxed sample (`Gumbel`), or by the score
function (`Reinforce`). Subclass `Readout` for your own.
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

    noiseless: ClassVar[bool] = False
    """Whether two draws from one belief are always equal."""
    least_draws: ClassVar[int] = 1
    """Smallest number of draws for which `mean` has a gradient."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs from a model."""
        return ()

    @abc.abstractmethod
    def of(self, belief: Belief, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """The latent from the noise of one draw.

        Args:
            belief: the belief to read.
            noise: from `noise`.
        """

    def noise(self, belief: Belief, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        """The random numbers of one draw. They depend only on the belief's shape.

        Args:
            belief: the belief to read, or one of its shape.
            key: PRNG key of the draw.
        """
        return belief.noise(key=key)

    def __call__(self, belief: Belief, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        """One latent.

        Args:
            belief: the belief to read.
            key: PRNG key of the draw.
        """
        return self.of(belief, self.noise(belief, key=key))

    def mean(
        self, values: Float[Array, " draws"], latents: Float[Array, "draws ..."], belief: Belief
    ) -> Float[Array, ""]:
        """The mean of an objective's values at latents drawn from the belief.

        Args:
            values: the objective at each latent.
            latents: leading axis: the draws.
            belief: the belief that they were drawn from.
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
            belief: the belief after refinement.
            error: maps a latent to -log p(present observation | latent) in nats.
            key: PRNG key of the draw that all readouts share, so that agents differ only in their
                thinking.
            other_key: PRNG key of everything else.
        """
        return self(belief, key=key)


class Sample(Readout):
    """One sample with a straight-through gradient."""

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.sample_of(noise)


class Mode(Readout):
    """The most likely latent with a straight-through gradient."""

    noiseless: ClassVar[bool] = True

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.mode()


class Soft(Readout):
    """The expectation, used instead of a sample: no noise, but not a one-hot code."""

    noiseless: ClassVar[bool] = True

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.soft()


class Gumbel(Readout):
    """A relaxed sample with temperature 1 and its exact gradient."""

    def of(self, belief: Belief, noise: Array) -> Array:
        return belief.relaxed_of(noise)


class Reinforce(Readout):
    """Samples whose `mean` has the score-function gradient.

    Each score is weighted by the difference between its value and the mean of the others
    (leave-one-out): unbiased and noisy.
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

    It softens the latent without a gradient, so a gradient step of the same length must do better.
    """

    length: float = 0.5

    def of(self, belief: Belief, noise: Array) -> Array:
        sample, soft = belief.sample_of(noise), belief.soft()
        apart = soft - sample
        far = jnp.sqrt(jnp.sum(jnp.square(apart)))
        return sample + jnp.minimum(1.0, self.length / jnp.maximum(far, 1e-9)) * apart


class BestOf(Readout):
    """The one of `count` samples that reconstructs the present observation best."""

    count: int = 8

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODER,)

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
