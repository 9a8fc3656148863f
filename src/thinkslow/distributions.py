"""Probability distributions as pytrees: beliefs, and predictions of a model's heads.

Each is for one example. Log-probabilities and entropies are in nats and summed over the
event; there is no hidden averaging. A belief (`Categorical`, `Gaussian`) has `kl`, `entropy`
and three readouts of a state: `sample` (straight-through), `mode` and `soft`.
"""

import abc
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

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


@runtime_checkable
class Distribution(Protocol):
    """A head's prediction: a mode, and the log-probability of a value."""

    def mode(self) -> Array: ...
    def log_prob(self, value: Array) -> Float[Array, ""]: ...


def expected(head: Distribution) -> Float[Array, "..."]:
    """The mean of a predicted number, such as a reward; the mode, if the head has no `mean()`.

    >>> float(expected(Squared(jnp.array(0.5))))
    0.5
    """
    mean = getattr(head, "mean", None)
    return jnp.asarray(mean() if callable(mean) else head.mode(), jnp.float32)


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


class Bernoulli(eqx.Module):
    """Independent Bernoulli variables, given by their logits."""

    logit: Float[Array, "..."]

    def mode(self) -> Float[Array, "..."]:
        return (self.logit > 0).astype(self.logit.dtype)

    def prob(self) -> Float[Array, "..."]:
        return jax.nn.sigmoid(self.logit)

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        """0 or 1, with a straight-through gradient to the probability."""
        drawn = jr.bernoulli(key, self.prob()).astype(self.logit.dtype)
        return straight_through(drawn, self.prob())

    def entropy(self) -> Float[Array, ""]:
        """In nats, summed."""
        each = jax.nn.softplus(self.logit) - self.logit * self.prob()
        return jnp.sum(each)

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, ""]:
        """Cross-entropy, so that `value` may be a probability too; summed."""
        yes, no = jax.nn.log_sigmoid(self.logit), jax.nn.log_sigmoid(-self.logit)
        return jnp.sum(value * yes + (1 - value) * no)


class Squared(eqx.Module):
    """A normal of fixed variance 1/2: log-density minus the squared error, constant left out.

    The decoder of DreamerV3: images in [0, 1].
    """

    mean: Float[Array, "..."]

    def mode(self) -> Float[Array, "..."]:
        return self.mean

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, ""]:
        return -jnp.sum(jnp.square(self.mean - value))


class SymlogSquared(eqx.Module):
    """Squared error in symlog space: the decoder of DreamerV3 for vectors of any magnitude."""

    symlog_mean: Float[Array, "..."]

    def mode(self) -> Float[Array, "..."]:
        return symexp(self.symlog_mean)

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, ""]:
        return -jnp.sum(jnp.square(self.symlog_mean - symlog(value)))


class TwoHot(eqx.Module):
    """A real number as a categorical over bins `symexp(linspace(-20, 20, n))`.

    **References:** Hafner et al., Mastering Diverse Domains through World Models,
    arXiv 2301.04104.

    >>> logits = jnp.full(255, -1e9).at[127].set(0.0)     # all mass on the middle bin
    >>> float(TwoHot(logits).mean())
    0.0
    """

    logits: Float[Array, " bins"]

    def mean(self) -> Float[Array, ""]:
        """Expected bin, summed symmetrically so that equal masses cancel exactly."""
        terms = jax.nn.softmax(self.logits) * self.bins()
        half = terms.shape[-1] // 2
        pairs = terms[:half][::-1] + terms[-half:]
        return jnp.sum(terms[half:-half]) + jnp.sum(pairs)

    def mode(self) -> Float[Array, ""]:
        return self.mean()

    def log_prob(self, value: Float[Array, ""]) -> Float[Array, ""]:
        """Cross-entropy with `value` shared between its two neighbouring bins."""
        return _shared_log_prob(self.logits, self.bins(), value)

    def bins(self) -> Float[Array, " bins"]:
        """Centres, antisymmetric to the last bit; an even number of bins has zero twice."""
        count = self.logits.shape[-1]
        half = symexp(jnp.linspace(-20.0, 0.0, (count + 1) // 2))
        return jnp.concatenate([half, -half[: count // 2][::-1]])


class SymlogTwoHot(eqx.Module):
    """A real number as a categorical over bins `linspace(-20, 20, n)` of its symlog.

    The DreamerV3 of 2023: the mean is taken in symlog space, `symexp` of the expected bin.

    >>> logits = jnp.zeros(41).at[21].set(1e9)     # all mass on the bin of symlog(x) = 1
    >>> round(float(SymlogTwoHot(logits).mean()), 4)         # e - 1
    1.7183
    """

    logits: Float[Array, " bins"]

    def mean(self) -> Float[Array, ""]:
        return symexp(jnp.sum(jax.nn.softmax(self.logits) * self.bins()))

    def mode(self) -> Float[Array, ""]:
        return self.mean()

    def log_prob(self, value: Float[Array, ""]) -> Float[Array, ""]:
        """Cross-entropy with `symlog(value)` shared between its two neighbouring bins."""
        return _shared_log_prob(self.logits, self.bins(), symlog(value))

    def bins(self) -> Float[Array, " bins"]:
        """Centres, in symlog space."""
        return jnp.linspace(-20.0, 20.0, self.logits.shape[-1])


class BoundedNormal(eqx.Module):
    """Independent normals whose mean and deviation the head has bounded: continuous actions."""

    mean: Float[Array, " dim"]
    scale: Float[Array, " dim"]

    @classmethod
    def from_raw(
        cls, mean: Float[Array, " dim"], scale: Float[Array, " dim"], least: float, most: float
    ) -> "BoundedNormal":
        """DreamerV3's bounds of a network's raw outputs: the mean within [-1, 1], the deviation
        within [least, most]."""
        return cls(jnp.tanh(mean), (most - least) * jax.nn.sigmoid(scale + 2.0) + least)

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, " dim"]:
        return self.mean + self.scale * jr.normal(key, self.mean.shape, self.mean.dtype)

    def mode(self) -> Float[Array, " dim"]:
        return self.mean

    def log_prob(self, value: Float[Array, " dim"]) -> Float[Array, ""]:
        return Gaussian(self.mean, jnp.log(self.scale)).log_prob(value)

    def entropy(self) -> Float[Array, ""]:
        return Gaussian(self.mean, jnp.log(self.scale)).entropy()


def _shared_log_prob(
    logits: Float[Array, " bins"], bins: Float[Array, " bins"], value: Float[Array, ""]
) -> Float[Array, ""]:
    """Cross-entropy with a value shared between its two neighbouring bins, in proportion to
    nearness.
    """
    last = logits.shape[-1] - 1
    below = jnp.clip(jnp.sum(bins <= value) - 1, 0, last)
    above = jnp.clip(last + 1 - jnp.sum(bins > value), 0, last)
    gap_below = jnp.where(below == above, 1.0, jnp.abs(bins[below] - value))
    gap_above = jnp.where(below == above, 1.0, jnp.abs(bins[above] - value))
    share_below = gap_above / (gap_below + gap_above)
    log_probs = jax.nn.log_softmax(logits)
    return share_below * log_probs[below] + (1 - share_below) * log_probs[above]


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


def symlog(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sign(x) log(1 + |x|)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))
