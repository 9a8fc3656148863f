"""The recurrent state-space model of profile `v1`: one GRU, layer-normed throughout."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Categorical
from thinkslow.dreamer.nets import Linear, NormLinear
from thinkslow.dreamer.v1.config import V1Config
from thinkslow.worldmodel import State


class V1RSSM(eqx.Module):
    """A plain GRU for the memory, with a learned initial state, and categorical beliefs."""

    layers: dict[str, Linear | NormLinear]
    initial: Float[Array, " deter"]
    config: V1Config = eqx.field(static=True)

    def __init__(self, config: V1Config, tokens: int, action: int, *, key: PRNGKeyArray):
        deter, latent = config.deter, config.stoch * config.classes
        keys = jr.split(key, 7)
        self.layers = {
            "img_in": NormLinear(latent + action, config.recurrent, key=keys[0]),
            "gru": NormLinear(deter + config.recurrent, 3 * deter, key=keys[1]),
            "img_out": NormLinear(deter, config.prior, key=keys[2]),
            "img_stats": Linear(config.prior, latent, key=keys[3]),
            "obs_out": NormLinear(deter + tokens, config.posterior, key=keys[4]),
            "obs_stats": Linear(config.posterior, latent, key=keys[5]),
        }
        self.initial, self.config = jnp.zeros(deter), config

    @jax.jit  # for callers outside a program, which would compile each operation
    def start(self) -> State:
        """The learned initial memory, and the most likely latent of its prior."""
        deter = jnp.tanh(self.initial)
        return State(deter, self.prior(deter).mode().astype(deter.dtype))

    def core(
        self,
        deter: Float[Array, " deter"],
        stoch: Float[Array, "stoch classes"],
        action: Float[Array, " action"],
    ) -> Float[Array, " deter"]:
        """One step of the memory. Actions outside [-1, 1] are scaled back into it."""
        action = action / jax.lax.stop_gradient(jnp.maximum(1, jnp.abs(action)))
        x = self._dense("img_in", jnp.concatenate([stoch.ravel(), action]))
        gates = self.layers["gru"](jnp.concatenate([deter, x]))
        reset, candidate, update = jnp.split(gates, 3)
        candidate = jnp.tanh(jax.nn.sigmoid(reset) * candidate)
        update = jax.nn.sigmoid(update - 1)
        return update * candidate + (1 - update) * deter

    def prior(self, deter: Float[Array, " deter"]) -> Categorical:
        """The prior: the latent predicted from the memory."""
        return self._belief("img_stats", self._dense("img_out", deter))

    @property
    def prior_layer(self) -> Linear:
        layer = self.layers["img_stats"]
        assert isinstance(layer, Linear)
        return layer

    def posterior(
        self, deter: Float[Array, " deter"], tokens: Float[Array, " tokens"]
    ) -> Categorical:
        """The posterior: the latent given the memory and the encoded observation."""
        return self._belief("obs_stats", self._dense("obs_out", jnp.concatenate([deter, tokens])))

    def _dense(self, name: str, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return jax.nn.silu(self.layers[name](x))

    def _belief(self, name: str, x: Float[Array, " hidden"]) -> Categorical:
        logits = self.layers[name](x).reshape(self.config.stoch, self.config.classes)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        belief = Categorical(logits, self.config.unimix)
        return belief.holding_mixed() if self.config.mixed_logits else belief
