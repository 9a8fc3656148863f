"""Encoder and decoder: observations to tokens, and latent states to observations.

Two kinds of vision: the official convolutions, and non-overlapping patches with dense
layers, which a CPU computes 28 times faster (benchmarks/update.py). Vectors go through dense
layers in symlog space. Keys are taken in sorted order.
"""

import math
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Categorical
from thinkslow.dreamer.config import ModelConfig
from thinkslow.dreamer.nets import MLP, BlockLinear, Conv, Linear, RMSNorm
from thinkslow.heads import Distribution, Squared, SymlogSquared, symlog
from thinkslow.plural import plural
from thinkslow.spaces import Space
from thinkslow.worldmodel import Observation

PATCH = 8
"""Width and height of a patch, in pixels."""

Layers = dict[str, Linear | BlockLinear | Conv | RMSNorm]


class Encoder(eqx.Module):
    """An observation to one vector of tokens: [vectors, images]."""

    layers: Layers
    spaces: tuple[tuple[str, Space], ...] = eqx.field(static=True)
    config: ModelConfig = eqx.field(static=True)

    def __init__(self, spaces: Mapping[str, Space], config: ModelConfig, *, key: PRNGKeyArray):
        self.spaces, self.config = tuple(sorted(spaces.items())), config
        layers: Layers = {}
        keys = iter(jr.split(key, config.encoder.layers + len(config.mults) + 2))
        vector = sum(width(space) for _, space in vectors(self.spaces))
        if vector:
            for index in range(config.encoder.layers):
                inputs = config.encoder.units if index else vector
                layers[f"mlp{index}"] = Linear(inputs, config.encoder.units, key=next(keys))
                layers[f"mlp{index}norm"] = RMSNorm(config.encoder.units)
        if images(self.spaces):
            height, breadth, channels = image_shape(self.spaces)
            if config.vision == "patch":
                count = patches(height, breadth)
                layers["patch"] = Linear(PATCH**2 * channels, config.depth, key=next(keys))
                layers["patchnorm"] = RMSNorm(config.depth)
                layers["image"] = Linear(count * config.depth, config.encoder.units, key=next(keys))
                layers["imagenorm"] = RMSNorm(config.encoder.units)
            else:
                smallest_map(height, breadth, config)
                for index, mult in enumerate(config.mults):
                    depth = config.depth * mult
                    layers[f"cnn{index}"] = Conv(channels, depth, config.kernel, key=next(keys))
                    layers[f"cnn{index}norm"] = RMSNorm(depth)
                    channels = depth
        self.layers = layers

    @property
    def tokens(self) -> int:
        """Width of the output."""
        units = self.config.encoder.units if vectors(self.spaces) else 0
        if not images(self.spaces):
            return units
        if self.config.vision == "patch":
            return units + self.config.encoder.units
        height, breadth, _ = image_shape(self.spaces)
        rows, columns = smallest_map(height, breadth, self.config)
        return units + rows * columns * self.config.depth * self.config.mults[-1]

    def __call__(self, observation: Observation) -> Float[Array, " tokens"]:
        """Images as uint8 or as floats in [0, 1]; discrete values as integers or one-hot."""
        dtype = jax.tree.leaves(self.layers)[0].dtype
        out = []
        if vectors(self.spaces):
            parts = [
                _vector(jnp.asarray(observation[key]), space) for key, space in vectors(self.spaces)
            ]
            x = jnp.concatenate(parts).astype(dtype)
            for index in range(self.config.encoder.layers):
                x = self._act(f"mlp{index}", x)
            out.append(x)
        if images(self.spaces):
            parts = [unit(jnp.asarray(observation[key]), dtype) for key, _ in images(self.spaces)]
            x = jnp.concatenate(parts, -1) - 0.5
            out.append(self._patches(x) if self.config.vision == "patch" else self._convolve(x))
        return jnp.concatenate(out)

    def _patches(self, x: Float[Array, "height width channels"]) -> Float[Array, " units"]:
        return self._act("image", self._act("patch", split_patches(x)).ravel())

    def _convolve(self, x: Float[Array, "height width channels"]) -> Float[Array, " units"]:
        for index in range(len(self.config.mults)):
            x = _conv(self.layers, f"cnn{index}").pooled(x)
            x = jax.nn.silu(self.layers[f"cnn{index}norm"](x))
        return x.ravel()

    def _act(self, name: str, x: Array) -> Array:
        return jax.nn.silu(self.layers[f"{name}norm"](self.layers[name](x)))


