"""Plausible parameters of a model: what parameter information gain compares.

`Members` are M sets of parameters that the data leave possible. Each source below makes them
once, before the first decision, so that they are the same over all steps of a refinement, over a
rollout and over decisions; best first: an ensemble of prior heads fitted on the frozen model
(`thinkslow.dreamer.ensemble`), last-layer Laplace, checkpoints along training, weight noise. A
model of one's own plugs in by making `Members` with `replaced`. Nothing here knows what a model
computes.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from thinkslow.distributions import Belief

Where: TypeAlias = Callable[[Any], PyTree[Array]]
"""Which arrays of a model: a function from the model to them, as `equinox.tree_at` takes it."""


class Members(eqx.Module):
    """M sets of parameters: the arrays that differ, stacked; None where all share the model's.

    What does not depend on a differing array is computed once for all members: members that
    differ in a head cost M heads and one core.
    """

    differing: PyTree

    def each(self, model: Any, function: Callable[[Any], Any]) -> Any:
        """`function` of the model under each set of parameters, stacked along a first axis."""
        return jax.vmap(lambda part: function(eqx.combine(part, model)))(self.differing)

    @property
    def count(self) -> int:
        return len(jax.tree.leaves(self.differing)[0])


def replaced(model: Any, where: Where, stacked: PyTree[Array]) -> Members:
    """Members whose arrays at `where` are `stacked`, of the same structure with a first axis of
    M: a fitted ensemble, or parameters from anywhere else."""
    nothing = jax.tree.map(lambda _: None, model)
    return Members(eqx.tree_at(where, nothing, stacked, is_leaf=lambda x: x is None))


def checkpoints(models: Sequence[Any]) -> Members:
    """One member per model, all of one structure: checkpoints along one training.

    **Cost:** M whole models; nothing is shared.
    """
    return Members(jax.tree.map(lambda *arrays: jnp.stack(arrays), *models))


def noisy(
    model: Any, where: Where, *, scale: Float[Array, ""] | float, count: int, key: PRNGKeyArray
) -> Members:
    """`count` members with Gaussian noise on the arrays at `where`: `scale` times their root
    mean square. It knows nothing of the data; a control for better sources."""
    leaves, structure = jax.tree.flatten(where(model))

    def around(leaf: Array, key: PRNGKeyArray) -> Array:
        size = scale * jnp.sqrt(jnp.mean(jnp.square(leaf)))
        return leaf + size * jr.normal(key, (count, *leaf.shape), leaf.dtype)

    keys = jr.split(key, len(leaves))
    stacked = [around(leaf, k) for leaf, k in zip(leaves, keys, strict=True)]
    return replaced(model, where, jax.tree.unflatten(structure, stacked))


def dropped(
    model: Any, where: Where, *, rate: Float[Array, ""] | float, count: int, key: PRNGKeyArray
) -> Members:
    """`count` dropout masks, each held over a rollout, on the inputs of the kernels `(in, out)`
    at `where`. Only for a model that was trained with dropout of that rate at these inputs;
    DreamerV3 was not, and for it this is one more kind of weight noise."""
    leaves, structure = jax.tree.flatten(where(model))

    def masked(leaf: Array, key: PRNGKeyArray) -> Array:
        keep = jr.bernoulli(key, 1 - rate, (count, *leaf.shape[:-1], 1))
        return jnp.where(keep, leaf / (1 - rate), 0)

    keys = jr.split(key, len(leaves))
    stacked = [masked(leaf, k) for leaf, k in zip(leaves, keys, strict=True)]
    return replaced(model, where, jax.tree.unflatten(structure, stacked))


def laplace(
    model: Any,
    where: Where,
    prior: Callable[[Any, Any], Belief],
    memories: PyTree[Array],
    *,
    precision: Float[Array, ""] | float,
    count: int,
    key: PRNGKeyArray,
) -> Members:
    """`count` draws from a Gaussian around the trained arrays at `where`: the last layer of the
    prior head, where the approximation is at its best.

    `prior(model, memory)` is the prior belief at one of `memories`, whose first axis counts the
    data. The precision of each weight is the diagonal Fisher information of all the data plus
    `precision`, that of a Gaussian prior on the weights.

    **References:** Daxberger et al., Laplace Redux, arXiv 2106.14806.
    **Cost:** one gradient per datum, once.
    """
    arrays = where(model)
    draw_key, noise_key = jr.split(key)
    size = len(jax.tree.leaves(memories)[0])

    def score(memory: Any, key: PRNGKeyArray) -> PyTree:
        """The gradient of the log-probability of what the model itself draws."""

        def log_prob(arrays: PyTree) -> Float[Array, ""]:
            belief = prior(eqx.tree_at(where, model, arrays), memory)
            return belief.log_prob(jax.lax.stop_gradient(belief.sample(key=key)))

        return jax.grad(log_prob)(arrays)

    def add(total: PyTree, datum: tuple) -> tuple[PyTree, None]:
        return jax.tree.map(lambda t, g: t + jnp.square(g), total, score(*datum)), None

    zeros = jax.tree.map(jnp.zeros_like, arrays)
    fisher, _ = jax.lax.scan(add, zeros, (memories, jr.split(draw_key, size)))
    leaves, structure = jax.tree.flatten(arrays)
    stacked = [
        leaf + jr.normal(k, (count, *leaf.shape), leaf.dtype) / jnp.sqrt(information + precision)
        for leaf, information, k in zip(
            leaves, jax.tree.leaves(fisher), jr.split(noise_key, len(leaves)), strict=True
        )
    ]
    return replaced(model, where, jax.tree.unflatten(structure, stacked))
