"""The interface of a world model that can be refined, and imagination through it.

A model is for one example; batch with `vmap`. Its `State` is a deterministic memory and one
sampled latent. At each step the model predicts a belief about the latent from the past (the prior)
and infers another from the observation (the posterior), both at the same memory. Nothing in a
model stops a gradient; wrap the policy with `detached` to stop it there.
"""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from thinkslow.distributions import Belief, Categorical
from thinkslow.heads import Distribution, Squared
from thinkslow.readouts import Readout, Sample
from thinkslow.spaces import Space
from thinkslow.trees import all_finite, where

Memory: TypeAlias = PyTree[Array]
Observation: TypeAlias = Mapping[str, Array | np.ndarray]
Action: TypeAlias = Float[Array, " action"]

UNROLLED = 8
"""Imagined steps that are compiled one after another instead of a loop, except on a CPU. On an
H100, eight steps of `size12m` then take 3.1 ms instead of 3.7 for one example
(docs/performance.md).
"""


class State(eqx.Module):
    """A model's state: its deterministic memory h and one value of the latent z."""

    memory: Memory
    latent: Float[Array, "..."]


class WorldModel(eqx.Module):
    """The interface. Observations are mappings from name to array: images as uint8, or as
    floats in [0, 1]; vectors as floats; discrete observations as integers or probabilities.

    Refinement needs only the first four methods. Acting needs `policy`; playing also needs
    `action_spaces`. The other members are needed by single terms.
    """

    @abc.abstractmethod
    def initial(self) -> State:
        """The state before the first observation."""

    @abc.abstractmethod
    def predict(
        self, state: State, action: Action, is_first: Bool[Array, ""]
    ) -> tuple[Memory, Belief]:
        """The memory after an action, and the prior belief there.

        Args:
            state: the state before the action.
            action: the action that was taken, as one vector.
            is_first: whether an episode begins here; the past is then forgotten.
        """

    @abc.abstractmethod
    def infer(self, memory: Memory, observation: Observation) -> Belief:
        """The encoder: the posterior belief about the latent.

        Args:
            memory: from `predict`.
            observation: the present observation, by name.
        """

    @abc.abstractmethod
    def decode(self, state: State) -> Mapping[str, Distribution]:
        """The decoder: distributions of the parts of the observation, by name.

        Args:
            state: memory and latent.

        Returns an empty mapping if the model has no decoder.
        """

    def policy(self, state: State, key: PRNGKeyArray) -> Action:
        """The action to take in a state, as one vector.

        Args:
            state: memory and latent.
            key: random numbers of the draw.
        """
        raise TypeError(
            f"{type(self).__name__} has no policy. Define `policy(state, key)`, or pass `policy` "
            "to the agent."
        )

    def greedy(self, state: State, key: PRNGKeyArray) -> Action:
        """The most likely action in a state, as one vector; by default the modes of `actor`.

        Args:
            state: memory and latent.
            key: random numbers, for a policy whose mode is not known.
        """
        heads = self.actor(state)
        if heads is None:
            raise TypeError(
                f"{type(self).__name__} has no most likely action. Define `actor(state)` or "
                "`greedy(state, key)`."
            )
        return jnp.concatenate([head.mode().ravel() for head in heads.values()])

    @property
    def observation_spaces(self) -> tuple[tuple[str, Space], ...]:
        """The parts of an observation as pairs of name and `Space`.

        Empty if the model does not declare them; then nothing is checked.
        """
        return ()

    @property
    def action_spaces(self) -> tuple[tuple[str, Space], ...]:
        """The actions as pairs of name and `Space`, in their order in an action vector."""
        return ()

    def parts(self, action: Array | np.ndarray) -> dict[str, Any]:
        """The slices of an action vector by the name of the action; discrete actions stay one-hot.

        Args:
            action: `(..., action)`; any leading axes.
        """
        out, start = {}, 0
        for name, space in self.action_spaces:
            shape = space.shape if space.classes is None else (*space.shape, space.classes)
            end = start + math.prod(shape)
            out[name] = action[..., start:end].reshape(*action.shape[:-1], *shape)
            start = end
        return out

    def split(self, action: Array | np.ndarray) -> dict[str, Any]:
        """The actions as an environment takes them, by name: discrete actions as integers.

        Args:
            action: `(..., action)`; any leading axes.
        """
        spaces = dict(self.action_spaces)
        return {
            name: part if spaces[name].classes is None else part.argmax(-1)
            # Equinox binds a method by going through all arrays of the model.
            for name, part in type(self).parts(self, action).items()
        }

    @property
    def trained_beta(self) -> float | None:
        """Weight of KL(posterior || prior) under which the encoder was trained, if known."""
        return None

    @property
    def trained_free_nats(self) -> float | None:
        """Nats below which that KL was not trained, if known."""
        return None

    def prior(self, memory: Memory) -> Belief | None:
        """The prior belief at a memory, if it depends on the memory alone; otherwise None.

        Needed only if refinement moves the memory.

        Args:
            memory: from `predict`, or moved by refinement.
        """
        return None

    @property
    def prior_layer(self) -> PyTree[Array] | None:
        """The last layer of the head that predicts the prior, in which the members of an ensemble
        differ, if it has one.
        """
        return None

    def reward(self, state: State) -> Distribution | None:
        """The reward for arriving in the state, if the model predicts it.

        Args:
            state: memory and latent, after the action.
        """
        return None

    def continuation(self, state: State) -> Distribution | None:
        """The probability that the episode continues (times the discount), if the model predicts
        it.

        Args:
            state: memory and latent.
        """
        return None

    def discount(self, state: State) -> Float[Array, ""] | None:
        """The discount of rewards after this state, if the model predicts it.

        Args:
            state: memory and latent.
        """
        return None

    def value(self, state: State) -> Distribution | None:
        """The critic: the discounted return from this state on, if the model has a critic.

        Args:
            state: memory and latent.
        """
        return None

    def actor(self, state: State) -> Mapping[str, Distribution] | None:
        """The policy's distribution of each action, in the order of `action_spaces`.

        Args:
            state: memory and latent.
        """
        return None


