"""What refinement descends: terms in nats over imagined futures and the present observation.

Each term is a non-negative information (evidence apart, which is a surprise and may have any
sign); its weight, chosen by the caller, carries the sign. `lookahead` binds terms to a model and
a moment and returns a function of the belief alone. Sums are never averaged over a batch or a
horizon: the size of a gradient does not depend on either.

**References:** Benfeghoul et al., When in Doubt, Think Slow, arXiv 2402.15283.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Belief
from thinkslow.worldmodel import (
    Memory,
    Observation,
    Policy,
    Readout,
    State,
    WorldModel,
    imagine,
    read,
    surprise,
)

Objective: TypeAlias = Callable[
    [Belief, PRNGKeyArray], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
]

IMAGINED = {
    "sig": "state information gain: KL from the prior to the re-encoded imagined observation",
    "elbo": "imagined evidence bound: sig plus the error of decoding, encoding, decoding",
    "entropy": "entropy of the imagined priors; needs no decoder",
}
"""Terms summed over the steps of a rollout and averaged over rollouts."""

PRESENT = {
    "evidence": "surprise at the present observation, as the encoder was trained to lower it",
    "anchor": "KL from the encoder's belief",
}
"""Terms of the present moment."""

TERMS = IMAGINED | PRESENT
"""Every term, with what it is."""


def state_information_gain(posterior: Belief, prior: Belief) -> Float[Array, ""]:
    """How much an observation would move the belief: KL(posterior || prior), in nats.

    Exact, non-negative, summed over factors, mixed as the model was trained. No free-nats floor
    is applied: that belongs to training.

    >>> from thinkslow.distributions import Categorical
    >>> even, sure = Categorical(jnp.zeros((1, 2))), Categorical(jnp.array([[40.0, -40.0]]))
    >>> float(state_information_gain(sure, even))       # one bit
    0.6931471...
    """
    return posterior.kl(prior)


def evidence(
    model: WorldModel,
    memory: Memory,
    prior: Belief,
    observation: Observation,
    belief: Belief,
    *,
    beta: Float[Array, ""] | float,
    free_nats: Float[Array, ""] | float,
    samples: int,
    latent: Readout,
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """-E_q log p(x | h, z) + beta max(KL(q || p), free nats): the present-step ELBO, negated.

    The expectation is over `samples` latents, or over the soft latent, which has no noise.
    With `beta` 1 the belief is pulled to the prior; DreamerV3 trains its encoder with 0.1.
    """
    error = jnp.mean(
        jax.vmap(
            lambda key: surprise(model, State(memory, read(belief, latent, key=key)), observation)
        )(jr.split(key, 1 if latent != "sample" else samples))
    )
    return error + beta * jnp.maximum(belief.kl(prior), free_nats)


def lookahead(
    model: WorldModel,
    policy: Policy,
    memory: Memory,
    prior: Belief,
    posterior: Belief,
    observation: Observation,
    *,
    terms: Mapping[str, Float[Array, ""] | float],
    horizon: int,
    rollouts: int = 1,
    samples: int = 1,
    latent: Readout = "sample",
    beta: Float[Array, ""] | float = 1.0,
    free_nats: Float[Array, ""] | float = 0.0,
) -> Objective:
    """The weighted sum of terms as a function of the belief about the present latent.

    `terms` maps names of `TERMS` to weights. `horizon` imagined steps, averaged over `rollouts`
    futures, each from a latent of its own; `latent` says how a value is taken from a belief:
    straight-through `sample` or `mode`, or the `soft` latent. Given the same key, the objective
    is the same function: descent does not chase noise. Weights, `beta` and `free_nats` may be
    traced. Returns the sum and the unweighted terms.

    **Cost:** with imagined terms, `rollouts * horizon` steps of the core and the policy, and for
    `sig` and `elbo` as many decodings and encodings; for `evidence`, `samples` decodings.

    **Errors:** `ValueError` for an unknown term, a count below 1, or a term that needs a decoder
    where the model has none.
    """
    _check(model, memory, posterior, terms, horizon, rollouts, samples)
    imagined = [name for name in IMAGINED if name in terms]

    def objective(
        belief: Belief, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        present_key, future_key = jr.split(key)
        found: dict[str, Float[Array, ""]] = {}
        if "evidence" in terms:
            found["evidence"] = evidence(
                model, memory, prior, observation, belief, beta=beta, free_nats=free_nats,
                samples=samples, latent=latent, key=present_key,
            )  # fmt: skip
        if "anchor" in terms:
            found["anchor"] = belief.kl(posterior)
        if imagined:

            def future(key: PRNGKeyArray) -> dict[str, Float[Array, ""]]:
                return _future(model, policy, memory, belief, imagined, horizon, latent, key)

            futures = jax.vmap(future)(jr.split(future_key, rollouts))
            found |= {name: jnp.mean(value) for name, value in futures.items()}
        total = sum((terms[name] * value for name, value in found.items()), jnp.zeros(()))
        return total, found

    return objective


def _future(
    model: WorldModel,
    policy: Policy,
    memory: Memory,
    belief: Belief,
    names: list[str],
    horizon: int,
    latent: Readout,
    key: PRNGKeyArray,
) -> dict[str, Float[Array, ""]]:
    """Each term summed over one imagined future."""
    start_key, roll_key, code_key = jr.split(key, 3)
    state = State(memory, read(belief, latent, key=start_key))
    steps = imagine(model, policy, state, horizon=horizon, key=roll_key, readout=latent)

    def terms(prior: Belief, state: State, key: PRNGKeyArray) -> dict[str, Float[Array, ""]]:
        out = {}
        if "entropy" in names:
            out["entropy"] = prior.entropy()
        if "sig" in names or "elbo" in names:
            seen = {name: head.mode() for name, head in model.decode(state).items()}
            again = model.infer(state.memory, seen)
            gain = state_information_gain(again, prior)
            if "sig" in names:
                out["sig"] = gain
            if "elbo" in names:
                code = State(state.memory, read(again, latent, key=key))
                out["elbo"] = gain + surprise(model, code, seen)
        return out

    each = jax.vmap(terms)(steps.prior, steps.state, jr.split(code_key, horizon))
    return {name: jnp.sum(value) for name, value in each.items()}


def _check(
    model: WorldModel, memory: Memory, posterior: Belief, terms: Mapping, horizon: int,
    rollouts: int, samples: int,
) -> None:  # fmt: skip
    check_terms(terms)
    for name, count in (("horizon", horizon), ("rollouts", rollouts), ("samples", samples)):
        if count < 1:
            raise ValueError(f"`{name}` must be 1 or more; got {count}.")
    blind = [name for name in ("sig", "elbo", "evidence") if name in terms]
    if blind and not jax.eval_shape(model.decode, State(memory, posterior.mode())):
        raise ValueError(
            f"`{blind[0]}` needs a decoder and this model has none. Use `entropy` or `anchor`."
        )


def check_terms(terms: Mapping) -> None:
    """**Errors:** `ValueError` for a name that is no term."""
    for name in terms:
        if name not in TERMS:
            raise ValueError(f"A term must be one of {', '.join(TERMS)}; got {name!r}.")
