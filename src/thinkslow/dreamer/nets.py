"""Layers.

Every leaf of a layer is an array and everything else is static, so plain `jax.jit`, `grad`,
`vmap` and `scan` work on a model. Kernels are stored `(in, out)` under the leaf names of the
official DreamerV3, so that importing weights is renaming. A layer maps one example; batch
with `vmap`. Nothing here knows what a world model is.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.dreamer.convolution import convolve, convolve_and_pool, double_and_convolve
from thinkslow.dreamer.product import product
from thinkslow.trees import put
from thinkslow.weights import drawn


def truncated_normal(
    key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, scale: float
) -> Float[Array, "..."]:
    """A normal with standard deviation `scale / sqrt(fan_in)`, truncated at two deviations.

    The divisor restores the deviation that truncation removes.
    """
    if not drawn():
        return jnp.zeros(shape)
    deviation = scale / np.sqrt(fan_in) / 0.87962566103423978
    return deviation * jr.truncated_normal(key, -2.0, 2.0, shape)


def constant(value: float, size: int) -> Float[Array, " size"]:
    """The first value of a bias or a scale.

    Where only shapes matter, no memory is allocated: a file may claim any size.
    """
    if not drawn():
        return jnp.full(size, value)
    return put(np.full(size, value, np.float32))


class Linear(eqx.Module):
    """`x @ kernel + bias` over the last axis; leading axes pass through."""

    kernel: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, *, scale: float = 1.0, key: PRNGKeyArray):
        self.kernel = truncated_normal(key, (inputs, outputs), inputs, scale)
        self.bias = constant(0.0, outputs)

    def __call__(self, x: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
        return product(x, self.kernel) + self.bias


class BlockLinear(eqx.Module):
    """A linear map whose kernel is block-diagonal: block g of the input feeds block g only."""

    kernel: Float[Array, "blocks block_inputs block_outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, blocks: int, *, key: PRNGKeyArray):
        self.kernel = truncated_normal(
            key, (blocks, inputs // blocks, outputs // blocks), inputs // blocks, 1.0
        )
        self.bias = constant(0.0, outputs)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return self.parts(x, 1)[0].ravel()

    def parts(
        self, x: Float[Array, " inputs"], count: int
    ) -> list[Float[Array, "blocks part_outputs"]]:
        """The outputs of each block in `count` equal parts.

        A batched product has its blocks before the batch, and XLA fuses the transposition with what
        follows. On a CPU that loop is fast only if the parts are taken before their biases are
        added, and if they keep the axis of blocks.
        """
        blocks = x.reshape(self.kernel.shape[0], -1)
        out = jnp.einsum("gi,gio->go", blocks, self.kernel)
        biases = jnp.split(self.bias.reshape(out.shape), count, -1)
        return [part + bias for part, bias in zip(jnp.split(out, count, -1), biases, strict=True)]


class Conv(eqx.Module):
    """2D convolution of an image (height, width, channels), stride 1, padded to the same size."""

    kernel: Float[Array, "size size inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, size: int, *, key: PRNGKeyArray):
        self.kernel = truncated_normal(
            key, (size, size, inputs, outputs), size * size * inputs, 1.0
        )
        self.bias = constant(0.0, outputs)

    def __call__(
        self, x: Float[Array, "height width inputs"]
    ) -> Float[Array, "height width outputs"]:
        return convolve(x, self.kernel) + self.bias

    def doubled(
        self, x: Float[Array, "height width inputs"]
    ) -> Float[Array, "height2 width2 outputs"]:
        """The convolution of the image enlarged to twice its size, each pixel four times."""
        return double_and_convolve(x, self.kernel) + self.bias

    def pooled(
        self, x: Float[Array, "height width inputs"]
    ) -> Float[Array, "half_height half_width outputs"]:
        """The convolution, then the maximum of each 2x2 square."""
        return convolve_and_pool(x, self.kernel) + self.bias


class RMSNorm(eqx.Module):
    """Divide by the root mean square over the last axis, then scale; epsilon 1e-4."""

    scale: Float[Array, " channels"]

    def __init__(self, channels: int):
        self.scale = constant(1.0, channels)

    def __call__(self, x: Float[Array, "... channels"]) -> Float[Array, "... channels"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        size = jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + 1e-4)
        return (wide * size).astype(x.dtype) * self.scale


class LayerNorm(eqx.Module):
    """Standardise over the last axis, then scale and shift; epsilon 1e-3."""

    scale: Float[Array, " channels"]
    bias: Float[Array, " channels"]

    def __init__(self, channels: int):
        self.scale, self.bias = (
            constant(1.0, channels),
            constant(0.0, channels),
        )

    def __call__(self, x: Float[Array, "... channels"]) -> Float[Array, "... channels"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - jnp.mean(wide, -1, keepdims=True)
        size = jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + 1e-3)
        return (centred * size).astype(x.dtype) * self.scale + self.bias


class NormLinear(eqx.Module):
    """`x @ kernel` over the last axis, layer-normed; no bias of its own."""

    kernel: Float[Array, "inputs outputs"]
    norm: LayerNorm

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        self.kernel = truncated_normal(key, (inputs, outputs), inputs, 1.0)
        self.norm = LayerNorm(outputs)

    def __call__(self, x: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
        return self.norm(product(x, self.kernel))


class StridedConv(eqx.Module):
    """2D convolution that shrinks an image by its stride, layer-normed over channels."""

    kernel: Float[Array, "size size inputs outputs"]
    norm: LayerNorm
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, *, key: PRNGKeyArray):
        self.kernel = truncated_normal(
            key, (size, size, inputs, outputs), size * size * inputs, 1.0
        )
        self.norm, self.stride = LayerNorm(outputs), stride

    def __call__(
        self, x: Float[Array, "height width inputs"]
    ) -> Float[Array, "small_height small_width outputs"]:
        out = jax.lax.conv_general_dilated(
            x[None],
            self.kernel,
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return self.norm(out[0])


class TransposedConv(eqx.Module):
    """Transposed 2D convolution: the image grows by the stride.

    The kernel is `(size, size, outputs, inputs)` and is not flipped. Layer-normed over channels;
    the last one of a decoder has a bias instead.
    """

    kernel: Float[Array, "size size outputs inputs"]
    norm: LayerNorm | None
    bias: Float[Array, " outputs"] | None
    stride: int = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        *,
        last: bool = False,
        key: PRNGKeyArray,
    ):
        self.kernel = truncated_normal(
            key, (size, size, outputs, inputs), size * size * inputs, 1.0
        )
        self.norm = None if last else LayerNorm(outputs)
        self.bias = constant(0.0, outputs) if last else None
        self.stride = stride

    def __call__(
        self, x: Float[Array, "height width inputs"]
    ) -> Float[Array, "large_height large_width outputs"]:
        out = jax.lax.conv_transpose(
            x[None],
            self.kernel,
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWOI", "NHWC"),
        )[0]
        out = out if self.norm is None else self.norm(out)
        return out if self.bias is None else out + self.bias


class MLP(eqx.Module):
    """`layers` times linear, RMS norm, SiLU; named `linear{i}`, `norm{i}`."""

    layers: dict[str, Linear | RMSNorm]

    def __init__(self, inputs: int, units: int, layers: int, *, key: PRNGKeyArray):
        self.layers = {}
        for index, layer_key in enumerate(jr.split(key, layers)):
            width = units if index else inputs
            self.layers[f"linear{index}"] = Linear(width, units, key=layer_key)
            self.layers[f"norm{index}"] = RMSNorm(units)

    def __call__(self, x: Float[Array, "... inputs"]) -> Float[Array, "... units"]:
        for index in range(len(self.layers) // 2):
            x = jax.nn.silu(self.layers[f"norm{index}"](self.layers[f"linear{index}"](x)))
        return x
