"""Plausible parameters of a model, for parameter information gain.

`Members` are M sets of parameters that fit the data. A `Source` makes them once, before the first
decision, so they stay the same over refinement steps, rollouts and decisions. The sources, best
first: an ensemble of prior heads fitted on the frozen model (`thinkslow.dreamer.ensemble`),
last-layer `Laplace`, `checkpoints` along training, `Noise` on the weights. Your own source
subclasses `Source` and calls `replaced`. Nothing here knows what a model computes.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from thinkslow.distributions import Belief
from thinkslow.needs import PRIOR_LAYER, Need, unmet
from thinkslow.settings import check_range

Where: TypeAlias = Callable[[Any], PyTree[Array]]
"""A function from a model to some of its arrays, as in `equinox.tree_at`."""


class Members(eqx.Module):
    """M sets of parameters: arrays that differ are stacked; None for arrays of the model.

    Computation that does not depend on a differing array is shared: members that differ in a head
    cost M heads and one core.

    Attributes:
        differing: the structure of the model, with the stacked arrays and None: see `replaced`.
    """

    differing: PyTree

    def each(self, model: Any, function: Callable[[Any], Any]) -> Any:
        """`function` of the model under each set of parameters, stacked along a first axis.

        Args:
            model: the model whose parameters these are.
            function: what to compute of a model.
        """
        return jax.vmap(lambda part: function(eqx.combine(part, model)))(self.differing)

    @property
    def count(self) -> int:
        return len(jax.tree.leaves(self.differing)[0])


def replaced(model: Any, where: Where, stacked: PyTree[Array]) -> Members:
    """Members whose arrays at `where` are `stacked`.

    Args:
        model: the model that the members vary.
        where: a function from the model to the arrays that differ, such as `prior_layer`.
        stacked: the structure of `where(model)`; each array has a first axis of M.

    **Errors:** `ValueError` for other shapes, or arrays of different M.
    """
    own, counts = jax.tree.leaves_with_path(where(model)), set()
    for (path, array), new in zip(own, jax.tree.leaves(stacked), strict=True):
        if jnp.shape(new)[1:] != array.shape or not jnp.ndim(new):
            at = jax.tree_util.keystr(path) or "where"
            raise ValueError(
                "Arrays of members must be those of the model with a first axis of M, (M, "
                f"{', '.join(map(str, array.shape))}) at {at}; got {jnp.shape(new)}. Stack them: "
                "`jnp.stack`."
            )
        counts.add(len(new))
    if len(counts) != 1:
        raise ValueError(
            f"All arrays of members must have one number of members M; got "
            f"{', '.join(map(str, sorted(counts)))}."
        )
    nothing = jax.tree.map(lambda _: None, model)
    return Members(eqx.tree_at(where, nothing, stacked, is_leaf=lambda x: x is None))


def checkpoints(models: Sequence[Any]) -> Members:
    """One member for each model, all of one structure, such as checkpoints of one training.

    Args:
        models: the models, such as `[thinkslow.load(folder).model for folder in folders]`.

    **Cost:** M whole models; nothing is shared.
    """
    arrays = [eqx.filter(model, eqx.is_array) for model in models]
    return Members(jax.tree.map(lambda *each: jnp.stack(each), *arrays))


class Source(eqx.Module):
    """Makes plausible parameters of a model. Subclass it for your own source.

    An `Arm` takes a source as `members`; an `Agent` takes the `Members` that a source made.
    """

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs from a model; by default the `prior_layer`, unless `where` is another
        function.
        """
        return (PRIOR_LAYER,) if getattr(self, "where", None) is prior_layer else ()

    @abc.abstractmethod
    def __call__(self, model: Any, *, key: PRNGKeyArray) -> Members:
        """The members, from `replaced`; called once for an agent, and not traced.

        Args:
            model: the agent's model.
            key: PRNG key of the source's random draws.
        """


def prior_layer(model: Any) -> Any:
    """The last layer of the prior head, in which the members of a Dreamer differ.

    **Errors:** `ValueError` for a model without `prior_layer`.
    """
    if (reason := unmet(model, (PRIOR_LAYER,))) is not None:
        raise ValueError(f"{type(model).__name__} has no members: {reason}.")
    return model.prior_layer


