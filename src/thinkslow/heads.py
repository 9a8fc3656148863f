"""What the heads of a model predict: numbers, images, rewards, actions.

Each is for one example. Log-probabilities are in nats and summed over the event.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Gaussian, straight_through


@runtime_checkable
class Distribution(Protocol):
    """A head's prediction: a mode, and the log-probability of a value."""

    def mode(self) -> Array: ...
    def log_prob(self, value: Array) -> Float[Array, ""]: ...


def expected(head: Distribution) -> Float[Array, "..."]:
    """The mean of a predicted number, such as a reward; the mode, if the head has no `mean()`.

    Of at least float32.

    >>> float(expected(Squared(jnp.array(0.5))))
    0.5
    """
    mean = getattr(head, "mean", None)
    found = jnp.asarray(mean() if callable(mean) else head.mode())
    return found.astype(jnp.promote_types(found.dtype, jnp.float32))


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


def symlog(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sign(x) log(1 + |x|)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))
