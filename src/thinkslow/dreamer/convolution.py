"""Convolutions, computed in the way that is fastest on the present backend.

A convolution next to a step that doubles or halves an image can be computed at the smaller
resolution. The large image is then an image of cells of 2x2 pixels, with one group of channels for
each pixel of a cell. Doubling and convolving becomes one convolution of the small image; its groups
are the pixels of the result. Convolving and pooling becomes one convolution of cells; the largest
group is the result. Both are exact: the same products, summed in another order.

This is for CPUs, where convolutions of few channels are slow (times: docs/performance.md). Other
backends use the plain convolution.

On CPUs both gradients are also written out: by the image as a convolution with the rotated kernel,
by the kernel as convolutions of the images with the gradient, a few images at a time. JAX's own
gradients have axes in an order that XLA's fast convolution does not accept. XLA reorders them at
the top level of a program, but not inside loops or branches, where it computes the same convolution
number by number. Over all images at once, the gradient by the kernel is slower too.

Kernels are `(size, size, inputs, outputs)`, images `(height, width, channels)`; one example,
batched with `vmap`.
"""

from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Kernel: TypeAlias = Float[Array, "size size inputs outputs"]
Padding: TypeAlias = tuple[int, int]

FEW = 16
"""Number of input channels below which pooling uses cells, which cost 1.4 times the products."""

TOGETHER = 32
"""Images in one convolution of the gradient by the kernel: they should fit the caches."""


