"""The DreamerV3 agent of 2023: world model, actor and critic, under that code's names."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from thinkslow.distributions import Categorical
from thinkslow.dreamer.actor_critic import ActorCritic
from thinkslow.dreamer.nets import Linear, NormLinear
from thinkslow.dreamer.v1.config import V1Config, Widths
from thinkslow.dreamer.v1.rssm import V1RSSM
from thinkslow.dreamer.v1.vision import V1Decoder, V1Encoder, dense, through
from thinkslow.dreamer.vision import width
from thinkslow.heads import Bernoulli, BoundedNormal, Distribution, SymlogTwoHot
from thinkslow.spaces import Space
from thinkslow.worldmodel import Observation, State


class V1Head(eqx.Module):
    """Dense layers and linear outputs, by name."""

    layers: dict[str, NormLinear]
    dist_out: dict[str, Linear]

    def __init__(
        self, inputs: int, widths: Widths, outputs: Mapping[str, int], *, key: PRNGKeyArray
    ):
        key, *keys = jr.split(key, 1 + len(outputs))
        self.layers = dense(inputs, widths, key=key)
        units = widths[-1] if widths else inputs
        self.dist_out = {
            name: Linear(units, size, key=out_key)
            for (name, size), out_key in zip(outputs.items(), keys, strict=True)
        }

    def __call__(self, features: Float[Array, " features"]) -> dict[str, Float[Array, " outputs"]]:
        x = through(self.layers, features)
        out = {name: layer(x) for name, layer in self.dist_out.items()}
        return {
            name: raw.astype(jnp.promote_types(raw.dtype, jnp.float32)) for name, raw in out.items()
        }


class World(eqx.Module):
    """The parts of the world model."""

    enc: V1Encoder
    rssm: V1RSSM
    dec: V1Decoder
    rew: V1Head
    cont: V1Head


class V1Dreamer(ActorCritic):
    """DreamerV3, profile `v1`. One example; batch with `vmap`.

    The memory is the recurrent vector `deter`, the latent a one-hot matrix `stoch`.
    Observations and actions are joined in the order in which they are given. Actions are
    either all discrete or all continuous.

    **References:** Hafner et al., Mastering Diverse Domains through World Models,
    arXiv 2301.04104v1.
    """

    wm: World
    task_behavior: dict[str, dict[str, V1Head]]
    config: V1Config = eqx.field(static=True)
    actions: tuple[tuple[str, Space], ...] = eqx.field(static=True)

    def __init__(
        self,
        observations: Mapping[str, Space],
        actions: Mapping[str, Space],
        config: V1Config,
        *,
        key: PRNGKeyArray,
    ):
        """**Errors:** `ValueError` for actions of both kinds, or an image of a wrong size."""
        self.config, self.actions = config, tuple(actions.items())
        kinds = {space.discrete for space in actions.values()}
        if len(kinds) != 1:
            raise ValueError(
                "Actions of profile v1 must be all discrete or all continuous; got "
                f"{dict(actions)}."
            )
        keys = jr.split(key, 7)
        features = config.deter + config.stoch * config.classes
        action = sum(width(space) for space in actions.values())
        encoder = V1Encoder(observations, config, key=keys[0])
        self.wm = World(
            encoder,
            V1RSSM(config, encoder.tokens, action, key=keys[1]),
            V1Decoder(observations, config, key=keys[2]),
            V1Head(features, config.reward, {"out": config.reward_bins}, key=keys[3]),
            V1Head(features, config.continuation, {"out": 1}, key=keys[4]),
        )
        outputs = {"out": action} if True in kinds else {"out": action, "std": action}
        actor = V1Head(features, config.policy, outputs, key=keys[5])
        critic = V1Head(features, config.value, {"out": config.value_bins}, key=keys[6])
        self.task_behavior = {"ac": {"actor": actor}, "critic": {"net": critic}}

    @property
    def observation_spaces(self) -> tuple[tuple[str, Space], ...]:
        return self.wm.enc.spaces

    @property
    def action_spaces(self) -> tuple[tuple[str, Space], ...]:
        return self.actions

    @property
    def trained_beta(self) -> float:
        return self.config.rep_scale

    @property
    def trained_free_nats(self) -> float:
        return self.config.free_nats

    def initial(self) -> State:
        return self.wm.rssm.start()

    def predict(
        self, state: State, action: Float[Array, " action"], is_first: Bool[Array, ""]
    ) -> tuple[Float[Array, " deter"], Categorical]:
        dtype = state.memory.dtype
        state = jax.tree.map(
            lambda new, old: jnp.where(is_first, new, old.astype(dtype)), self.initial(), state
        )
        # Selected, not multiplied: 0 x NaN is NaN.
        action = jnp.where(is_first, 0, action.astype(dtype))
        deter = self.wm.rssm.core(state.memory, state.latent, action)
        return deter, self.wm.rssm.prior(deter)

    @property
    def prior_layer(self) -> Linear:
        return self.wm.rssm.prior_layer

    def prior(self, memory: Float[Array, " deter"]) -> Categorical:
        return self.wm.rssm.prior(memory)

    def infer(self, memory: Float[Array, " deter"], observation: Observation) -> Categorical:
        return self.wm.rssm.posterior(memory, self.wm.enc(observation))

    def decode(self, state: State) -> dict[str, Distribution]:
        return self.wm.dec(self.features(state))

    def reward(self, state: State) -> SymlogTwoHot:
        return SymlogTwoHot(self.wm.rew(self.features(state))["out"])

    def continuation(self, state: State) -> Bernoulli:
        """The probability that the episode continues, without the discount."""
        return Bernoulli(self.wm.cont(self.features(state))["out"][0])

    def discount(self, state: State) -> Float[Array, ""]:
        head = self.continuation(state)
        return self.config.discount * (
            head.mode() if self.config.going_on == "mode" else head.prob()
        )

    def value(self, state: State) -> SymlogTwoHot:
        return SymlogTwoHot(self.task_behavior["critic"]["net"](self.features(state))["out"])

    def actor(self, state: State) -> dict[str, Categorical | BoundedNormal]:
        raw = self.task_behavior["ac"]["actor"](self.features(state))
        out: dict[str, Categorical | BoundedNormal] = {}
        start = 0
        for name, space in self.actions:
            here = slice(start, start := start + width(space))
            if space.classes is None:
                out[name] = BoundedNormal.from_raw(
                    raw["out"][here], raw["std"][here], self.config.min_std, self.config.max_std
                )
            else:
                logits = raw["out"][here].reshape(*space.shape, space.classes)
                out[name] = Categorical(logits, self.config.actor_unimix)
        return out
