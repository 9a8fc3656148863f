"""Pytrees of arrays, and programs that are compiled once for each structure."""

import contextlib
import dataclasses
import functools
import types
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, PyTree

Tree = TypeVar("Tree")
Kind = TypeVar("Kind", bound=type)
Out = TypeVar("Out")


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def one_number(what: str, value: Any) -> Array:
    """The value as an array. **Errors:** `TypeError` unless it is one floating number."""
    numeric = not isinstance(value, bool) and isinstance(value, jax.Array | np.generic | float)
    if numeric and not jnp.shape(value) and jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return jnp.asarray(value)
    remedy = " Sum it over its axes." if getattr(value, "shape", ()) else ""
    raise TypeError(f"{what} must be one floating number; got {described(value)}.{remedy}")


def same_form(what: str, value: Tree, example: Any) -> Tree:
    """The value, whose structure, shapes and floating arrays must be those of an example.

    Args:
        what: its name in messages.
        value: what a user's code returned.
        example: arrays, or their shapes and types.

    **Errors:** `TypeError` with both.
    """
    if _form(value) == _form(example):
        return value
    raise TypeError(f"{what} must be {described(example)}; got {described(value)}.")


def shaped(tree: Any) -> Hashable:
    """The structure and the shapes of a tree, to be compared."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(map(np.shape, leaves))


def _form(tree: Any) -> Hashable:
    return shaped(tree), tuple(map(_kind, jax.tree.leaves(tree)))


def _kind(leaf: Any) -> str:
    """The type of numbers; floats of every precision are alike."""
    if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex):
        return type(leaf).__name__
    kind = jnp.result_type(leaf)
    return "float" if jnp.issubdtype(kind, jnp.floating) else str(kind)


def described(tree: Any) -> str:
    """Arrays by type and shape, for messages; other objects by their class."""
    leaves, structure = jax.tree.flatten(tree)
    if len(leaves) == 1 and jax.tree.structure(0) == structure:
        (leaf,) = leaves
        return f"{_kind(leaf)} of shape {leaf.shape}" if hasattr(leaf, "shape") else _kind(leaf)
    inside = ", ".join(map(described, leaves)) or "no arrays"
    return f"{type(tree).__name__} with {inside}" if tree is not None else "None"


def put(value: Any, dtype: Any = None) -> Array:
    """The numbers as an array of JAX.

    Outside of traced functions `jnp.asarray` compiles a small program for each new shape; this
    compiles none.
    """
    if isinstance(value, jax.Array) and dtype is None:
        return value
    return jax.device_put(np.asarray(value, dtype))


def copies(x: Array | np.ndarray, count: int, axis: int = 0) -> Array:
    """`count` copies of an array along a new axis. Outside of traced functions this compiles
    nothing.
    """
    if isinstance(x, Tracer):
        return jnp.repeat(jnp.expand_dims(x, axis), count, axis)
    return put(np.repeat(np.expand_dims(np.asarray(x), axis), count, axis))


def where(condition: Bool[Array, ""], new: Tree, old: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def only_if(needed: Bool[Array, ""], compute: Callable[[], Tree], otherwise: Tree) -> Tree:
    """`compute()` if needed, else `otherwise`, with the same shapes and types.

    In a batch nothing is computed unless some member needs it; then it is computed for all. (Under
    `vmap` a conditional computes both sides, but a loop ends when no member continues.) It has no
    reverse-mode gradient.
    """

    # XLA moves whatever does not depend on the loop out of it, where it would always be computed.
    closed, static = eqx.partition(eqx.filter_closure_convert(compute), eqx.is_array)

    def once(loop: tuple[Any, Tree]) -> tuple[Any, Tree]:
        inside, _ = jax.lax.optimization_barrier((closed, loop[0]))
        return jnp.zeros((), bool), eqx.combine(inside, static)()

    return jax.lax.while_loop(lambda loop: loop[0], once, (needed, otherwise))[1]


def cast(tree: Tree, dtype: Any) -> Tree:
    """The tree with floats in another precision."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


