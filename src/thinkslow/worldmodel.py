"""What a world model must offer to be refined, and imagination through it.

A model is for one example; batch with `vmap`. It holds a `State`: a deterministic memory and
one sampled latent. At each step it predicts a belief about the latent from the past (the
prior) and infers another from the observation (the posterior); both are given the same
memory. Nothing in a model stops a gradient; a caller who wants that wraps (`detached`).
"""

import abc
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from thinkslow.distributions import Belief, Categorical, Distribution, Squared

Memory: TypeAlias = PyTree[Array]
Observation: TypeAlias = Mapping[str, Array | np.ndarray]
Action: TypeAlias = Float[Array, " action"]
Readout: TypeAlias = Literal["sample", "mode", "soft"]
Draw: TypeAlias = Readout | Literal["gumbel", "reinforce"]
"""How an objective takes a latent from a belief, and so what its gradient is."""


class State(eqx.Module):
    """Where a model believes to be: its memory, and one value of the latent."""

    memory: Memory
    latent: Float[Array, "..."]


class WorldModel(eqx.Module):
    """The contract. Observations are mappings from name to array: images as uint8, or as
    floats in [0, 1]; vectors as floats; discrete ones as integers or as probabilities."""

    @abc.abstractmethod
    def initial(self) -> State:
        """The state before the first observation."""

    @abc.abstractmethod
    def predict(
        self, state: State, action: Action, is_first: Bool[Array, ""]
    ) -> tuple[Memory, Belief]:
        """Advance the memory by an action; the prior belief. `is_first` forgets the past."""

    @abc.abstractmethod
    def infer(self, memory: Memory, observation: Observation) -> Belief:
        """The encoder's answer: the posterior belief."""

    @abc.abstractmethod
    def decode(self, state: State) -> dict[str, Distribution]:
        """The observation that the state predicts, by name. Empty without a decoder."""

    @property
    def trained_beta(self) -> float | None:
        """Weight of KL(posterior || prior) under which the encoder was trained, if known."""
        return None

    @property
    def trained_free_nats(self) -> float | None:
        """Nats below which that KL was not trained, if known."""
        return None

    def reward(self, state: State) -> Distribution | None:
        """The reward of having arrived in the state, where the model predicts one."""
        return None

    def continuation(self, state: State) -> Distribution | None:
        """Whether the episode goes on (times the discount), where the model predicts it."""
        return None


Policy: TypeAlias = Callable[[State, PRNGKeyArray], Action]


class Step(eqx.Module):
    """One imagined step: the action taken, the prior it led to, the state drawn from that."""

    action: Action
    prior: Belief
    state: State


def read(belief: Belief, how: Draw, *, key: PRNGKeyArray) -> Float[Array, "..."]:
    """A latent from a belief: one sample, the likeliest value, or the soft expectation.

    For objectives also `gumbel`, a relaxed sample, and `reinforce`, a sample without a gradient:
    the objective adds that of the score.
    """
    return _read(belief, how, belief.noise(key=key))


def _read(belief: Belief, how: Draw, noise: Float[Array, "..."]) -> Float[Array, "..."]:
    match how:
        case "sample":
            return belief.sample_of(noise)
        case "mode":
            return belief.mode()
        case "soft":
            return belief.soft()
        case "gumbel":
            return belief.relaxed_of(noise)
        case "reinforce":
            return jax.lax.stop_gradient(belief.sample_of(noise))
    raise ValueError(
        f"`readout` must be 'sample', 'mode', 'soft', 'gumbel' or 'reinforce'; got {how!r}."
    )


def imagine(
    model: WorldModel,
    policy: Policy,
    state: State,
    *,
    horizon: int,
    key: PRNGKeyArray,
    readout: Draw = "sample",
) -> Step:
    """Roll the policy forward through the model's own predictions.

    Returns `horizon` steps stacked along a leading axis. The gradient flows through latents,
    memory and policy; nothing is stopped. Costs `horizon` steps of the core and the policy.
    """

    still = jnp.zeros((), bool)
    action_keys, latent_keys = jax.vmap(jr.split, out_axes=1)(jr.split(key, horizon))
    shape = jax.eval_shape(
        lambda state, key: model.predict(state, policy(state, key), still)[1], state, key
    )
    noises = jax.vmap(lambda key: shape.noise(key=key))(latent_keys)

    def step(state: State, random: tuple[PRNGKeyArray, Array]) -> tuple[State, Step]:
        action_key, noise = random
        action = policy(state, action_key)
        memory, prior = model.predict(state, action, still)
        latent = _read(prior, readout, noise).astype(state.latent.dtype)
        state = State(memory, latent)
        return state, Step(action, prior, state)

    return jax.lax.scan(step, state, (action_keys, noises))[1]


def surprise(model: WorldModel, state: State, observation: Observation) -> Float[Array, ""]:
    """-log p(observation | state) in nats, summed over all parts that the model decodes."""
    heads = model.decode(state)
    parts = (head.log_prob(target(head, observation[name])) for name, head in heads.items())
    return -sum(parts, jnp.zeros(()))


def target(head: Distribution, value: Array | np.ndarray) -> Float[Array, "..."]:
    """An observation as a decoder's head speaks of it: images in [0, 1], classes one-hot."""
    if jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.asarray(value)
    if isinstance(head, Categorical):
        return jax.nn.one_hot(value, head.logits.shape[-1])
    numbers = jnp.asarray(value, jnp.float32)
    return numbers / 255 if isinstance(head, Squared) and value.dtype == jnp.uint8 else numbers


def detached(policy: Policy) -> Policy:
    """The same policy, blind to gradients: DreamerV3's own imagination."""

    def stopped(state: State, key: PRNGKeyArray) -> Action:
        return policy(jax.lax.stop_gradient(state), key)

    return stopped
