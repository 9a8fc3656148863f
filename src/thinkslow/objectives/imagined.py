"""Terms over imagined futures.

**References:** Benfeghoul et al., When in Doubt, Think Slow, arXiv 2402.15283.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.needs import DECODES_ALL, MEMBERS, SPREAD, Need
from thinkslow.objectives.information import parameter_information_gain, state_information_gain
from thinkslow.objectives.term import ImaginedStep, ImaginedTerm, TermValues
from thinkslow.worldmodel import State, surprise

ESTIMATORS = ("kl", "barber-agakov", "entropies")


class SIG(ImaginedTerm):
    """State information gain: how much the re-encoded imagined observation says about the latent.

    Two diagnostics are reported with it: `barber-agakov`, its lower bound E[log q(z) - log p(z)] at
    the decoded latent z, and `self-consistency`, the gap to that bound, which is 0 on average if
    the encoder is exact. Both are defined for sampled latents; a readout without noise gives them
    for one value.

    **Cost:** one decoding and one encoding for each imagined step, and for the present.
    """

    estimator: str = "kl"
    """`kl`: KL(q || p), from the prior to the re-encoded observation; `barber-agakov`: log q(z) -
    log p(z) at the decoded latent z; `entropies`: H(p) - H(q). With an exact encoder all three have
    the same mean; the last two may be negative."""
    now: bool = False
    """Whether the present belief is also decoded and encoded again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"`estimator` must be one of {', '.join(ESTIMATORS)}; got {self.estimator!r}."
            )

    @property
    def name(self) -> str:
        kind = "" if self.estimator == "kl" else f"-{self.estimator}"
        return f"sig{kind}{'-now' * self.now}"

    @property
    def at_present(self) -> bool:
        return self.now

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODES_ALL,)

    def at_step(self, model: Any, step: ImaginedStep, *, key: PRNGKeyArray) -> Float[Array, ""]:
        again, prior = step.posterior, step.prior
        if self.estimator == "entropies":
            return prior.entropy() - again.entropy()
        if self.estimator == "barber-agakov":
            value = step.state.latent.astype(jax.tree.leaves(again)[0].dtype)
            return again.log_prob(value) - prior.log_prob(value)
        return state_information_gain(again, prior)

    def diagnostics(self, model: Any, step: ImaginedStep) -> TermValues:
        again, prior = step.posterior, step.prior
        value = step.state.latent.astype(jax.tree.leaves(again)[0].dtype)
        bound = again.log_prob(value) - prior.log_prob(value)
        gain = state_information_gain(again, prior)
        return {"barber-agakov": bound, "self-consistency": gain - bound}


class ELBO(ImaginedTerm):
    """Imagined evidence bound: SIG plus the error of decoding, encoding, decoding.

    **Cost:** two decodings and one encoding for each imagined step.
    """

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODES_ALL,)

    def at_step(self, model: Any, step: ImaginedStep, *, key: PRNGKeyArray) -> Float[Array, ""]:
        code = State(step.state.memory, step.latent(step.posterior, key=key))
        gain = state_information_gain(step.posterior, step.prior)
        return gain + surprise(model, code, step.imagined)


class PIG(ImaginedTerm):
    """Parameter information gain: how far plausible parameters disagree about the prior.

    **Cost:** one more core step and a prior head for each member, for each imagined step.
    """

    @property
    def needs(self) -> tuple[Need, ...]:
        return (MEMBERS,)

    def at_step(self, model: Any, step: ImaginedStep, *, key: PRNGKeyArray) -> Float[Array, ""]:
        still = jnp.zeros((), bool)
        return parameter_information_gain(
            step.members(lambda one: one.predict(step.before, step.action, still)[1])
        )


class ObservedPIG(ImaginedTerm):
    """Parameter information gain about the imagined observation.

    **Cost:** one decoding for each member, for each imagined step.
    """

    @property
    def name(self) -> str:
        return "pig-observed"

    @property
    def needs(self) -> tuple[Need, ...]:
        return MEMBERS, SPREAD

    def at_step(self, model: Any, step: ImaginedStep, *, key: PRNGKeyArray) -> Float[Array, ""]:
        heads = step.members(lambda one: dict(one.decode(step.state)))
        return _total([parameter_information_gain(heads[name]) for name in step.uncertain])


class Entropy(ImaginedTerm):
    """Entropy of the imagined priors; needs no decoder. **Cost:** only imagination."""

    def at_step(self, model: Any, step: ImaginedStep, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return step.prior.entropy()


class Ambiguity(ImaginedTerm):
    """Entropy of the imagined observations. **Cost:** one decoding for each imagined step."""

    @property
    def needs(self) -> tuple[Need, ...]:
        return (SPREAD,)

    def at_step(self, model: Any, step: ImaginedStep, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return _total([head.entropy() for head in step.uncertain.values()])


def _total(values: list[Array]) -> Float[Array, ""]:
    return sum(values, jnp.zeros(()))
