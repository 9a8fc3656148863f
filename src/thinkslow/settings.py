"""Fields of settings with the range of their values, checked in one place.

Settings are frozen dataclasses: how an agent thinks, plans, and the options of commands. Nothing
here imports JAX, because the command line makes its flags from these fields.
"""

import copy
import dataclasses
import re
from typing import Any, Literal, get_args, get_origin

MOST_SEED = 2**31 - 1
"""The largest seed of a command, a run or a plan."""


def setting(
    default: Any, *, least: int | None = None, most: int | None = None, kind: str | None = None
) -> Any:
    """A field of settings.

    Args:
        default: the default value.
        least: the smallest number that is allowed.
        most: the largest number that is allowed, with `least`.
        kind: the kind of the registry that names its values on the command line.
    """
    return dataclasses.field(default=default, metadata={"least": least, "most": most, "kind": kind})


def seed() -> Any:
    """A field for a seed, by default 0."""
    return setting(0, least=0, most=MOST_SEED)


def check(settings: Any) -> None:
    """Check every field of a frozen dataclass. Integers in float fields become floats.

    **Errors:** `ValueError` for a value out of range, or a word that is not one of its choices;
    `TypeError` for the name or the class of an object.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if (checked := check_value(field, value)) is not value:
            object.__setattr__(settings, field.name, checked)


def check_value(field: dataclasses.Field, value: Any) -> Any:
    """The value of a field, in range.

    **Errors:** those of `check`.
    """
    if (kind := field.metadata.get("kind")) is not None and isinstance(value, str | type):
        called = f"{value.__name__}()" if isinstance(value, type) else None
        made = called or f"thinkslow.registry.make({kind!r}, {value!r})"
        raise TypeError(f"`{field.name}` must be an object, such as {made}; got {value!r}.")
    if kind is not None:
        value = _with_floats(value)
    if takes_floats(field.type):
        value = floating(value)
    least, most = field.metadata.get("least"), field.metadata.get("most")
    if least is not None and isinstance(value, int | float):
        if most is not None and not least <= value <= most:
            raise ValueError(f"`{field.name}` must be between {least} and {most}; got {value}.")
        if not value >= least:
            raise ValueError(f"`{field.name}` must be {least} or more; got {value}.")
    kinds = [one for one in (field.type, *get_args(field.type)) if get_origin(one) is Literal]
    if kinds and not (value is None and kinds[0] is not field.type):
        choices = get_args(kinds[0])
        if value not in choices:
            raise ValueError(f"`{field.name}` must be one of {', '.join(choices)}; got {value!r}.")
    return value


def _with_floats(value: Any) -> Any:
    """An update, a readout or another object, with floats in its float fields."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    changed = {
        field.name: floating(getattr(value, field.name))
        for field in fields
        if takes_floats(field.type) and type(getattr(value, field.name, None)) is int
    }
    if changed:
        value = copy.copy(value)
        for name, number in changed.items():
            object.__setattr__(value, name, number)
    return value


def floating(value: Any) -> Any:
    """A float instead of an integer: floats may change without compiling again."""
    return float(value) if type(value) is int else value


def takes_floats(annotation: Any) -> bool:
    """Whether an annotation names `float`. It is a text in a module with postponed annotations.

    >>> takes_floats(float | None), takes_floats("float | None"), takes_floats(int)
    (True, True, False)
    """
    if isinstance(annotation, str):
        return re.search(r"\bfloat\b", annotation) is not None
    return annotation is float or any(map(takes_floats, get_args(annotation)))