class Decoder(eqx.Module):
    """Memory and latent to a distribution for each part of the observation."""

    layers: Layers
    mlp: MLP | None
    vec: dict[str, dict[str, Linear]]
    spaces: tuple[tuple[str, Space], ...] = eqx.field(static=True)
    config: ModelConfig = eqx.field(static=True)

    def __init__(self, spaces: Mapping[str, Space], config: ModelConfig, *, key: PRNGKeyArray):
        known = config.decoded
        self.spaces = tuple(
            sorted((k, space) for k, space in spaces.items() if known is None or k in known)
        )
        self.config = config
        deter, latent = config.deter, math.prod(config.latent_shape)
        units = config.decoder.units
        image_key, mlp_key, *head_keys = jr.split(key, 2 + len(self.spaces))
        self.mlp, self.vec = None, {}
        if vectors(self.spaces):
            self.mlp = MLP(latent + deter, units, config.decoder.layers, key=mlp_key)
            for (name, space), head_key in zip(vectors(self.spaces), head_keys, strict=False):
                head = "pred" if space.classes is None else "logits"
                self.vec[name] = {head: Linear(units, width(space), key=head_key)}
        layers: Layers = {}
        if images(self.spaces):
            height, breadth, channels = image_shape(self.spaces)
            keys = iter(jr.split(image_key, len(config.mults) + 4))
            if config.vision == "patch":
                count = patches(height, breadth)
                layers["image0"] = Linear(latent + deter, units, key=next(keys))
                layers["image0norm"] = RMSNorm(units)
                layers["image1"] = Linear(units, count * config.depth, key=next(keys))
                layers["image1norm"] = RMSNorm(config.depth)
                layers["patch"] = Linear(config.depth, PATCH**2 * channels, key=next(keys))
            else:
                rows, columns = smallest_map(height, breadth, config)
                depths = [config.depth * mult for mult in config.mults]
                size = rows * columns * depths[-1]
                layers["sp0"] = BlockLinear(deter, size, config.decoder_blocks, key=next(keys))
                layers["sp1"] = Linear(latent, 2 * units, key=next(keys))
                layers["sp1norm"] = RMSNorm(2 * units)
                layers["sp2"] = Linear(2 * units, size, key=next(keys))
                layers["spnorm"] = RMSNorm(depths[-1])
                for index in reversed(range(len(depths) - 1)):
                    layers[f"conv{index}"] = Conv(
                        depths[index + 1], depths[index], config.kernel, key=next(keys)
                    )
                    layers[f"conv{index}norm"] = RMSNorm(depths[index])
                layers["imgout"] = Conv(depths[0], channels, config.kernel, key=next(keys))
        self.layers = layers

    def __call__(
        self, deter: Float[Array, " deter"], stoch: Float[Array, "*latent"]
    ) -> dict[str, Distribution]:
        latent = stoch.ravel()
        out: dict[str, Distribution] = {}
        if self.mlp is not None:
            hidden = self.mlp(jnp.concatenate([latent, deter]))
            for name, space in vectors(self.spaces):
                out[name] = _vector_head(self.vec[name], hidden, space)
        if images(self.spaces):
            pixels = (
                self._patches(jnp.concatenate([latent, deter]))
                if self.config.vision == "patch"
                else self._convolve(deter, latent)
            )
            start = 0
            for name, space in images(self.spaces):
                out[name] = Squared(pixels[..., start : start + space.shape[-1]])
                start += space.shape[-1]
        return out

    def _patches(self, x: Float[Array, " features"]) -> Float[Array, "height width channels"]:
        height, breadth, _ = image_shape(self.spaces)
        x = jax.nn.silu(self.layers["image0norm"](self.layers["image0"](x)))
        x = self.layers["image1"](x).reshape(-1, self.config.depth)
        x = self.layers["patch"](jax.nn.silu(self.layers["image1norm"](x)))
        return join_patches(_pixels(x), height, breadth)

    def _convolve(
        self, deter: Float[Array, " deter"], latent: Float[Array, " latent"]
    ) -> Float[Array, "height width channels"]:
        height, breadth, _ = image_shape(self.spaces)
        rows, columns = smallest_map(height, breadth, self.config)
        spread = self.layers["sp0"](deter).reshape(self.config.decoder_blocks, rows, columns, -1)
        spread = jnp.moveaxis(spread, 0, 2).reshape(rows, columns, -1)
        dense = jax.nn.silu(self.layers["sp1norm"](self.layers["sp1"](latent)))
        x = spread + self.layers["sp2"](dense).reshape(spread.shape)
        x = jax.nn.silu(self.layers["spnorm"](x))
        for index in reversed(range(len(self.config.mults) - 1)):
            x = _conv(self.layers, f"conv{index}").doubled(x)
            x = jax.nn.silu(self.layers[f"conv{index}norm"](x))
        return _pixels(_conv(self.layers, "imgout").doubled(x))


