"""The weights of a model: their names, their shapes, and a model with other ones."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

Tree = TypeVar("Tree")

_DRAWN: ContextVar[bool] = ContextVar("_DRAWN", default=True)


def drawn() -> bool:
    """Whether layers draw their first weights; otherwise zeros of their shape suffice."""
    return _DRAWN.get()


def shaped(build: Callable[[PRNGKeyArray], Tree]) -> Tree:
    """What `build(key)` returns, with shapes instead of arrays.

    Kernels are then zeros: tracing their random numbers would be most of the time. Functions that
    `build` has compiled are traced in line, so that none keeps a program with the zeros.
    """

    def inline() -> Tree:
        with jax.disable_jit():
            return build(jr.key(0))

    token = _DRAWN.set(False)
    try:
        return eqx.filter_eval_shape(inline)
    finally:
        _DRAWN.reset(token)


def named(tree: object) -> dict[str, Any]:
    """The arrays of a model, or their shapes, by name. A name joins attributes and keys by `/`.

    An attribute called `layers` is left out of the name. Functions have no name.

    >>> sorted(named({"head": {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}}))
    ['head/bias', 'head/kernel']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves if _is_array(leaf)}


def with_named(tree: Tree, arrays: Mapping[str, np.ndarray | Array]) -> Tree:
    """The model with its arrays replaced by name; every name is required.

    **Errors:** `KeyError` for a missing name; shapes are the caller's to check (`checks.match`).
    """
    return _map_named(tree, lambda name, leaf: _as_type(arrays[name], leaf.dtype))


def with_only(tree: Tree, arrays: Mapping[str, np.ndarray | Array]) -> Tree:
    """The model with the named arrays in place, of any shape, and None for all others.

    **Errors:** `KeyError` for a name that the model does not have.
    """
    if unknown := arrays.keys() - named(tree).keys():
        raise KeyError(f"{min(unknown)} is no array of the model.")
    return _map_named(
        eqx.filter(tree, _is_array),
        lambda name, leaf: _as_type(arrays[name], leaf.dtype) if name in arrays else None,
    )


def _as_type(array: np.ndarray | Array, dtype: Any) -> Array:
    """NumPy converts its own arrays: JAX would compile a program for each of their shapes."""
    if isinstance(array, np.ndarray):
        array = array.astype(dtype, copy=False)
    return jnp.asarray(array, dtype)


def _map_named(tree: Tree, function: Callable[[str, Array], Array | None]) -> Tree:
    def at(path: tuple, leaf: Any) -> Any:
        return function(_name(path), leaf) if _is_array(leaf) else leaf

    return jax.tree_util.tree_map_with_path(at, tree)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _name(path: tuple) -> str:
    parts = (getattr(part, "name", None) or str(getattr(part, "key", part)) for part in path)
    return "/".join(part for part in parts if part != "layers")