class Noise(Source):
    """Gaussian noise on the arrays at `where`, `scale` times their root mean square.

    It does not use the data; it is a control for better sources.
    """

    scale: float = 0.05
    count: int = 4
    """Number of members."""
    where: Where = prior_layer

    def __check_init__(self) -> None:
        check_range("scale", self.scale, 0)
        check_range("count", self.count, 1)

    def __call__(self, model: Any, *, key: PRNGKeyArray) -> Members:
        def around(leaf: Array, key: PRNGKeyArray) -> Array:
            size = self.scale * jnp.sqrt(jnp.mean(jnp.square(leaf)))
            return leaf + size * jr.normal(key, (self.count, *leaf.shape), leaf.dtype)

        return _each_leaf(model, self.where, around, key)


class Dropout(Source):
    """Dropout masks, each held over a rollout, on the inputs of the kernels `(in, out)` at `where`.

    Only for a model that was trained with dropout of that rate at these inputs; DreamerV3 was
    not, and for it this is one more kind of weight noise.
    """

    rate: float = 0.1
    count: int = 4
    """Number of members."""
    where: Where = prior_layer

    def __check_init__(self) -> None:
        check_range("rate", self.rate, 0, 1)
        check_range("count", self.count, 1)

    def __call__(self, model: Any, *, key: PRNGKeyArray) -> Members:
        def masked(leaf: Array, key: PRNGKeyArray) -> Array:
            keep = jr.bernoulli(key, 1 - self.rate, (self.count, *leaf.shape[:-1], 1))
            return jnp.where(keep, leaf / (1 - self.rate), 0)

        return _each_leaf(model, self.where, masked, key)


class Laplace(Source):
    """Draws from a Gaussian around the trained arrays at `where`: the last layer of the prior head,
    where the approximation is best.

    The precision of each weight is the diagonal Fisher information of all the data plus
    `precision`, that of a Gaussian prior on the weights.

    **References:** Daxberger et al., Laplace Redux, arXiv 2106.14806.

    **Cost:** one gradient per datum, once.
    """

    memories: PyTree[Array]
    """The data: memories of real episodes, stacked along a first axis."""
    precision: float = 1.0
    count: int = 4
    """Number of members."""
    where: Where = prior_layer
    prior: Callable[[Any, Any], Belief] = lambda model, memory: model.prior(memory)
    """The prior belief of a model at a memory."""

    def __call__(self, model: Any, *, key: PRNGKeyArray) -> Members:
        arrays = self.where(model)
        draw_key, noise_key = jr.split(key)
        size = len(jax.tree.leaves(self.memories)[0])

        def score(memory: Any, key: PRNGKeyArray) -> PyTree:
            """The gradient of the log-probability of the model's own samples."""

            def log_prob(arrays: PyTree) -> Float[Array, ""]:
                belief = self.prior(eqx.tree_at(self.where, model, arrays), memory)
                return belief.log_prob(jax.lax.stop_gradient(belief.sample(key=key)))

            return jax.grad(log_prob)(arrays)

        def add(total: PyTree, datum: tuple) -> tuple[PyTree, None]:
            return jax.tree.map(lambda t, g: t + jnp.square(g), total, score(*datum)), None

        zeros = jax.tree.map(jnp.zeros_like, arrays)
        fisher, _ = jax.lax.scan(add, zeros, (self.memories, jr.split(draw_key, size)))

        def around(leaf: Array, information: Array, key: PRNGKeyArray) -> Array:
            noise = jr.normal(key, (self.count, *leaf.shape), leaf.dtype)
            return leaf + noise / jnp.sqrt(information + self.precision)

        return _each_leaf(model, self.where, around, noise_key, fisher)


def _each_leaf(
    model: Any, where: Where, stack: Callable[..., Array], key: PRNGKeyArray, *beside: PyTree
) -> Members:
    """Members whose arrays at `where` are `stack(array, *beside, key)`."""
    leaves, structure = jax.tree.flatten(where(model))
    given = zip(leaves, *map(jax.tree.leaves, beside), jr.split(key, len(leaves)), strict=True)
    return replaced(model, where, jax.tree.unflatten(structure, [stack(*each) for each in given]))
