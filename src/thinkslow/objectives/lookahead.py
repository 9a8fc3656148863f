"""Terms bound to a model and a moment: a function of the belief alone.

Each term is a non-negative information where it is one (entropies of Gaussians and surprises may
have any sign); its weight, chosen by the caller, carries the sign. Sums are never averaged over a
batch or a horizon: the size of a gradient does not depend on either.

**References:** Benfeghoul et al., When in Doubt, Think Slow, arXiv 2402.15283.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Belief, Distribution
from thinkslow.objectives.information import parameter_information_gain, state_information_gain
from thinkslow.objectives.members import Members
from thinkslow.objectives.terms import (
    IMAGINED,
    NEED_DECODER,
    NEED_MEMBERS,
    NEED_SPREAD,
    check_terms,
)
from thinkslow.worldmodel import (
    Action,
    Draw,
    Memory,
    Observation,
    Policy,
    State,
    WorldModel,
    imagine,
    read,
    surprise,
)

Terms: TypeAlias = dict[str, Float[Array, ""]]
Objective: TypeAlias = Callable[[Belief, PRNGKeyArray], tuple[Float[Array, ""], Terms]]
Imagery: TypeAlias = Literal["mode", "sample"]


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
    latent: Draw = "sample",
    imagery: Imagery = "mode",
    members: Members | None = None,
    beta: Float[Array, ""] | float = 1.0,
    free_nats: Float[Array, ""] | float = 0.0,
) -> Objective:
    """The weighted sum of terms as a function of the belief about the present latent.

    `terms` maps names of `TERMS` to weights. `horizon` imagined steps, averaged over `rollouts`
    futures, each from a latent of its own. `latent` says how a value is taken from a belief and
    so what the gradient is: straight-through `sample` or `mode`, the `soft` latent, the relaxed
    `gumbel` sample, or `reinforce`, samples under the leave-one-out score estimator: unbiased,
    noisy. An imagined observation is the decoder's `mode`, or a `sample` of it where the decoder
    has a spread (the informations are exact only with samples). Given the same key, the objective
    is the same function: descent does not chase noise. Weights, `beta` and `free_nats` may be
    traced. Returns the sum and the unweighted terms; beside `sig` also `DIAGNOSTICS`.

    **Cost:** with imagined terms, `rollouts * horizon` steps of the core and the policy, and for
    `sig` and `elbo` as many decodings and encodings; for `pig` as many cores again and a prior
    head for each of `members`; for `evidence`, `samples` decodings.

    **Errors:** `ValueError` for an unknown term, a count below 1 (2 for `reinforce`), or a term
    that needs a decoder, a decoder with a spread, or `members`, where there are none.
    """
    _check(model, memory, posterior, terms, horizon, rollouts, samples, latent, imagery, members)
    imagined = [name for name in IMAGINED if name in terms]

    def objective(belief: Belief, key: PRNGKeyArray) -> tuple[Float[Array, ""], Terms]:
        present_key, future_key = jr.split(key)
        found: Terms = {}
        if "evidence" in terms:
            found["evidence"] = evidence(
                model, memory, prior, observation, belief, beta=beta, free_nats=free_nats,
                samples=samples, latent=latent, key=present_key,
            )  # fmt: skip
        if "anchor" in terms:
            found["anchor"] = belief.kl(posterior)
        if imagined:

            def future(key: PRNGKeyArray) -> tuple[Array, Terms]:
                start_key, roll_key, code_key = jr.split(key, 3)
                state = State(memory, read(belief, latent, key=start_key))
                steps = imagine(model, policy, state, horizon=horizon, key=roll_key, readout=latent)

                def each(before: State, action: Action, belief: Belief, after: State, key: Any):
                    return _at_step(
                        model, members, imagined, latent, imagery, before, action, belief, after,
                        key,
                    )  # fmt: skip

                before = jax.tree.map(
                    lambda first, rest: jnp.concatenate([first[None], rest[:-1]]),
                    state,
                    steps.state,
                )
                keys = jr.split(code_key, horizon)
                values = jax.vmap(each)(before, steps.action, steps.prior, steps.state, keys)
                return state.latent, jax.tree.map(jnp.sum, values)

            latents, values = jax.vmap(future)(jr.split(future_key, rollouts))
            found |= {name: _mean(each, latents, belief, latent) for name, each in values.items()}
        weighted = (terms[name] * value for name, value in found.items() if name in terms)
        return sum(weighted, jnp.zeros(())), found

    return objective


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
    latent: Draw,
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """-E_q log p(x | h, z) + beta max(KL(q || p), free nats): the present-step ELBO, negated.

    The expectation is over `samples` latents, or over the soft latent, which has no noise.
    With `beta` 1 the belief is pulled to the prior; DreamerV3 trains its encoder with 0.1.
    """

    def one(key: PRNGKeyArray) -> tuple[Array, Array]:
        code = read(belief, latent, key=key)
        return code, surprise(model, State(memory, code), observation)

    noiseless = latent in ("mode", "soft")
    codes, errors = jax.vmap(one)(jr.split(key, 1 if noiseless else samples))
    error = _mean(errors, codes, belief, latent)
    return error + beta * jnp.maximum(belief.kl(prior), free_nats)


def _mean(
    values: Float[Array, " draws"], latents: Float[Array, "draws ..."], belief: Belief, how: Draw
) -> Float[Array, ""]:
    """The mean over draws. Under `reinforce`, its gradient is that of the score of each draw,
    weighted by how far its value is above the mean of the others."""
    mean = jnp.mean(values)
    if how != "reinforce":
        return mean
    others = (jnp.sum(values) - values) / (len(values) - 1)
    scores = jax.vmap(belief.log_prob)(latents)
    surrogate = jnp.mean(jax.lax.stop_gradient(values - others) * scores)
    return mean + (surrogate - jax.lax.stop_gradient(surrogate))


def _at_step(
    model: WorldModel, members: Members | None, names: list[str], latent: Draw, imagery: Imagery,
    before: State, action: Action, prior: Belief, state: State, key: PRNGKeyArray,
) -> Terms:  # fmt: skip
    """Each imagined term, and the diagnostics, at one imagined step."""
    out: Terms = {}
    if "entropy" in names:
        out["entropy"] = prior.entropy()
    if "pig" in names and members is not None:
        still = jnp.zeros((), bool)
        out["pig"] = parameter_information_gain(
            members.each(model, lambda one: one.predict(before, action, still)[1])
        )
    if "pig-observed" in names and members is not None:
        heads = members.each(model, lambda one: one.decode(state))
        gains = [parameter_information_gain(head) for head in heads.values() if has_spread(head)]
        out["pig-observed"] = sum(gains, jnp.zeros(()))
    if not {"sig", "elbo", "ambiguity"} & set(names):
        return out
    heads: dict[str, Any] = model.decode(state)
    if "ambiguity" in names:
        entropies = [head.entropy() for head in heads.values() if has_spread(head)]
        out["ambiguity"] = sum(entropies, jnp.zeros(()))
    if "sig" in names or "elbo" in names:
        seen = {name: _imagined(head, imagery, key) for name, head in heads.items()}
        again = model.infer(state.memory, seen)
        gain = state_information_gain(again, prior)
        if "sig" in names:
            out["sig"] = gain
            value = state.latent.astype(jax.tree.leaves(again)[0].dtype)
            bound = again.log_prob(value) - prior.log_prob(value)
            out["barber-agakov"] = bound
            out["self-consistency"] = gain - bound
        if "elbo" in names:
            code = State(state.memory, read(again, latent, key=key))
            out["elbo"] = gain + surprise(model, code, seen)
    return out


def _imagined(head: Any, imagery: Imagery, key: PRNGKeyArray) -> Float[Array, "..."]:
    if imagery == "sample" and has_spread(head):
        return head.sample(key=jr.fold_in(key, 1))
    return head.mode()


def has_spread(head: Distribution) -> bool:
    """Whether the head says how uncertain it is: one of fixed variance has no `entropy`."""
    return hasattr(head, "entropy")


def _check(
    model: WorldModel, memory: Memory, posterior: Belief, terms: Mapping, horizon: int,
    rollouts: int, samples: int, latent: Draw, imagery: Imagery, members: Members | None,
) -> None:  # fmt: skip
    check_terms(terms)
    for name, count in (("horizon", horizon), ("rollouts", rollouts), ("samples", samples)):
        if count < 1:
            raise ValueError(f"`{name}` must be 1 or more; got {count}.")
    if imagery not in ("mode", "sample"):
        raise ValueError(f"`imagery` must be 'mode' or 'sample'; got {imagery!r}.")
    if latent == "reinforce":
        check_reinforce(terms, rollouts, samples)
    heads = jax.eval_shape(model.decode, State(memory, posterior.mode()))
    for name in terms:
        if name in NEED_DECODER and not heads:
            raise ValueError(
                f"`{name}` needs a decoder and this model has none. Use `entropy` or `anchor`."
            )
        if name in NEED_SPREAD and not any(has_spread(head) for head in heads.values()):
            part, head = next(iter(heads.items()))
            raise ValueError(
                f"`{name}` needs a decoder whose spread depends on the state; that of `{part}` is "
                f"{type(head).__name__}, of fixed variance, so the term is constant. Drop the "
                f"term, or use a Bernoulli, categorical or learned-variance decoder."
            )
        if name in NEED_MEMBERS and members is None:
            raise ValueError(
                f"`{name}` compares plausible parameters and was given none. Pass `members` from "
                "`thinkslow.objectives.members`, or fit an agent's: thinkslow ensemble AGENT."
            )


def check_reinforce(terms: Mapping, rollouts: int, samples: int) -> None:
    """**Errors:** `ValueError` where leave-one-out would leave nothing."""
    for name, count, kind in (
        ("rollouts", rollouts, IMAGINED),
        ("samples", samples, ("evidence",)),
    ):
        if count < 2 and any(term in kind for term in terms):
            raise ValueError(
                f"`reinforce` compares each draw with the others: `{name}` must be 2 or more; "
                f"got {count}."
            )