Policy: TypeAlias = Callable[[State, PRNGKeyArray], Action]


class Rollout(eqx.Module):
    """Imagined steps: actions, the priors after them, and the states drawn from the priors. One
    step, or several along a leading axis.
    """

    action: Action
    prior: Belief
    state: State


class Moment(NamedTuple):
    """Memory, prior and posterior for one observation."""

    memory: Memory
    prior: Belief
    posterior: Belief
    """The encoder's belief, or the prior if the encoder's belief is non-finite."""
    seen: Bool[Array, ""]
    """Whether the encoder's belief is finite and the observation is not missing."""
    absent: Mapping[str, Bool[Array, ""]] | None = None
    """By name, which parts of the observation are missing; None: no part."""


def perceive(
    model: "WorldModel",
    state: State,
    action: Action,
    is_first: Bool[Array, ""],
    observation: Observation,
    absent: Mapping[str, Bool[Array, ""]] | None = None,
) -> Moment:
    """Predict from the previous state, then encode the observation.

    If all parts are missing, the prior replaces the encoder's belief. If only some are missing,
    they are filled in with the model's expectation. A part that the model does not decode cannot
    be filled in; then the prior replaces the encoder's belief.

    Args:
        model: the model, for one example.
        state: the state before the action.
        action: the action that led here.
        is_first: whether an episode begins here; the past is then forgotten.
        observation: the present observation, by name.
        absent: by name, whether a part is missing; None: no part.

    **Cost:** one step of the core and one encoding; also one decoding, if one of several parts may
    be missing.
    """
    memory, prior = model.predict(state, action, is_first)
    there = jnp.ones((), bool)
    if absent is not None:
        dtype = state.latent.dtype
        expected = State(memory, prior.soft().astype(dtype))
        observation, there = _completed(model, expected, observation, absent)
    posterior = model.infer(memory, observation)
    seen = all_finite(posterior) & there
    return Moment(memory, prior, where(seen, posterior, prior), seen, absent)


def _completed(
    model: WorldModel,
    state: State,
    observation: Observation,
    absent: Mapping[str, Bool[Array, ""]],
) -> tuple[Observation, Bool[Array, ""]]:
    """The observation with missing parts replaced by predictions, and whether enough parts are
    present to encode it."""
    gone = jnp.stack([absent[name] for name in absent])
    there = ~jnp.all(gone)
    if len(observation) < 2:
        return observation, there
    heads, out = model.decode(state), dict(observation)
    for name, lost in absent.items():
        if name in heads:
            value = jnp.asarray(observation[name])
            out[name] = jnp.where(lost, _shown(heads[name], value), value)
        else:
            there &= ~lost
    return out, there


