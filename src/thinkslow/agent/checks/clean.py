"""The usual reconstruction errors of an agent, measured on clean episodes.

Images are compared by patches, vectors by their numbers; discrete parts are left out. The errors
are the agent's own, so a patch that it never reconstructs well has little weight.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from thinkslow.distributions import Categorical
from thinkslow.heads import SymlogSquared, symlog
from thinkslow.worldmodel import Observation, target

PATCH = 8
"""Side of a patch in pixels; the largest smaller divisor if it does not divide the image."""
MOST = 9.0
"""The largest weight of a patch, in units of its usual error, so that no patch decides alone."""
LEAST = 1e-6
"""Smallest usual error of a patch. Without it, any change of a constant patch would be
suspicious.
"""

BLOCKS = (2, 3)
"""Sides, in patches, of the blocks that may be covered; covers of other sizes hold such blocks."""

Errors = Mapping[str, Float[Array, "..."]]
"""Mean squared errors of each patch, or of each number of a vector, by the name of the part."""


class Clean(eqx.Module):
    """The usual errors on clean frames.

    Attributes:
        errors: median errors: of the patches of an image `(rows, columns)`, of the numbers of a
            vector, by the name of the part.
        threshold: threshold of `distance`; above it a frame is suspicious.
        unrelated: median distance of a reconstruction from the frame of another episode; a frame
            that far from its own reconstruction is no evidence.
        alone: threshold of the mean error of a reconstruction without history: the rule of WISER.
        largest: what 1% of the errors of each patch exceed, by the name of the image.
        blocks: for each of `BLOCKS`, the threshold of the errors of a block in units of `largest`;
            if all of them are above it, the block is covered.
        means: mean of the pixels of each channel, in [0, 1], by the name of the image.
        deviations: their deviation.
    """

    errors: Errors
    threshold: Float[Array, ""] | float
    unrelated: Float[Array, ""] | float
    alone: Float[Array, ""] | float
    largest: Errors
    blocks: Float[Array, " sides"]
    means: Mapping[str, Float[Array, " channels"]]
    deviations: Mapping[str, Float[Array, " channels"]]

    @classmethod
    def even(cls, model: Any, threshold: float, *, usual: float = 1.0) -> "Clean":
        """The same usual error of every patch and number, and one threshold for everything.

        Args:
            model: a world model with a decoder.
            threshold: -1: every frame is suspicious and covered; infinity: none is.
            usual: the usual error.
        """
        shapes = jax.eval_shape(
            lambda: {k: head.mode() for k, head in numeric(model.decode(model.initial())).items()}
        )
        errors = {
            name: jnp.full_like(patched(jnp.zeros(shape.shape)), usual)
            for name, shape in shapes.items()
        }
        pictured = [name for name, shape in shapes.items() if len(shape.shape) == 3]
        none = {name: jnp.zeros(shapes[name].shape[-1]) for name in pictured}
        largest = {name: errors[name] for name in pictured}
        blocks = jnp.full(len(BLOCKS), threshold)
        return cls(errors, threshold, MOST, threshold, largest, blocks, none, none)

    def ratios(self, errors: Errors) -> dict[str, Array]:
        """Errors in units of the usual ones."""
        return {name: error / self.errors[name] for name, error in errors.items()}

    def times(self, level: Float[Array, ""]) -> "Clean":
        """The same where all errors are `level` times as large."""
        errors, largest = (
            {name: error * level for name, error in each.items()}
            for each in (self.errors, self.largest)
        )
        return dataclasses.replace(self, errors=errors, largest=largest)

    def covered(self, errors: Errors) -> dict[str, Bool[Array, "rows columns"]]:
        """Which patches of each image belong to a covered block."""
        return {
            name: jnp.any(
                jnp.stack(
                    [
                        least_in_blocks(errors[name] / largest, side) > limit
                        for side, limit in zip(BLOCKS, self.blocks, strict=True)
                    ]
                ),
                0,
            )
            for name, largest in self.largest.items()
        }

    def distance(self, errors: Errors) -> Float[Array, ""]:
        """The mean over patches of their error in units of the usual one, none above `MOST`."""
        return capped(self.ratios(errors))


def least_in_blocks(
    ratios: Float[Array, "rows columns"], side: int
) -> Float[Array, "rows columns"]:
    """For each patch, the smallest ratio in that block of `side` x `side` around it in which the
    smallest ratio is largest; minus infinity if the image is smaller than a block.

    >>> least_in_blocks(jnp.array([[1.0, 5.0, 5.0], [1.0, 5.0, 3.0]]), 2)
    Array([[1., 3., 3.],
           [1., 3., 3.]], dtype=float32)
    """
    if min(ratios.shape) < side:
        return jnp.full(ratios.shape, -jnp.inf)
    window, stride = (side, side), (1, 1)
    least = jax.lax.reduce_window(ratios, jnp.inf, jax.lax.min, window, stride, "VALID")
    wide = jnp.pad(least, side - 1, constant_values=-jnp.inf)
    return jax.lax.reduce_window(wide, -jnp.inf, jax.lax.max, window, stride, "VALID")


def capped(ratios: Mapping[str, Array], level: Float[Array, ""] | float = 1.0) -> Float[Array, ""]:
    """The mean over patches of their ratios to the usual errors at a level, none above `MOST`."""
    return jnp.mean(
        jnp.concatenate([jnp.minimum(ratio / level, MOST).ravel() for ratio in ratios.values()])
    )


def numeric(heads: Mapping[str, Any]) -> dict[str, Any]:
    """The heads that predict images or vectors, by name."""
    return {name: head for name, head in heads.items() if not isinstance(head, Categorical)}


def errors_of(heads: Mapping[str, Any], observation: Observation) -> dict[str, Array]:
    """The errors of the heads' predictions of an observation: see `Errors`."""
    out = {}
    for name, head in numeric(heads).items():
        shown, value = head.mode(), target(head, observation[name])
        if isinstance(head, SymlogSquared):
            shown, value = symlog(shown), symlog(value)
        out[name] = patched(jnp.square(shown - value).astype(jnp.float32))
    return out


def patched(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Means over the patches of an image; the numbers of a vector are unchanged."""
    if values.ndim != 3:
        return values
    height, width, channels = values.shape
    side = patch_side(height, width)
    blocks = values.reshape(height // side, side, width // side, side, channels)
    return jnp.mean(blocks, (1, 3, 4))


def unpatched(weights: Float[Array, "..."], like: Array) -> Float[Array, "..."]:
    """The weights of patches as an array of pixels, in the shape of the image `like`."""
    if like.ndim != 3:
        return weights
    side = patch_side(*like.shape[:2])
    return jnp.repeat(jnp.repeat(weights, side, 0), side, 1)[..., None]


def patch_side(height: int, width: int) -> int:
    """
    >>> patch_side(64, 64), patch_side(84, 84), patch_side(7, 9)
    (8, 7, 1)
    """
    return max(n for n in range(1, PATCH + 1) if height % n == 0 and width % n == 0)


def mean_error(errors: Errors) -> Float[Array, ""]:
    """The mean over all patches."""
    return jnp.mean(jnp.concatenate([error.ravel() for error in errors.values()]))


def images(heads: Mapping[str, Any]) -> list[str]:
    """The names of the parts that are images."""
    shapes = jax.eval_shape(lambda: {name: head.mode() for name, head in numeric(heads).items()})
    return [name for name, shape in shapes.items() if len(shape.shape) == 3]
