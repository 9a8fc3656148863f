"""Check an observation against the agent's spaces: names, shapes, types, ranges.

Shapes and types are checked once, when a program is traced. Faults that only the values show (a
byte image given as floats from 0 to 255, a class that does not exist) are flagged by the program
itself.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from thinkslow.plural import plural
from thinkslow.spaces import Space, masked
from thinkslow.trees import put
from thinkslow.worldmodel import Observation

ARRAYS = (np.ndarray, jax.Array)
"""What is passed on as it is. Anything else is first read by NumPy: a tensor of Torch, a table."""
Spaces = tuple[tuple[str, Space], ...]


def named(spaces: Spaces, observation: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that the agent sees, as numeric arrays; other parts are left out.

    **Errors:** `ValueError` that names missing or non-numeric parts.
    """
    if not hasattr(observation, "keys"):
        raise ValueError(
            f"An observation must be arrays by name ({', '.join(name for name, _ in spaces)}); got "
            f"{said(observation)}."
        )
    if absent := [name for name, _ in spaces if name not in observation]:
        raise ValueError(
            f"The agent sees {', '.join(name for name, _ in spaces)}; the observation has "
            f"{', '.join(map(str, observation)) or 'nothing'} and lacks {', '.join(absent)}. "
            "Rename its parts, or make the environment with `thinkslow.envs.make`."
        )
    out, of_floats = {}, {name: space.dtype == "float32" for name, space in spaces}
    for name in of_floats or observation:
        value = observation[name]
        try:
            array = value if isinstance(value, ARRAYS) else np.asarray(value)
        except ValueError:  # a list with rows of different lengths
            array = np.asarray(None)
        if not of_numbers(array):
            raise ValueError(f"`{name}` must be an array of numbers; got {said(value)}.")
        if hidden := masked(value):
            raise ValueError(
                f"`{name}` must be an array of numbers; got {plural(hidden, 'masked value')}. "
                "Fill them, as by `.filled(0)`, or pass `missing`."
            )
        if not array.dtype.isnative:  # of a file from another machine, which JAX does not take
            array = array.astype(array.dtype.newbyteorder("="))
        out[name] = _in_32_bits(array, of_floats=of_floats.get(name, False))
    return out


def of_numbers(array: Any) -> bool:
    """Whether its type is one of numbers or truth values, JAX's own short floats included."""
    dtype = array.dtype
    return dtype.kind in "biuf" or any(
        jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer)
    )


def _in_32_bits(array: Any, *, of_floats: bool) -> Any:
    """Integers of 64 bits in a type that JAX has, which wraps those beyond 32 bits: what cannot be
    a byte or a class stays so, and is flagged.
    """
    if isinstance(array, jax.Array) or array.dtype not in (np.int64, np.uint64):
        return array
    limits = np.iinfo(np.int32)
    return array.astype(np.float32) if of_floats else np.clip(array, limits.min, limits.max)


def said(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"


def admitted(spaces: Spaces, observation: Observation) -> tuple[Observation, Bool[Array, ""]]:
    """The parts that the agent sees, and whether their values are possible.

    Args:
        spaces: the agent's observation spaces; empty: not declared, so everything is accepted.
        observation: one observation, without a batch axis.

    **Errors:** `ValueError` that names parts that are missing or have another shape or type.
    """
    sound = jnp.ones((), bool)
    observation = named(spaces, observation)
    for name, space in spaces:
        value = jnp.asarray(observation[name])
        shapes = [space.shape]
        if space.classes is not None:
            shapes.append((*space.shape, space.classes))  # probabilities
        if value.shape not in shapes:
            raise ValueError(
                f"`{name}` is of shape {value.shape} for each environment; the agent sees "
                f"{space.shape}. `thinkslow.envs.make(size=...)` scales images; a "
                "batch has one leading axis."
            )
        sound &= _is_possible(space, value)
        observation[name] = _typed(space, value)
    return observation, sound


def _is_possible(space: Space, value: Array) -> Bool[Array, ""]:
    """Whether all numbers lie where their type may: bytes, pixels in [0, 1], existing classes."""
    yes, whole = jnp.ones((), bool), jnp.issubdtype(value.dtype, jnp.integer)
    if value.dtype == bool:
        return yes
    numbers = value.astype(jnp.float32)  # integers of 8 bits cannot be compared with 256
    if space.classes is not None and _of_classes(space, value):
        classes = (numbers == jnp.round(numbers)) & (numbers >= 0) & (numbers < space.classes)
        return jnp.all(classes)
    if space.classes is None and space.dtype == "uint8" and value.dtype != jnp.uint8:
        return jnp.all((numbers >= 0) & (numbers <= (255 if whole else 1)))
    return yes


def _typed(space: Space, value: Array, axes: int = 0) -> Array:
    """A value in a type that models read: bytes or floats for an image of bytes, whole numbers or
    the floats of probabilities for classes.

    Args:
        space: its space.
        value: the value.
        axes: the number of leading axes that the space does not have.
    """
    whole = jnp.issubdtype(value.dtype, jnp.integer)
    if space.classes is not None:
        if _of_classes(space, value, axes):
            return value if whole else jnp.nan_to_num(value.astype(jnp.float32)).astype(jnp.int32)
        return value.astype(jnp.float32) if whole or value.dtype == bool else value
    if space.dtype == "uint8":
        return value.astype(jnp.uint8 if whole else jnp.promote_types(value.dtype, jnp.float32))
    return value


def _of_classes(space: Space, value: Array, axes: int = 0) -> bool:
    """Whether a value of a space with classes is of their numbers, and not of probabilities."""
    return value.ndim == len(space.shape) + axes


def blank(observation: Observation) -> Bool[Array, ""]:
    """Whether an image, a part with three axes, has the same colour in every pixel.

    >>> blank({"image": jnp.zeros((4, 4, 3)), "vector": jnp.zeros(2)})
    Array(True, dtype=bool)
    """
    images = [image for each in observation.values() if (image := jnp.asarray(each)).ndim == 3]
    flat = [jnp.all(image == image[:1, :1]) for image in images]
    return jnp.any(jnp.stack(flat)) if flat else jnp.zeros((), bool)


def kept(spaces: Spaces, observation: Observation, *, axes: int = 0) -> dict[str, Any]:
    """The observation in the types that the agent declares, for a window of several: floats of a
    byte image become bytes, NaN becomes 0.

    Args:
        spaces: the agent's observation spaces.
        observation: the parts that the agent sees.
        axes: the number of leading axes, such as that of a batch.
    """
    declared = dict(spaces)
    out = {}
    for name, value in observation.items():
        array = put(value)
        if name in declared:
            space = declared[name]
            array = _typed(space, array, axes)
            if space.dtype == "uint8" and jnp.issubdtype(array.dtype, jnp.floating):
                array = jnp.round(255 * jnp.clip(jnp.nan_to_num(array), 0, 1)).astype(jnp.uint8)
        out[name] = array
    return out
