"""The recurrent state-space model of DreamerV3: memory, prior, posterior.

The latent is categorical, as in the official code, or Gaussian, as in PlaNet and DreamerV1.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Belief, Categorical, Gaussian
from thinkslow.dreamer.config import ModelConfig
from thinkslow.dreamer.nets import BlockLinear, Linear, RMSNorm

MIN_SCALE, MAX_SCALE = 0.1, 2.1
"""Bounds of the standard deviation of a Gaussian latent."""


class RSSM(eqx.Module):
    """A GRU in diagonal blocks for the memory; prior and posterior of the latent.

    **References:** Hafner et al., arXiv 2301.04104; names and gates as in the official code. The
    Gaussian latent's bounded deviation follows arXiv 2010.02193; its output layers, which the
    official code does not have, are `obsstats` and `priorstats`: means, then raw deviations.
    """

    layers: dict[str, Linear | BlockLinear | RMSNorm]
    config: ModelConfig = eqx.field(static=True)

    def __init__(self, config: ModelConfig, tokens: int, action: int, *, key: PRNGKeyArray):
        deter, hidden, blocks = config.deter, config.hidden, config.blocks
        latent = math.prod(config.latent_shape)
        outputs = 2 * latent if config.classes is None else latent
        output = "stats" if config.classes is None else "logit"
        keys = iter(
            jr.split(key, 8 + config.core_layers + config.prior_layers + config.posterior_layers)
        )
        layers: dict[str, Linear | BlockLinear | RMSNorm] = {}

        def dense(name: str, inputs: int, outputs: int = hidden) -> None:
            layers[name] = Linear(inputs, outputs, key=next(keys))
            layers[f"{name}norm"] = RMSNorm(outputs)

        for index, inputs in enumerate((deter, latent, action)):
            dense(f"dynin{index}", inputs)
        inputs = deter + 3 * hidden * blocks
        for index in range(config.core_layers):
            layers[f"dynhid{index}"] = BlockLinear(inputs, deter, blocks, key=next(keys))
            layers[f"dynhid{index}norm"] = RMSNorm(deter)
            inputs = deter
        layers["dyngru"] = BlockLinear(inputs, 3 * deter, blocks, key=next(keys))
        for name, inputs, count, units in (
            ("obs", deter + tokens, config.posterior_layers, config.posterior_hidden or hidden),
            ("prior", deter, config.prior_layers, config.prior_hidden or hidden),
        ):
            for index in range(count):
                dense(f"{name}{index}", units if index else inputs, units)
            layers[f"{name}{output}"] = Linear(units if count else inputs, outputs, key=next(keys))
        self.layers, self.config = layers, config

    def core(
        self,
        deter: Float[Array, " deter"],
        stoch: Float[Array, "*latent"],
        action: Float[Array, " action"],
    ) -> Float[Array, " deter"]:
        """One step of the memory. Actions outside [-1, 1] are scaled back into it."""
        blocks = self.config.blocks
        action = action / jax.lax.stop_gradient(jnp.maximum(1, jnp.abs(action)))
        inputs = jnp.concatenate(
            [self._dense(f"dynin{i}", x) for i, x in enumerate((deter, stoch.ravel(), action))]
        )
        # Each block reads its own part of the memory and all inputs.
        shared = jnp.broadcast_to(inputs, (blocks, *inputs.shape))
        x = jnp.concatenate([deter.reshape(blocks, -1), shared], -1).ravel()
        for index in range(self.config.core_layers):
            x = self._dense(f"dynhid{index}", x)
        gru = self.layers["dyngru"]
        assert isinstance(gru, BlockLinear)
        reset, candidate, update = gru.parts(x, 3)
        candidate = jnp.tanh(jax.nn.sigmoid(reset) * candidate)
        update = jax.nn.sigmoid(update - 1)
        return (update * candidate + (1 - update) * deter.reshape(blocks, -1)).ravel()

    def prior(self, deter: Float[Array, " deter"]) -> Belief:
        """The prior: the latent predicted from the memory."""
        x = deter
        for index in range(self.config.prior_layers):
            x = self._dense(f"prior{index}", x)
        return self._belief("prior", x)

    @property
    def prior_layer(self) -> Linear:
        layer = self.layers["priorlogit" if self.config.classes is not None else "priorstats"]
        assert isinstance(layer, Linear)
        return layer

    def posterior(self, deter: Float[Array, " deter"], tokens: Float[Array, " tokens"]) -> Belief:
        """The posterior: the latent given the memory and the encoded observation."""
        x = jnp.concatenate([deter, tokens])
        for index in range(self.config.posterior_layers):
            x = self._dense(f"obs{index}", x)
        return self._belief("obs", x)

    def _dense(self, name: str, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return jax.nn.silu(self.layers[f"{name}norm"](self.layers[name](x)))

    def _belief(self, name: str, x: Float[Array, " hidden"]) -> Belief:
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        if self.config.classes is None:
            mean, raw = jnp.split(self.layers[f"{name}stats"](x).astype(dtype), 2)
            scale = MIN_SCALE + (MAX_SCALE - MIN_SCALE) * jax.nn.sigmoid(raw)
            return Gaussian(mean, jnp.log(scale))
        logits = self.layers[f"{name}logit"](x).astype(dtype)
        belief = Categorical(logits.reshape(self.config.latent_shape), self.config.unimix)
        return belief.holding_mixed() if self.config.mixed_logits else belief
