"""Encoder and decoder of profile `v1`: strided convolutions, and dense layers for vectors.

Observations are joined in the given order. Only the weights determine that order. Scalars and
classes are encoded as plain numbers.
"""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.dreamer.nets import Linear, NormLinear, StridedConv, TransposedConv
from thinkslow.dreamer.v1.config import ConvConfig, V1Config, Widths
from thinkslow.dreamer.vision import image_shape, images, unit, vectors
from thinkslow.heads import Distribution, Squared, SymlogSquared, symlog
from thinkslow.plural import plural
from thinkslow.spaces import Space
from thinkslow.worldmodel import Observation

Spaces = tuple[tuple[str, Space], ...]


class V1Encoder(eqx.Module):
    """An observation to one vector of tokens: [images, vectors]."""

    cnn: dict[str, StridedConv]
    mlp: dict[str, NormLinear]
    spaces: Spaces = eqx.field(static=True)
    config: V1Config = eqx.field(static=True)

    def __init__(self, spaces: Mapping[str, Space], config: V1Config, *, key: PRNGKeyArray):
        """**Errors:** `ValueError` for observations without encoder layers."""
        self.spaces, self.config = tuple(spaces.items()), config
        for kind, found, layers in (
            ("encoder_convs", images(self.spaces), config.encoder_convs),
            ("encoder", vectors(self.spaces), config.encoder),
        ):
            if found and not layers:
                raise ValueError(f"`{kind}` must have a layer to see {found[0][0]}; got none.")
        cnn_key, mlp_key = jr.split(key)
        self.cnn, self.mlp = {}, {}
        if images(self.spaces):
            _, _, channels = image_shape(self.spaces)
            keys = jr.split(cnn_key, len(config.encoder_convs))
            for index, (conv, conv_key) in enumerate(zip(config.encoder_convs, keys, strict=True)):
                self.cnn[f"s{index}res"] = StridedConv(
                    channels, conv.channels, conv.kernel, conv.stride, key=conv_key
                )
                channels = conv.channels
        if vectors(self.spaces):
            self.mlp = dense(sizes(vectors(self.spaces)), config.encoder, key=mlp_key)

    @property
    def tokens(self) -> int:
        """Width of the output."""
        width = 0
        if images(self.spaces):
            rows, columns, channels = image_shape(self.spaces)
            width += math.prod(shrunk(rows, columns, channels, self.config.encoder_convs))
        if vectors(self.spaces):
            width += self.config.encoder[-1]
        return width

    def __call__(self, observation: Observation) -> Float[Array, " tokens"]:
        """Images as uint8 or as floats in [0, 1]; vectors as they are.

        **Errors:** `ValueError` for probabilities of classes, which this profile does not read.
        """
        dtype = jax.tree.leaves((self.cnn, self.mlp))[0].dtype
        out = []
        if images(self.spaces):
            parts = [unit(jnp.asarray(observation[key]), dtype) for key, _ in images(self.spaces)]
            x = jnp.concatenate(parts, -1) - 0.5
            for index in range(len(self.cnn)):
                x = jax.nn.silu(self.cnn[f"s{index}res"](x))
            out.append(x.ravel())
        for key, space in vectors(self.spaces):
            if space.discrete and (shape := jnp.shape(observation[key])) != space.shape:
                raise ValueError(
                    f"`{key}` must be of shape {space.shape} for each environment, the numbers of "
                    f"its classes: this agent reads no probabilities of them; got {shape}."
                )
        if vectors(self.spaces):
            parts = [
                jnp.asarray(observation[key]).astype(jnp.float32).ravel()
                for key, _ in vectors(self.spaces)
            ]
            x = jnp.concatenate(parts)
            x = symlog(x) if self.config.symlog_inputs else x
            out.append(through(self.mlp, x.astype(dtype)))
        return jnp.concatenate(out)