class Structure:
    """Everything in a tree except its arrays and floats; it decides the compiled program.

    Equal structures share a program. Functions are compared by their code and their closures, so
    an activation or an optimiser that is made twice compiles once.
    """

    def __init__(self, definition: Any, rest: tuple):
        self.definition, self.rest = definition, rest
        self.identity = (definition, tuple(map(_identity, rest)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


class Parts(NamedTuple):
    """A tree split into its structure and its arrays and floats, in order."""

    structure: Structure
    arrays: list[Array]


def parts(tree: PyTree) -> Parts:
    """Split a tree. Floats become float32 arrays. Integers, texts, functions and objects that are
    not pytrees belong to the structure and must be hashable."""
    leaves, definition = jax.tree.flatten(tree)
    traced = [isinstance(leaf, float | jax.Array | np.ndarray | np.generic) for leaf in leaves]
    arrays = [
        put(leaf, np.float32) if isinstance(leaf, float) else put(leaf)
        for leaf, array in zip(leaves, traced, strict=True)
        if array
    ]
    rest = tuple(_TRACED if array else leaf for leaf, array in zip(leaves, traced, strict=True))
    return Parts(Structure(definition, rest), arrays)


def whole(structure: Structure, arrays: list[Array]) -> PyTree:
    """The inverse of `parts`."""
    given = iter(arrays)
    leaves = [next(given) if leaf is _TRACED else leaf for leaf in structure.rest]
    return jax.tree.unflatten(structure.definition, leaves)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(tree, ...)` as one program, called as `function(*parts(tree), ...)`.

    Numbers of the tree may change without compiling again; its structure may not.
    """

    @partial(jax.jit, static_argnums=0)
    def program(structure: Structure, arrays: list[Array], *given: Any) -> Any:
        return function(whole(structure, arrays), *given)

    return program


def remembered(function: Callable[[Any], Out]) -> Callable[[Any], Out]:
    """A function of one object that is computed once for each object.

    Its value is stored outside the object: an attribute would change the pytree of an Equinox
    module.
    """
    kept: dict[int, Out] = {}

    @functools.wraps(function)
    def get(one: Any) -> Out:
        key = id(one)
        if key in kept:
            return kept[key]
        value = function(one)
        with contextlib.suppress(TypeError):  # an object without weak references is not remembered
            weakref.finalize(one, kept.pop, key, None).atexit = False
            kept[key] = value
        return value

    return get


def once(method: Callable[[Any], Any]) -> property:
    """A property that is computed once for each object."""
    return property(remembered(method), doc=method.__doc__)


class _Traced:
    """Replaces an array or a float in a structure."""


_TRACED = _Traced()


class Alike:
    """A function that equals another one with the same code and equal closures.

    For static fields: an optimiser that is made twice compiles once.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function, self.identity = function, _identity(function)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.function(*given, **named)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return words(self.function)


def words(value: Any, within: tuple[types.FunctionType, ...] = ()) -> str:
    """A function as the name of what made it and the constants that it closes over.

    Equal in all versions of Python. The code itself is not told.

    Args:
        value: the function, or a constant.
        within: the functions that it was reached from, for one that calls itself.

    >>> def scaled(factor):
    ...     return lambda x: factor * x
    >>> words(scaled(0.5))
    'scaled(factor=0.5)'
    """
    if isinstance(value, Alike):
        value = value.function
    if isinstance(value, tuple | list):
        return f"({', '.join(words(one, within) for one in value)})"
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key}={words(one, within)}' for key, one in value.items())})"
    if isinstance(value, functools.partial):
        return words((value.func, value.args, value.keywords), within)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return f"{value.dtype}({np.asarray(value).tolist()})"
    if isinstance(value, _CONSTANTS):
        return repr(value)
    value = getattr(value, "__wrapped__", value)  # of `jax.jit`
    if not isinstance(value, types.FunctionType):
        return value.__qualname__ if isinstance(value, type) else type(value).__name__
    made = value.__qualname__.partition(".<locals>")[0]
    if value in within:
        return made
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    found = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}
    inside = (f"{name}={words(one, (*within, value))}" for name, one in found.items())
    return f"{made}({', '.join(inside)})"


_CONSTANTS = (bool, int, float, complex, str, bytes, types.NoneType)


def _identity(leaf: Any, within: tuple[types.FunctionType, ...] = ()) -> Hashable:
    """The key by which two leaves of a structure are equal.

    Args:
        leaf: the leaf.
        within: the functions that it was reached from, for one that calls itself.
    """
    if isinstance(leaf, tuple):
        return (type(leaf), *(_identity(one, within) for one in leaf))
    if not isinstance(leaf, types.FunctionType):
        return leaf
    if leaf in within:
        return ("again", within.index(leaf))
    named = tuple(sorted((leaf.__kwdefaults__ or {}).items()))
    try:
        cells = tuple(cell.cell_contents for cell in leaf.__closure__ or ())
        inner = _identity((cells, leaf.__defaults__, named), (*within, leaf))
        hash(inner)
    except (TypeError, ValueError):  # such as a closure over an array, or over a deleted name
        return leaf
    return (leaf.__code__, id(leaf.__globals__), inner)


def register(kind: Kind) -> Kind:
    """Make a frozen dataclass a pytree whose fields are its children. Its checks run when a user
    makes it, not when it is rebuilt from the arrays of a program."""

    def children(tree: Any) -> tuple[list[tuple[Any, Any]], None]:
        names = [field.name for field in dataclasses.fields(tree)]
        return [(jax.tree_util.GetAttrKey(name), getattr(tree, name)) for name in names], None

    def together(_: None, values: Iterable[Any]) -> Any:
        tree = object.__new__(kind)
        for field, value in zip(dataclasses.fields(kind), values, strict=True):
            object.__setattr__(tree, field.name, value)
        return tree

    jax.tree_util.register_pytree_with_keys(kind, children, together)
    return kind
