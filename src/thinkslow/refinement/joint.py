"""A belief and the memory together, for refinement that moves both."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from thinkslow.refinement.result import Scalar


class MemoryShift(eqx.Module):
    """A shift of the memory as a belief to refine; its KL is half the squared distance."""

    shift: PyTree[Float[Array, "..."]]

    def kl(self, other: "MemoryShift") -> Float[Array, ""]:
        apart = jax.tree.map(
            lambda a, b: jnp.sum(jnp.square(a - b)).astype(jnp.float32), self.shift, other.shift
        )
        return 0.5 * sum(jax.tree.leaves(apart), jnp.zeros(()))


def memory_shift(memory: PyTree) -> MemoryShift:
    """A shift of zero.

    **Errors:** `TypeError` for a memory that does not consist of floats.
    """
    return MemoryShift(joint(None, memory).shift)


class Joint(eqx.Module):
    """A belief and a shift of the memory, refined together.

    The KL counts only the belief. The memory is a value, not a distribution; its own trust region
    is the ball of `shifted`.
    """

    belief: Any
    shift: PyTree[Float[Array, "..."]]

    def kl(self, other: "Joint") -> Float[Array, ""]:
        return self.belief.kl(other.belief)


def joint(belief: Any, memory: PyTree) -> Joint:
    """The belief, and a shift of zero.

    **Errors:** `TypeError` for a memory that does not consist of floats.
    """
    for leaf in jax.tree.leaves(memory):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"Only a memory of floating arrays can be refined; this one has {leaf.dtype}. "
                f"Set `memory_share` to None."
            )
    return Joint(belief, jax.tree.map(jnp.zeros_like, memory))


def shifted(memory: PyTree, shift: PyTree, radius: Scalar) -> PyTree:
    """The memory shifted by at most `radius` times its own norm.

    A zero shift, or a radius of 0, returns the memory bit for bit.
    """
    most = radius * _length(memory)
    length = _length(shift)
    # Both numbers are replaced where they are not used, or an infinite radius gives NaN gradients.
    far = length > most
    share = jnp.where(far, jnp.where(far, most, 1.0) / jnp.where(far, length, 1.0), 1.0)
    return jax.tree.map(lambda h, d: h + (share * d).astype(h.dtype), memory, shift)


def _length(tree: PyTree) -> Float[Array, ""]:
    total = sum(
        (
            jnp.sum(jnp.square(x.astype(jnp.float32) if x.dtype.itemsize < 4 else x))
            for x in jax.tree.leaves(tree)
        ),
        jnp.zeros(()),
    )
    return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1.0)), 0.0)
