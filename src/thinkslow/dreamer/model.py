"""The DreamerV3 agent: world model, actor and critic, under the official names of weights."""

import math
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from thinkslow.distributions import Belief, Categorical
from thinkslow.dreamer.actor_critic import ActorCritic
from thinkslow.dreamer.config import MLPConfig, ModelConfig
from thinkslow.dreamer.nets import MLP, Linear
from thinkslow.dreamer.rssm import RSSM
from thinkslow.dreamer.vision import Decoder, Encoder, width
from thinkslow.heads import Bernoulli, BoundedNormal, Distribution, TwoHot
from thinkslow.spaces import Space
from thinkslow.worldmodel import Observation, State

MIN_STD, MAX_STD = 0.1, 1.0
"""Bounds of the standard deviation of continuous actions."""


def carried(
    state: State, action: Float[Array, " action"], is_first: Bool[Array, ""]
) -> tuple[Float[Array, " deter"], Float[Array, "..."], Float[Array, " action"]]:
    """Memory, latent and action for the recurrent core: zeros at the first step of an episode.

    They are selected and not multiplied, because 0 x NaN is NaN. A new episode thus removes NaN
    from the carry.
    """
    dtype = state.memory.dtype
    parts = (state.memory, state.latent.astype(dtype), action.astype(dtype))
    memory, latent, action = (jnp.where(is_first, jnp.zeros_like(part), part) for part in parts)
    return memory, latent, action


class Head(eqx.Module):
    """Dense layers and one linear output, whose name in the official code is `output`."""

    mlp: MLP
    head: dict[str, Linear]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        config: MLPConfig,
        output: str,
        *,
        scale: float = 1.0,
        key: PRNGKeyArray,
    ):
        mlp_key, head_key = jr.split(key)
        self.mlp = MLP(inputs, config.units, config.layers, key=mlp_key)
        self.head = {output: Linear(config.units, outputs, scale=scale, key=head_key)}

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " outputs"]:
        (layer,) = self.head.values()
        out = layer(self.mlp(features))
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))


class Actor(eqx.Module):
    """A distribution for each action: categorical, or normal with bounded mean and deviation."""

    mlp: MLP
    head: dict[str, dict[str, Linear]]
    spaces: tuple[tuple[str, Space], ...] = eqx.field(static=True)
    unimix: float = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        spaces: Mapping[str, Space],
        config: MLPConfig,
        *,
        unimix: float = 0.0,
        key: PRNGKeyArray,
    ):
        self.spaces, self.unimix = tuple(sorted(spaces.items())), unimix
        mlp_key, *keys = jr.split(key, 1 + len(self.spaces))
        self.mlp = MLP(inputs, config.units, config.layers, key=mlp_key)
        self.head = {}
        for (name, space), head_key in zip(self.spaces, keys, strict=True):
            parts = ("mean", "stddev") if space.classes is None else ("logits",)
            self.head[name] = {
                part: Linear(config.units, width(space), scale=0.01, key=part_key)
                for part, part_key in zip(parts, jr.split(head_key, len(parts)), strict=True)
            }

    def __call__(
        self, features: Float[Array, " features"]
    ) -> dict[str, Categorical | BoundedNormal]:
        x = self.mlp(features)
        out: dict[str, Categorical | BoundedNormal] = {}
        for name, space in self.spaces:
            raw = {
                part: layer(x).astype(jnp.promote_types(x.dtype, jnp.float32))
                for part, layer in self.head[name].items()
            }
            if space.classes is None:
                out[name] = BoundedNormal.from_raw(raw["mean"], raw["stddev"], MIN_STD, MAX_STD)
            else:
                logits = raw["logits"].reshape(*space.shape, space.classes)
                out[name] = Categorical(logits, self.unimix)
        return out


class Dreamer(ActorCritic):
    """DreamerV3, profile `main`. One example; batch with `vmap`.

    The memory is the recurrent vector `deter`, the latent `stoch` a one-hot matrix, or a vector
    if it is Gaussian. Action keys are joined in sorted order.

    **References:** Hafner et al., Mastering Diverse Domains through World Models,
    arXiv 2301.04104.
    """

    enc: Encoder
    dyn: RSSM
    dec: Decoder
    rew: Head
    con: Head
    pol: Actor
    val: Head | None
    config: ModelConfig = eqx.field(static=True)

    def __init__(
        self,
        observations: Mapping[str, Space],
        actions: Mapping[str, Space],
        config: ModelConfig,
        *,
        key: PRNGKeyArray,
    ):
        keys = jr.split(key, 7)
        features = config.deter + math.prod(config.latent_shape)
        self.enc = Encoder(observations, config, key=keys[0])
        action = sum(width(space) for space in actions.values())
        self.dyn = RSSM(config, self.enc.tokens, action, key=keys[1])
        self.dec = Decoder(observations, config, key=keys[2])
        self.rew = Head(
            features, config.reward_bins, config.reward, "logits", scale=0.0, key=keys[3]
        )
        self.con = Head(features, 1, config.continuation, "logit", key=keys[4])
        self.pol = Actor(features, actions, config.policy, unimix=config.actor_unimix, key=keys[5])
        self.val = None
        if config.value is not None:
            self.val = Head(
                features, config.value_bins, config.value, "logits", scale=0.0, key=keys[6]
            )
        self.config = config

    @property
    def observation_spaces(self) -> tuple[tuple[str, Space], ...]:
        return self.enc.spaces

    @property
    def action_spaces(self) -> tuple[tuple[str, Space], ...]:
        return self.pol.spaces

    @property
    def trained_beta(self) -> float:
        return self.config.rep_scale

    @property
    def trained_free_nats(self) -> float:
        return self.config.free_nats

    def initial(self) -> State:
        dtype = jax.tree.leaves(self.dyn)[0].dtype
        return State(
            jnp.zeros(self.config.deter, dtype),
            jnp.zeros(self.config.latent_shape, dtype),
        )

    def predict(
        self, state: State, action: Float[Array, " action"], is_first: Bool[Array, ""]
    ) -> tuple[Float[Array, " deter"], Belief]:
        memory, latent, action = carried(state, action, is_first)
        deter = self.dyn.core(memory, latent, action)
        return deter, self.dyn.prior(deter)

    @property
    def prior_layer(self) -> Linear:
        return self.dyn.prior_layer

    def prior(self, memory: Float[Array, " deter"]) -> Belief:
        return self.dyn.prior(memory)

    def infer(self, memory: Float[Array, " deter"], observation: Observation) -> Belief:
        return self.dyn.posterior(memory, self.enc(observation))

    def decode(self, state: State) -> dict[str, Distribution]:
        return self.dec(state.memory, state.latent.astype(state.memory.dtype))

    def reward(self, state: State) -> TwoHot:
        return TwoHot(self.rew(self.features(state)))

    def continuation(self, state: State) -> Bernoulli:
        """In the official code this probability is trained to contain the discount."""
        return Bernoulli(self.con(self.features(state))[0])

    def discount(self, state: State) -> Float[Array, ""]:
        return self.config.discount * self.continuation(state).prob()

    @property
    def critic(self) -> Head:
        """**Errors:** `ValueError` for an agent without a critic."""
        if self.val is None:
            raise ValueError(
                "A value needs the agent's critic; this agent was stored without it. Load the "
                "agent of the run that it came from, or train one."
            )
        return self.val

    def value(self, state: State) -> TwoHot:
        """**Errors:** those of `critic`."""
        return TwoHot(self.critic(self.features(state)))

    def actor(self, state: State) -> dict[str, Categorical | BoundedNormal]:
        return self.pol(self.features(state))
