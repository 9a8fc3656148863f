"""Terms at the present observation."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Belief
from thinkslow.needs import DECODER, TRAINED_BETA, TRAINED_FREE_NATS, Need
from thinkslow.objectives.term import Present, PresentTerm
from thinkslow.worldmodel import surprise_at


class Evidence(PresentTerm):
    """-E_q log p(x | h, z) + beta max(KL(q || p), free nats): the present-step ELBO, negated.

    The loss of the encoder at the present observation. The expectation is over `samples` latents,
    or over the single one of a readout without noise. With `beta=1` the belief is pulled towards
    the prior; DreamerV3 trains its encoder with 0.1.

    **Cost:** `samples` decodings.
    """

    beta: float | None = None
    """Weight of the KL; None: as the model was trained."""
    free_nats: float | None = None
    """Number of nats below which the KL does not count; None: as the model was trained."""
    samples: int = 1
    """Number of latents to average over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ValueError(f"`samples` must be 1 or more; got {self.samples}.")

    @property
    def needs(self) -> tuple[Need, ...]:
        trained = {TRAINED_BETA: self.beta, TRAINED_FREE_NATS: self.free_nats}
        return DECODER, *(need for need, given in trained.items() if given is None)

    @property
    def draws(self) -> int:
        return self.samples

    def value(self, belief: Belief, present: Present, *, key: PRNGKeyArray) -> Float[Array, ""]:
        model, moment, latent = present.model, present.moment, present.latent
        beta = model.trained_beta if self.beta is None else self.beta
        free_nats = model.trained_free_nats if self.free_nats is None else self.free_nats
        assert beta is not None
        assert free_nats is not None  # checked by `needs`

        def one(key: PRNGKeyArray) -> tuple[Array, Array]:
            code = latent(belief, key=key)
            return code, surprise_at(model, moment, code, present.observation)

        count = 1 if latent.noiseless else self.samples
        codes, errors = jax.vmap(one)(jr.split(key, count))
        error = latent.mean(errors, codes, belief)
        return error + beta * jnp.maximum(belief.kl(moment.prior), free_nats)


class Anchor(PresentTerm):
    """KL from the encoder's belief: keeps the refined belief near it."""

    def value(self, belief: Belief, present: Present, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return belief.kl(present.moment.posterior)


class Prior(PresentTerm):
    """KL to the prior: keeps the refined belief near the memory's prediction.

    For a latent that is stepped as floats: -log p(z).
    """

    def value(self, belief: Belief, present: Present, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return belief.kl(present.moment.prior)


class L2(PresentTerm):
    """Half the squared distance between the expected latents of two beliefs."""

    def value(self, belief: Belief, present: Present, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return 0.5 * jnp.sum(jnp.square(belief.soft() - present.start.soft()))
