"""Beliefs: distributions over the latent that can be refined, as pytrees.

Each is for one example. Log-probabilities and entropies are in nats and summed over the
event; there is no hidden averaging. A belief (`Categorical`, `Gaussian`) has `kl`, `entropy`
and three readouts of a state: `sample` (straight-through), `mode` and `soft`.
"""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

Objective: TypeAlias = Callable[
    [Any, PRNGKeyArray], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
]
"""What refinement minimises: `objective(belief, key)` returns the loss and a dictionary of terms,
all scalars. A belief is any pytree of floating arrays with a `kl`."""


class Belief(eqx.Module):
    """A distribution over the latent that can be refined.

    Refinement changes its arrays: logits, or mean and log standard deviation.
    """

    @abc.abstractmethod
    def noise(self, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        """The random numbers of one draw. They depend only on the belief's shape, so a loop can
        draw them for all its steps in advance, which is several times faster on a CPU.

        Args:
            key: PRNG key of the draw.
        """

    @abc.abstractmethod
    def sample_of(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """The draw from given noise, differentiable in the belief.

        Args:
            noise: from `noise`.
        """

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        """A draw, differentiable in the belief.

        Args:
            key: PRNG key of the draw.
        """
        return self.sample_of(self.noise(key=key))

    @abc.abstractmethod
    def mode(self) -> Float[Array, "..."]:
        """The most likely value."""

    @abc.abstractmethod
    def soft(self) -> Float[Array, "..."]:
        """The expectation, used instead of a draw."""

    def relaxed_of(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """A draw from given noise with an exact gradient, which may leave the one-hot codes; by
        default `sample_of`.

        Args:
            noise: from `noise`.
        """
        return self.sample_of(noise)

    @abc.abstractmethod
    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, ""]:
        """The log-density of a value in nats, summed over the latent.

        Args:
            value: shaped as a draw.
        """

    @abc.abstractmethod
    def entropy(self) -> Float[Array, ""]:
        """The entropy in nats, summed over the latent."""

    @abc.abstractmethod
    def kl(self, other: Any) -> Float[Array, ""]:
        """KL(self || other) in nats, summed over the latent.

        Args:
            other: a belief of the same kind and shape.
        """


class Categorical(Belief):
    """Independent categoricals, one per factor, with a share of uniform mixed in.

    By default `logits` are the raw outputs of a network, and probabilities are
    `(1 - mix) softmax(logits) + mix / classes`. With `mixed`, the logits already contain the
    uniform, and probabilities are `softmax(logits)`. Both give the same distribution, but
    refinement changes the logits, so gradients differ. A model uses the kind of its code base.

    Args:
        logits: `(factors, classes)`.
        mix: the share of the uniform distribution, such as DreamerV3's 0.01.
        mixed: whether `logits` already contain the mix.

    >>> even = Categorical(jnp.zeros((2, 4)))
    >>> float(even.entropy())     # two factors of two bits each
    2.7725887...
    """

    logits: Float[Array, "*factors classes"]
    mix: float = eqx.field(static=True, default=0.0)
    mixed: bool = eqx.field(static=True, default=False)

    def log_probs(self) -> Float[Array, "*factors classes"]:
        """Log-probabilities after the mix."""
        if self.mixed or not self.mix:
            return jax.nn.log_softmax(self.logits)
        return jnp.log(self.probs())

    def probs(self) -> Float[Array, "*factors classes"]:
        probs = jax.nn.softmax(self.logits)
        if self.mixed or not self.mix:
            return probs
        return (1 - self.mix) * probs + self.mix / self.logits.shape[-1]

    def holding_mixed(self) -> "Categorical":
        """The same distribution, with log-probabilities after the mix as its logits."""
        return Categorical(self.log_probs(), self.mix, mixed=True)

    def noise(self, *, key: PRNGKeyArray) -> Float[Array, "*factors classes"]:
        return jr.gumbel(key, self.logits.shape, self.logits.dtype)

    def sample_of(
        self, noise: Float[Array, "*factors classes"]
    ) -> Float[Array, "*factors classes"]:
        """One-hot sample with a straight-through gradient to the probabilities."""
        return self._straight_through(jnp.argmax(self.log_probs() + noise, -1))

    def inverse_of(self, uniform: Float[Array, "*factors"]) -> Float[Array, "*factors classes"]:
        """One-hot sample by inverting the cumulative distribution, straight-through as `sample`.

        It takes one random number per factor, where `noise` takes one per class.

        Args:
            uniform: numbers in [0, 1).
        """
        classes = self.logits.shape[-1]
        up_to = jnp.triu(jnp.ones((classes, classes), jnp.float32))
        probs = self.probs().astype(jnp.float32)
        below = jnp.matmul(probs, up_to, precision="highest")  # on a CPU faster than `cumsum`
        index = jnp.sum(below <= uniform[..., None] * below[..., -1:], -1)
        return self._straight_through(jnp.minimum(index, classes - 1))

    def mode(self) -> Float[Array, "*factors classes"]:
        """One-hot of the most likely class, straight-through like `sample`."""
        return self._straight_through(jnp.argmax(self.logits, -1))

    def soft(self) -> Float[Array, "*factors classes"]:
        """The probabilities, used instead of a sample: no noise, but not a one-hot code."""
        return self.probs()

    def relaxed_of(
        self, noise: Float[Array, "*factors classes"]
    ) -> Float[Array, "*factors classes"]:
        """Gumbel-softmax sample with temperature 1: inside the simplex, not a one-hot code.

        **References:** Jang, Gu and Poole, arXiv 1611.01144.
        """
        return jax.nn.softmax(self.log_probs() + noise)

    def log_prob(self, value: Float[Array, "*factors classes"]) -> Float[Array, ""]:
        """Log-probability of a one-hot (or of a mixture: linear in `value`), over all factors."""
        return jnp.sum(value * self.log_probs())

    def entropy(self) -> Float[Array, ""]:
        return -jnp.sum(self.probs() * self.log_probs())

    def kl(self, other: "Categorical") -> Float[Array, ""]:
        """KL(self || other), exact, over all factors."""
        return jnp.sum(self.probs() * (self.log_probs() - other.log_probs()))

    def _straight_through(self, index: Int[Array, "*factors"]) -> Float[Array, "*factors classes"]:
        return straight_through(jax.nn.one_hot(index, self.logits.shape[-1]), self.probs())


class Gaussian(Belief):
    """Independent normals: a continuous belief.

    Args:
        mean: `(dim,)`.
        log_scale: log standard deviations, `(dim,)`.
    """

    mean: Float[Array, " dim"]
    log_scale: Float[Array, " dim"]

    def noise(self, *, key: PRNGKeyArray) -> Float[Array, " dim"]:
        return jr.normal(key, self.mean.shape, self.mean.dtype)

    def sample_of(self, noise: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Reparameterised sample."""
        return self.mean + jnp.exp(self.log_scale) * noise

    def mode(self) -> Float[Array, " dim"]:
        return self.mean

    def soft(self) -> Float[Array, " dim"]:
        return self.mean

    def log_prob(self, value: Float[Array, " dim"]) -> Float[Array, ""]:
        deviation = (value - self.mean) * jnp.exp(-self.log_scale)
        return jnp.sum(-0.5 * deviation**2 - self.log_scale - 0.5 * jnp.log(2 * jnp.pi))

    def entropy(self) -> Float[Array, ""]:
        return jnp.sum(self.log_scale + 0.5 * jnp.log(2 * jnp.pi * jnp.e))

    def kl(self, other: "Gaussian") -> Float[Array, ""]:
        """KL(self || other), exact."""
        shift = (self.mean - other.mean) * jnp.exp(-other.log_scale)
        ratio = 2 * (self.log_scale - other.log_scale)
        return 0.5 * jnp.sum(shift**2 + jnp.exp(ratio) - 1 - ratio)


class Point(Belief):
    """A latent as plain floats instead of a belief, for the literal reading of "refine the state".
    It may leave the one-hot codes and the simplex.
    """

    value: Float[Array, "..."]

    def noise(self, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        """Zeros: nothing is random."""
        return jnp.zeros_like(self.value)

    def sample_of(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.value

    def mode(self) -> Float[Array, "..."]:
        return self.value

    def soft(self) -> Float[Array, "..."]:
        return self.value

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, ""]:
        """Log-density of a normal with variance 1 around the point."""
        return -0.5 * jnp.sum(jnp.square(value - self.value) + jnp.log(2 * jnp.pi))

    def entropy(self) -> Float[Array, ""]:
        """0: a point has no entropy."""
        return jnp.zeros(())

    def kl(self, other: Any) -> Float[Array, ""]:
        """From a belief: -log other(value), linear in the value if the belief is categorical. From
        another point: half the squared distance, the KL of normals with variance 1."""
        if isinstance(other, Point):
            return 0.5 * jnp.sum(jnp.square(self.value - other.value))
        return -other.log_prob(self.value)


def straight_through(
    value: Float[Array, "..."], gradient: Float[Array, "..."]
) -> Float[Array, "..."]:
    """`value` in the forward pass, the gradient of `gradient` in the backward pass.

    The result is `value`, bit for bit: the difference is formed first and is exactly zero, whereas
    `(value + gradient) - stop_gradient(gradient)` would round.

    >>> bool(straight_through(jnp.float32(1.0), jnp.float32(0.3)) == 1.0)
    True
    """
    return jax.lax.stop_gradient(value) + (gradient - jax.lax.stop_gradient(gradient))
