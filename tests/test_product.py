"""The product of layers and its gradients, against `@` and JAX's own."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from thinkslow.dreamer.product import product

pytestmark = pytest.mark.usefixtures("strict")

WAYS = {
    "one example": (),
    "several axes under one kernel": ((0, None), (1, None)),
    "an ensemble of kernels": ((0, None), (None, 0)),
    "a kernel for each row": ((0, 0), (1, None)),
}


def moment(way, dtype="float32"):
    rng = np.random.default_rng(0)
    x_shape, kernel_shape = [5, 3], [3, 2]
    for size, axes in zip((4, 6), reversed(WAYS[way]), strict=False):
        for shape, axis in zip((x_shape, kernel_shape), axes, strict=True):
            if axis is not None:
                shape.insert(axis, size)
    return tuple(
        jnp.asarray(rng.normal(size=shape).astype(jnp.dtype(dtype)))
        for shape in (x_shape, kernel_shape)
    )


def mapped(function, way):
    for axes in reversed(WAYS[way]):
        function = jax.vmap(function, axes)
    return function


@pytest.mark.parametrize("way", WAYS)
def test_values_and_gradients_are_those_of_jax_however_it_is_batched(way):
    x, kernel = moment(way)
    weights = np.array([0.4, 0.8], np.float32)  # no two outputs count alike

    def both(function):
        mapping = mapped(function, way)
        inside = mapped(jax.grad(lambda x, k: jnp.sin(function(x, k) @ weights).sum(), (0, 1)), way)
        outside = jax.grad(lambda x, k: jnp.sin(mapping(x, k) @ weights).sum(), (0, 1))
        return jax.jit(lambda x, k: (mapping(x, k), outside(x, k), inside(x, k)))(x, kernel)

    found, expected = both(product), both(lambda x, k: x @ k)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 3)])
def test_leading_axes_pass_through_in_the_type_that_came(shape):
    x, kernel = jr.normal(jr.key(1), shape, "bfloat16"), jr.normal(jr.key(2), (3, 2), "bfloat16")
    found = product(x, kernel)
    assert found.dtype == "bfloat16"
    np.testing.assert_array_equal(found, x @ kernel)


@pytest.mark.parametrize(("one", "other"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_two_types_are_promoted_as_by_jax(one, other):
    """A model in half precision with an observation in single could not be compiled."""
    x, kernel = moment("one example", one)[0], moment("one example", other)[1]

    def both(function):
        slopes = jax.grad(lambda x, k: function(x, k).sum(), (0, 1))
        return jax.jit(function)(x, kernel), *jax.jit(slopes)(x, kernel)

    with jax.numpy_dtype_promotion("standard"):
        for found, expected in zip(both(product), both(lambda x, k: x @ k), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-2)
    with pytest.raises(ValueError, match="no available implicit dtype promotion"):
        product(x, kernel)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs alone")
def test_the_gradient_by_the_kernel_transposes_nothing():
    """Both arguments are read as they lie: the axis that is summed over comes first in each."""

    def loss(kernel, x):
        return jnp.sin(jax.vmap(jax.vmap(product, (0, None)), (0, None))(x, kernel)).sum()

    x, kernel = jnp.ones((8, 16, 32, 24)), jnp.ones((24, 40))
    text = jax.jit(jax.grad(loss)).lower(kernel, x).compile().as_text() or ""
    assert "lhs_contracting_dims={0}, rhs_contracting_dims={0}" in text
    assert " transpose(" not in text