def convolve(
    x: Float[Array, "height width inputs"], kernel: Kernel
) -> Float[Array, "height width outputs"]:
    """The convolution, padded to the same size."""
    size = kernel.shape[0]
    return _convolve(x, kernel, ((size - 1) // 2, size // 2))


def double_and_convolve(
    x: Float[Array, "height width inputs"], kernel: Kernel, *, cells: bool | None = None
) -> Float[Array, "height2 width2 outputs"]:
    """Repeat each pixel in a 2x2 square, then convolve, padded to the same size.

    Args:
        x: a small image.
        kernel: the kernel of the convolution of the large image.
        cells: whether to compute at the smaller resolution; None: if that is faster.

    **Cost:** for a 5x5 kernel, 2.8 times fewer products at the smaller resolution.
    """
    if not (_on_cpu() if cells is None else cells):
        return convolve(jnp.repeat(jnp.repeat(x, 2, 0), 2, 1), kernel)
    small = _between_cells(kernel).sum((1, 3))  # the pixels of a cell are equal: their taps add up
    out = _convolve(x, small.reshape(*small.shape[:3], -1), _reach(kernel))
    height, width, _ = out.shape
    out = out.reshape(height, width, 2, 2, -1).transpose(0, 2, 1, 3, 4)
    return out.reshape(2 * height, 2 * width, -1)


def convolve_and_pool(
    x: Float[Array, "height width inputs"], kernel: Kernel, *, cells: bool | None = None
) -> Float[Array, "half_height half_width outputs"]:
    """Convolve, padded to the same size, then take the maximum of each 2x2 square.

    Args:
        x: an image whose height and width are even.
        kernel: the kernel of the convolution.
        cells: whether to compute at the smaller resolution; None: if that is faster.

    **Cost:** for a 5x5 kernel, 1.4 times the products at the smaller resolution, but with four
    times the channels and without strided reads.
    """
    height, width, inputs = x.shape[0] // 2, x.shape[1] // 2, x.shape[2]
    if not (_on_cpu() and inputs < FEW if cells is None else cells):
        return convolve(x, kernel).reshape(height, 2, width, 2, -1).max((1, 3))
    x = x.reshape(height, 2, width, 2, inputs).transpose(0, 2, 1, 3, 4).reshape(height, width, -1)
    small = _between_cells(kernel).transpose(0, 2, 1, 3, 4, 5, 6, 7)
    small = small.reshape(*small.shape[:2], 4 * inputs, -1)
    return _largest(_convolve(x, small, _reach(kernel)))


def _between_cells(kernel: Kernel) -> Float[Array, "rows 2 columns 2 inputs 2 2 outputs"]:
    """For each output pixel, each tap of the kernel at the cell and the pixel that it reads."""
    (before, after), size = _reach(kernel), kernel.shape[0]
    cells = before + 1 + after

    def split(kernel: Array, axis: int) -> Array:
        pixels = []
        for pixel in (0, 1):
            front = 2 * before + pixel - (size - 1) // 2
            pads = [(0, 0)] * kernel.ndim
            pads[axis] = (front, 2 * cells - size - front)
            shape = (*kernel.shape[:axis], cells, 2, *kernel.shape[axis + 1 :])
            pixels.append(jnp.pad(kernel, pads).reshape(shape))
        return jnp.stack(pixels, -2)

    return split(split(kernel, 0), 2)


def _reach(kernel: Kernel) -> Padding:
    """How many cells before and after a cell the kernel reads."""
    size = kernel.shape[0]
    return ((size - 1) // 2 + 1) // 2, (size - (size - 1) // 2) // 2


@jax.custom_jvp
def _largest(cells: Float[Array, "height width pixels"]) -> Float[Array, "height width outputs"]:
    """The largest of a cell's four pixels, channel by channel.

    JAX's gradient of a maximum goes through the large array several times; this one, once. Both
    share it equally among pixels that are the largest together.
    """
    first, second, third, fourth = jnp.split(cells, 4, -1)
    return jnp.maximum(jnp.maximum(first, second), jnp.maximum(third, fourth))


@_largest.defjvp
def _along(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    largest = _largest(*primals)
    chosen = [pixel == largest for pixel in jnp.split(primals[0], 4, -1)]
    pairs = zip(chosen, jnp.split(tangents[0], 4, -1), strict=True)
    parts = [jnp.where(here, part, 0) for here, part in pairs]
    counts = [here.astype(largest.dtype) for here in chosen]
    return largest, sum(parts[1:], parts[0]) / sum(counts[1:], counts[0])


def _convolve(x: Array, kernel: Array, padding: Padding) -> Array:
    if _on_cpu():
        return _turned.bind(x[None], kernel, padding=padding)[0]
    return _plain(x[None], kernel, padding=padding)[0]


def _plain(x: Array, kernel: Array, *, padding: Padding) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# `_plain` with other gradients. It is a primitive: a custom derivative would sum the kernel's
# gradients over the batch instead of computing one from the whole batch.
_turned = Primitive("convolve")
_turned.def_impl(jax.jit(_plain, static_argnames="padding"))


@_turned.def_abstract_eval
def _shape(x: Any, kernel: Any, *, padding: Padding) -> Any:
    grown = sum(padding) + 1 - kernel.shape[0]
    count, height, width, _ = x.shape
    return x.update(shape=(count, height + grown, width + grown, kernel.shape[3]))


def _by_images(cotangent: Array, x: Any, kernel: Array, *, padding: Padding) -> Array:
    before, after = (kernel.shape[0] - 1 - side for side in padding)
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _turned.bind(cotangent, turned, padding=(before, after))


def _by_kernel(cotangent: Array, x: Array, kernel: Any, *, padding: Padding) -> Array:
    """The sum over all images, `TOGETHER` at a time.

    Each slice is cut inside the loop: grouped beforehand, XLA would compute the images a second
    time, in the groups' shape.
    """

    def part(start: Any, count: int) -> Array:
        few, out = (jax.lax.dynamic_slice_in_dim(each, start, count) for each in (x, cotangent))
        part = _plain(few.transpose(3, 1, 2, 0), out.transpose(1, 2, 0, 3), padding=padding)
        return part.astype(exact)

    def add(group: Any, total: Array) -> Array:
        return total + part(group * TOGETHER, TOGETHER)

    size, _, inputs, outputs = kernel.aval.shape
    exact = np.promote_types(x.dtype, np.float32)
    total = jnp.zeros((inputs, size, size, outputs), exact)
    groups, left = divmod(len(x), TOGETHER)
    if groups:
        total = jax.lax.fori_loop(0, groups, add, total)
    if left:
        total += part(groups * TOGETHER, left)
    return total.transpose(1, 2, 0, 3).astype(x.dtype)


def _batch(arguments: tuple, axes: tuple, *, padding: Padding) -> tuple:
    (x, kernel), (at, kernel_at) = arguments, axes
    if kernel_at is not None:
        return jax.vmap(partial(_plain, padding=padding), (at, kernel_at))(x, kernel), 0
    x = jnp.moveaxis(x, at, 0)
    out = _turned.bind(x.reshape(-1, *x.shape[2:]), kernel, padding=padding)
    return out.reshape(*x.shape[:2], *out.shape[1:]), 0


ad.defbilinear(_turned, _by_images, _by_kernel)
batching.primitive_batchers[_turned] = _batch
mlir.register_lowering(_turned, mlir.lower_fun(_plain, multiple_results=False))


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"
