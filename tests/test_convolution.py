import re
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import slow
from scipy.signal import correlate

from thinkslow.dreamer.convolution import (
    TOGETHER,
    convolve,
    convolve_and_pool,
    double_and_convolve,
)
from thinkslow.dreamer.nets import Conv

pytestmark = pytest.mark.usefixtures("strict")

FORMS = {"double": double_and_convolve, "pool": convolve_and_pool}
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}
"""Of the largest number: sums of up to 400 products in another order."""


def moment(size: int, dtype: str, height: int = 6, width: int = 10) -> tuple[jax.Array, jax.Array]:
    """Three small images and a kernel."""
    rng, kind = np.random.default_rng(size), jnp.dtype(dtype)
    images = rng.normal(size=(3, height, width, 4)).astype(kind)
    return jnp.asarray(images), jnp.asarray(rng.normal(size=(size, size, 4, 5)).astype(kind))


def close(found, expected, dtype: str = "float32") -> None:
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    bound = TOLERANCE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_a_convolution_is_that_of_scipy(size):
    """For an even kernel the extra row of zeros is after the image."""
    images, kernel = moment(size, "float32")
    before, after = (size - 1) // 2, size // 2
    padded = np.pad(np.asarray(images)[0], ((before, after), (before, after), (0, 0)))
    kernel = np.asarray(kernel)
    expected = sum(
        np.stack([correlate(padded[..., i], kernel[:, :, i, o], "valid") for o in range(5)], -1)
        for i in range(4)
    )
    close(jax.jit(convolve)(np.asarray(images)[0], kernel), expected)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        *(
            (size, "float32") if size in (4, 5) else slow(size, "float32")
            for size in (1, 3, 4, 5, 7)
        ),
        slow(5, "bfloat16"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_cells_are_the_plain_convolution_with_both_gradients(form, size, dtype):
    images, kernel = moment(size, dtype)

    @partial(jax.jit, static_argnums=0)
    def computed(cells: bool):
        each = jax.vmap(partial(FORMS[form], cells=cells), (0, None))
        out, pull = jax.vjp(each, images, kernel)
        weights = jr.normal(jr.key(9), out.shape).astype(dtype)
        return out, pull(weights)

    (out, gradients), (plain, plain_gradients) = computed(True), computed(False)
    close(out, plain, dtype)
    if form == "pool" and dtype == "bfloat16":
        return  # two pixels that round alike share the gradient in one form and not in the other
    for gradient, plain_gradient in zip(gradients, plain_gradients, strict=True):
        close(gradient, plain_gradient, dtype)


@pytest.mark.parametrize("shape", [(5, 7), (1, 3), (2, 1)])
def test_a_small_image_of_odd_sides_is_doubled(shape):
    images, kernel = moment(5, "float32", *shape)
    found, expected = (
        jax.jit(partial(double_and_convolve, cells=cells))(np.asarray(images)[0], kernel)
        for cells in (True, False)
    )
    assert found.shape == (2 * shape[0], 2 * shape[1], 5)
    close(found, expected)


def test_a_flat_image_gives_the_gradient_to_no_pixel_twice():
    """All four pixels are the largest: each gets its share."""
    kernel = np.zeros((5, 5, 4, 5), np.float32)
    kernel[2, 2] = 1.0
    flat = np.ones((4, 4, 4), np.float32)

    def total(image: jax.Array, kernel: jax.Array, cells: bool) -> jax.Array:
        return convolve_and_pool(image, kernel, cells=cells).sum()

    for cells in (True, False):
        gradient = jax.jit(jax.grad(total), static_argnums=2)(flat, kernel, cells)
        np.testing.assert_allclose(gradient, 5 / 4, rtol=1e-6)


def test_kernels_of_an_ensemble_are_batched_too():
    images, kernel = (np.asarray(x) for x in moment(5, "float32"))
    kernels = np.stack([kernel, -2 * kernel])
    slope = jax.grad(lambda k: jnp.sum(convolve(jnp.asarray(images[0]), k) ** 2))
    alone = jax.jit(slope)
    for one, gradient in zip(kernels, jax.jit(jax.vmap(slope))(kernels), strict=True):
        close(gradient, alone(one))


@pytest.mark.parametrize(("method", "size"), [("doubled", (8, 12)), ("pooled", (2, 3))])
def test_a_layer_adds_its_bias_to_either(method, size):
    layer = jax.jit(lambda: Conv(2, 3, 5, key=jr.key(0)))()
    x = np.random.default_rng(1).normal(size=(4, 6, 2)).astype(np.float32)
    through = jax.jit(lambda layer, x: getattr(layer, method)(x))
    plain = through(layer, x)
    assert plain.shape == (*size, 3)
    moved = jax.tree.map(lambda leaf: leaf + np.float32(leaf.ndim == 1), layer)
    close(through(moved, x), np.asarray(plain) + 1.0)


def plain(x, kernel):
    """JAX's own, with its own gradients."""
    pads = [((size - 1) // 2, size // 2) for size in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


@pytest.mark.parametrize("size", [1, 4, 5])
def test_gradients_are_those_of_jax_however_images_and_kernels_are_batched(size):
    images, kernel = moment(size, "float32")
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])
    batched = {
        "one kernel": (images, kernel, [(0, None)]),
        "a kernel for each image": (images, kernels, [(0, 0)]),
        "each image under each kernel": (images, kernels, [(0, None), (None, 0)]),
    }
    for how, (x, k, axes) in batched.items():

        def gradients(function, x=x, k=k, axes=axes):
            for each in axes:
                function = jax.vmap(function, each)
            return jax.jit(jax.grad(lambda x, k: jnp.sin(function(x, k)).sum(), (0, 1)))(x, k)

        for found, expected in zip(gradients(convolve), gradients(plain), strict=True):
            assert found.shape == expected.shape, how
            close(found, expected)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs alone")
@pytest.mark.parametrize("form", [convolve, double_and_convolve, convolve_and_pool])
def test_the_gradient_in_a_loop_is_a_convolution_that_the_cpu_computes_fast(form):
    """XLA's fast one takes kernels whose inputs come before their outputs (`io`)."""
    images, kernel = moment(5, "float32")

    def descend(x, _):
        return x - jax.grad(lambda x: jnp.sin(jax.vmap(form, (0, None))(x, kernel)).sum())(x), None

    program = jax.jit(lambda x: jax.lax.scan(descend, x, None, length=3)[0])
    text = program.lower(images).compile().as_text() or ""
    assert "_01io->" in text
    assert "_01oi->" not in text


@pytest.mark.parametrize("count", [TOGETHER - 1, TOGETHER, 2 * TOGETHER, 2 * TOGETHER + 5])
def test_the_gradient_by_the_kernel_is_the_sum_over_all_images(count):
    rng = np.random.default_rng(count)
    images = rng.normal(size=(count, 4, 6, 2)).astype(np.float32)
    kernel = rng.normal(size=(5, 5, 2, 3)).astype(np.float32)

    def gradient(function):
        each = jax.vmap(function, (0, None))
        return jax.jit(jax.grad(lambda kernel: jnp.sin(each(images, kernel)).sum()))(kernel)

    close(gradient(convolve), gradient(plain))


def test_in_bfloat16_the_sum_over_all_images_is_not_rounded_on_the_way():
    """In bfloat16, 256 and 1 are 256: such a sum would stop growing."""
    images = jnp.ones((10 * TOGETHER, 1, 1, 1), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    each = jax.vmap(convolve, (0, None))
    found = jax.jit(jax.grad(lambda kernel: each(images, kernel).astype(np.float32).sum()))(kernel)
    assert found.item() == 10 * TOGETHER


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs alone")
def test_a_cpu_computes_the_gradient_by_the_kernel_fast():
    """XLA's fast convolution takes these orders alone, and is fastest for few images at a time."""
    images, kernel = (
        np.ones(shape, np.float32) for shape in ((2 * TOGETHER, 16, 16, 8), (5, 5, 8, 12))
    )
    each = jax.vmap(convolve, (0, None))
    program = jax.jit(jax.grad(lambda kernel, images: jnp.sin(each(images, kernel)).sum()))
    text = program.lower(kernel, images).compile().as_text() or ""
    orders = set(re.findall(r"dim_labels=(\S+?)[,\s]", text))
    assert orders == {"b01f_01io->b01f"}
    assert " while(" in text


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs alone")
def test_the_gradient_by_the_kernel_copies_no_images_into_groups():
    images, kernel = (
        np.ones(shape, np.float32) for shape in ((2 * TOGETHER, 16, 16, 3), (5, 5, 3, 12))
    )
    each = jax.vmap(convolve_and_pool, (0, None))
    program = jax.jit(jax.grad(lambda kernel, images: jnp.sin(each(images, kernel)).sum()))
    text = program.lower(kernel, images).compile().as_text() or ""
    assert f"f32[{2 * TOGETHER},8,8,12]" in text
    assert f"f32[2,{TOGETHER}," not in text