def _shown(head: Distribution, like: Array) -> Array:
    """The expectation of a head, in the form of an observation."""
    mode = head.mode()
    if isinstance(head, Categorical) and mode.shape != like.shape:
        mode = jnp.argmax(mode, -1)
    elif isinstance(head, Squared) and like.dtype == jnp.uint8:
        mode = jnp.round(255 * jnp.clip(mode, 0, 1))
    return mode.astype(like.dtype)


def imagine(
    model: WorldModel,
    policy: Policy,
    state: State,
    *,
    horizon: int,
    key: PRNGKeyArray,
    readout: Readout = Sample(),
    through_memory: bool = True,
) -> Rollout:
    """Roll the policy forward through the model's own predictions.

    Args:
        model: the model, for one example.
        policy: `policy(state, key)` returns an action vector.
        state: the first state.
        horizon: the number of imagined steps.
        key: random numbers of actions and latents.
        readout: how a latent is taken from an imagined prior.
        through_memory: whether the gradient flows from one memory to the next; if not, it flows
            only through the latents.

    Returns `horizon` steps stacked along a leading axis. The gradient flows through latents,
    memory and policy; nothing else is stopped.

    **Cost:** `horizon` steps of the core and the policy.
    """

    still = jnp.zeros((), bool)
    action_keys, latent_keys = jax.vmap(jr.split, out_axes=1)(jr.split(key, horizon))
    shape = jax.eval_shape(
        lambda state, key: model.predict(state, policy(state, key), still)[1], state, key
    )
    noises = jax.vmap(lambda key: readout.noise(shape, key=key))(latent_keys)

    def step(state: State, random: tuple[PRNGKeyArray, Array]) -> tuple[State, Rollout]:
        action_key, noise = random
        action = policy(state, action_key)
        if not through_memory:
            state = State(jax.lax.stop_gradient(state.memory), state.latent)
        memory, prior = model.predict(state, action, still)
        latent = readout.of(prior, noise).astype(state.latent.dtype)
        state = State(memory, latent)
        return state, Rollout(action, prior, state)

    unroll = 1 if jax.default_backend() == "cpu" else UNROLLED
    return jax.lax.scan(step, state, (action_keys, noises), unroll=unroll)[1]


def surprise(
    model: WorldModel,
    state: State,
    observation: Observation,
    absent: Mapping[str, Bool[Array, ""]] | None = None,
) -> Float[Array, ""]:
    """-log p(observation | state) in nats, summed over all parts that the model decodes.

    Args:
        model: the model, for one example.
        state: the state that predicts the observation.
        observation: the observation, by name.
        absent: by name, whether a part is missing and does not count; None: no part.
    """
    total = jnp.zeros(())
    for name, head in model.decode(state).items():
        part = head.log_prob(target(head, observation[name]))
        if absent is not None and name in absent:
            part = jnp.where(absent[name], 0.0, part)
        total = total + part
    return -total


def surprise_at(
    model: WorldModel, moment: Moment, latent: Array, observation: Observation
) -> Float[Array, ""]:
    """`surprise` of a latent at a moment, in nats; 0 if the observation could not be used.

    An unusable observation, such as one of NaN or out of range, is no evidence for any latent.

    Args:
        model: the model, for one example.
        moment: the present moment, whose `seen` and `absent` say what counts.
        latent: the latent that predicts the observation.
        observation: the observation, by name.
    """
    # Without zeros in its place the gradient of an unused NaN would be NaN.
    used = {
        name: jnp.where(moment.seen, value, jnp.zeros_like(value))
        for name, value in observation.items()
    }
    state = State(moment.memory, latent)
    return jnp.where(moment.seen, surprise(model, state, used, moment.absent), 0.0)


def target(head: Distribution, value: Array | np.ndarray) -> Float[Array, "..."]:
    """An observation in the form of a decoder's head: images in [0, 1], classes one-hot."""
    if jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.asarray(value)
    if isinstance(head, Categorical):
        return jax.nn.one_hot(value, head.logits.shape[-1])
    numbers = jnp.asarray(value, jnp.float32)
    return numbers / 255 if isinstance(head, Squared) and value.dtype == jnp.uint8 else numbers


def detached(policy: Policy) -> Policy:
    """The same policy without a gradient through it, as in the imagination of DreamerV3.

    Args:
        policy: `policy(state, key)` returns an action vector.
    """

    def stopped(state: State, key: PRNGKeyArray) -> Action:
        return policy(jax.lax.stop_gradient(state), key)

    return stopped