class V1Decoder(eqx.Module):
    """Memory and latent to a distribution for each part of the observation.

    Images are unbounded: the network predicts the difference from middle grey.
    """

    cnn: dict[str, Linear | TransposedConv]
    mlp: dict[str, Any]
    spaces: Spaces = eqx.field(static=True)
    config: V1Config = eqx.field(static=True)

    def __init__(self, spaces: Mapping[str, Space], config: V1Config, *, key: PRNGKeyArray):
        """**Errors:** `ValueError` if the convolutions cannot give an image of this size."""
        decoded = spaces if config.decoded is None else config.decoded
        self.spaces = tuple((name, spaces[name]) for name in decoded)
        self.config = config
        cnn_key, mlp_key, *head_keys = jr.split(key, 2 + len(self.spaces))
        features = config.deter + config.stoch * config.classes
        self.cnn, self.mlp = {}, {}
        if images(self.spaces):
            rows, columns = self._smallest()
            seed_key, *keys = jr.split(cnn_key, 1 + len(config.decoder_convs))
            inputs = config.decoder_seed
            self.cnn["in"] = Linear(features, rows * columns * inputs, key=seed_key)
            for index, (conv, conv_key) in enumerate(zip(config.decoder_convs, keys, strict=True)):
                self.cnn[f"s{index}res"] = TransposedConv(
                    inputs,
                    conv.channels,
                    conv.kernel,
                    conv.stride,
                    last=index == len(config.decoder_convs) - 1,
                    key=conv_key,
                )
                inputs = conv.channels
        if vectors(self.spaces):
            self.mlp |= dense(features, config.decoder, key=mlp_key)
            units = config.decoder[-1] if config.decoder else features
            for (name, space), head_key in zip(vectors(self.spaces), head_keys, strict=False):
                self.mlp[f"dist_{name}"] = {
                    "out": Linear(units, math.prod(space.shape), key=head_key)
                }

    def __call__(self, features: Float[Array, " features"]) -> dict[str, Distribution]:
        out: dict[str, Distribution] = {}
        if images(self.spaces):
            pixels = self._grow(features)
            pixels = pixels.astype(jnp.promote_types(pixels.dtype, jnp.float32)) + 0.5
            start = 0
            for name, space in images(self.spaces):
                out[name] = Squared(pixels[..., start : start + space.shape[-1]])
                start += space.shape[-1]
        if vectors(self.spaces):
            names = [f"h{index}" for index in range(len(self.config.decoder))]
            layers = {name: self.mlp[name] for name in names}
            hidden = through(layers, features)
            for name, space in vectors(self.spaces):
                mean = self.mlp[f"dist_{name}"]["out"](hidden).reshape(space.shape)
                out[name] = SymlogSquared(mean.astype(jnp.promote_types(mean.dtype, jnp.float32)))
        return out

    def _grow(self, features: Float[Array, " features"]) -> Float[Array, "height width channels"]:
        x = self.cnn["in"](features).reshape(*self._smallest(), -1)
        last = len(self.config.decoder_convs) - 1
        for index in range(last + 1):
            x = self.cnn[f"s{index}res"](x)
            x = x if index == last else jax.nn.silu(x)
        return x

    def _smallest(self) -> tuple[int, int]:
        """Height and width of the feature map that the convolutions start from."""
        height, width, channels = image_shape(self.spaces)
        growth, convs = self.config.growth, self.config.decoder_convs
        if height % growth or width % growth or not convs or convs[-1].channels != channels:
            made = convs[-1].channels if convs else 0
            raise ValueError(
                f"Images of {height}x{width}x{channels} must be a multiple of {growth} in size "
                f"and have the {plural(made, 'channel')} of the decoder's last convolution."
            )
        return height // growth, width // growth


def shrunk(
    rows: int, columns: int, channels: int, convs: tuple[ConvConfig, ...]
) -> tuple[int, int, int]:
    """The shape of an image after strided convolutions."""
    for conv in convs:
        rows, columns, channels = -(-rows // conv.stride), -(-columns // conv.stride), conv.channels
    return rows, columns, channels


def sizes(spaces: list[tuple[str, Space]]) -> int:
    """Total size of the vectors; a class counts as one number here."""
    return sum(math.prod(space.shape) for _, space in spaces)


def dense(inputs: int, widths: Widths, *, key: PRNGKeyArray) -> dict[str, NormLinear]:
    """Dense layers named `h{i}`."""
    layers = {}
    for index, layer_key in enumerate(jr.split(key, len(widths))):
        layers[f"h{index}"] = NormLinear(inputs, widths[index], key=layer_key)
        inputs = widths[index]
    return layers


def through(layers: Mapping[str, NormLinear], x: Float[Array, " inputs"]) -> Float[Array, " units"]:
    """Apply the layers named `h{i}` to `x`, each followed by SiLU."""
    for index in range(len(layers)):
        x = jax.nn.silu(layers[f"h{index}"](x))
    return x