def images(spaces: tuple[tuple[str, Space], ...]) -> list[tuple[str, Space]]:
    """The observations that are images."""
    return [(key, space) for key, space in spaces if space.is_image]


def vectors(spaces: tuple[tuple[str, Space], ...]) -> list[tuple[str, Space]]:
    """The observations of lower rank, including discrete ones."""
    return [(key, space) for key, space in spaces if len(space.shape) < 3]


def width(space: Space) -> int:
    """Number of inputs for one value: one-hot for discrete spaces."""
    return math.prod(space.shape) * (space.classes or 1)


def image_shape(spaces: tuple[tuple[str, Space], ...]) -> tuple[int, int, int]:
    """(height, width, channels) of all images stacked; they must have the same height and width.

    **Errors:** `ValueError` if they differ.
    """
    shapes = {key: space.shape for key, space in images(spaces)}
    if len({shape[:2] for shape in shapes.values()}) > 1:
        raise ValueError(f"Images must have one size; got {shapes}.")
    height, breadth, _ = next(iter(shapes.values()))
    return height, breadth, sum(shape[-1] for shape in shapes.values())


def smallest_map(height: int, breadth: int, config: ModelConfig) -> tuple[int, int]:
    """Height and width after the convolutions.

    **Errors:** `ValueError` if an image cannot be halved once for each layer.
    """
    factor = 2 ** len(config.mults)
    if height % factor or breadth % factor:
        raise ValueError(
            f"{plural(len(config.mults), 'convolution halves', 'convolutions halve')} an image, so "
            f"each side must be a multiple of {factor}; got {height}x{breadth}. Pass another "
            "`size=N`."
        )
    return height // factor, breadth // factor


def patches(height: int, breadth: int) -> int:
    """Number of patches that cover an image.

    **Errors:** `ValueError` if they do not cover it exactly.
    """
    if height % PATCH or breadth % PATCH:
        raise ValueError(
            f"Patch vision needs sides that are multiples of {PATCH}; got {height}x{breadth}. "
            "Pass another `size=N`."
        )
    return (height // PATCH) * (breadth // PATCH)


def split_patches(x: Float[Array, "height width channels"]) -> Float[Array, "patches pixels"]:
    """Split an image into patches, one row of pixels for each patch."""
    rows, columns, channels = x.shape[0] // PATCH, x.shape[1] // PATCH, x.shape[2]
    x = x.reshape(rows, PATCH, columns, PATCH, channels)
    return x.transpose(0, 2, 1, 3, 4).reshape(rows * columns, PATCH * PATCH * channels)


def join_patches(
    x: Float[Array, "patches pixels"], height: int, breadth: int
) -> Float[Array, "height width channels"]:
    """The inverse of `split_patches`."""
    rows, columns = height // PATCH, breadth // PATCH
    x = x.reshape(rows, columns, PATCH, PATCH, -1).transpose(0, 2, 1, 3, 4)
    return x.reshape(height, breadth, -1)


def _conv(layers: Layers, name: str) -> Conv:
    layer = layers[name]
    assert isinstance(layer, Conv)
    return layer


def _pixels(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.nn.sigmoid(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


def unit(image: Array, dtype: jnp.dtype) -> Float[Array, "height width channels"]:
    """The pixels in [0, 1]; bytes are divided by 255."""
    if jnp.issubdtype(image.dtype, jnp.integer):
        return image.astype(dtype) / 255
    return image.astype(dtype)


def _vector(value: Array, space: Space) -> Float[Array, " width"]:
    if space.classes is None:
        return symlog(value.astype(jnp.float32)).ravel()
    if jnp.issubdtype(value.dtype, jnp.integer):
        return jax.nn.one_hot(value, space.classes).ravel()
    return value.ravel()


def _vector_head(
    head: dict[str, Linear], hidden: Float[Array, " units"], space: Space
) -> Distribution:
    (layer,) = head.values()
    out = layer(hidden)
    out = out.astype(jnp.promote_types(out.dtype, jnp.float32))
    if space.classes is None:
        return SymlogSquared(out.reshape(space.shape))
    return Categorical(out.reshape(*space.shape, space.classes))
