"""Read settings back from JSON: every value is compared with the type of its field.

Files are edited, and written by other versions. A value of another type would be an error far away,
without the name of its setting.
"""

import dataclasses
import sys
import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any, TypeVar

from thinkslow.settings import fits, members, wanted
from thinkslow.storage.faults import shown

Built = TypeVar("Built")

LARGEST = 2**63
"""Integers of this size and more are no settings: they fit no array."""


def built(kind: type[Built], data: Any, name: str = "") -> Built:
    """An object of a dataclass, from the JSON of its `dataclasses.asdict`.

    A list becomes a tuple, a mapping an object and an integer a float where the class has those. A
    field that is absent gets its default value.

    Args:
        kind: the class. Its fields may be plain types, `Literal`, tuples, lists and mappings of
            them, other such classes, and alternatives of these. A mapping that is annotated with a
            `TypedDict` is checked by it, and may have more keys.
        data: what JSON holds.
        name: its name, for messages.

    **Errors:** `TypeError` for a value of another type, a field that is unknown and one that is
    missing, by name; the errors of the class.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{_called(name)} must be a mapping; got {shown(data)}.")
    fields = {one.name: one for one in dataclasses.fields(kind) if one.init}  # pyright: ignore[reportArgumentType]
    if unknown := [key for key in data if key not in fields]:
        raise TypeError(f"{_called(name)} has {shown(unknown)}, which this version does not know.")
    absent = [
        key
        for key, field in fields.items()
        if key not in data and field.default is field.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise TypeError(f"{_called(name)} lacks {', '.join(absent)}.")
    hints = typing.get_type_hints(kind, include_extras=True)
    return kind(**_values(hints, data, name))


def _values(hints: Mapping[str, Any], data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The values in the types of their annotations; those without one as they are."""
    within = f"{name}." if name else ""
    return {key: _value(hints.get(key, Any), one, f"{within}{key}") for key, one in data.items()}


def _value(annotation: Any, value: Any, name: str) -> Any:
    """The value of a field, in the types of its annotation."""
    for one in map(_plainly, members(annotation)):
        origin, parts = typing.get_origin(one), typing.get_args(one)
        if isinstance(value, dict):
            if typing.is_typeddict(one):
                if absent := sorted(one.__required_keys__ - value.keys()):
                    raise TypeError(f"`{name}` lacks {', '.join(absent)}.")
                return _values(typing.get_type_hints(one), value, name)
            if dataclasses.is_dataclass(one):
                return built(typing.cast("type", one), value, name)
            if isinstance(origin, type) and issubclass(origin, Mapping):
                return {key: _value(parts[1], each, f"{name}.{key}") for key, each in value.items()}
        if isinstance(value, list) and origin in (list, tuple):
            some = origin is list or parts[-1] is ...
            kinds = parts[:1] * len(value) if some else parts
            if len(kinds) == len(value):
                each = zip(kinds, value, strict=True)
                return origin(_value(kind, x, f"{name}[{i}]") for i, (kind, x) in enumerate(each))
        if one is Any:
            return value
        if one is float and type(value) is int and abs(value) <= sys.float_info.max:
            return float(value)
        if type(value) is int and abs(value) >= LARGEST:
            continue
        if fits(value, one) and not (one is float and type(value) is int):
            return value
    raise TypeError(f"`{name}` must be {_wanted(annotation)}; got {shown(value)}.")


def _plainly(annotation: Any) -> Any:
    """The type to check: of `Annotated` the `TypedDict` in it."""
    parts = typing.get_args(annotation) if hasattr(annotation, "__metadata__") else (annotation,)
    return next((part for part in parts if typing.is_typeddict(part)), parts[0])


def _wanted(annotation: Any) -> str:
    """The types of an annotation, for a message."""
    words = [wanted(one) or _structure(one) for one in members(annotation) if one is not NoneType]
    return " or ".join(words + (["None"] if NoneType in members(annotation) else []))


def _structure(one: Any) -> str:
    if typing.get_origin(one) not in (list, tuple):
        return "a mapping"
    kinds = [kind for kind in typing.get_args(one) if kind is not ...]
    return f"a list of {len(kinds)}" if len(kinds) > 1 else "a list"


def _called(name: str) -> str:
    return f"`{name}`" if name else "it"
