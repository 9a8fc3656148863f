"""Fields of settings with the range of their values, checked in one place.

Settings are frozen dataclasses: how an agent thinks, plans, and the options of commands. Nothing
here imports JAX, because the command line makes its flags from these fields.
"""

import copy
import dataclasses
import re
import sys
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

MOST_SEED = 2**31 - 1
"""The largest seed of a command, a run or a plan."""
MOST_SIZE = 2**14
"""The largest side of the images of an environment, in pixels."""
MOST_REPEAT = 1000
"""The largest number of times that an action is repeated."""
Select: TypeAlias = Literal["last", "best"]
"""The iterate of a refinement that is returned."""
Imagery: TypeAlias = Literal["mode", "sample"]
"""How an imagined observation is taken from the decoder."""


def setting(
    default: Any,
    *,
    least: int | None = None,
    most: int | None = None,
    above: int | None = None,
    kind: str | None = None,
) -> Any:
    """A field of settings.

    Args:
        default: the default value.
        least: the smallest number that is allowed.
        most: the largest number that is allowed, with `least`.
        above: the largest number that is not allowed any more, instead of `least`.
        kind: the kind of the registry that names its values on the command line.
    """
    metadata = {"least": least, "most": most, "above": above, "kind": kind}
    return dataclasses.field(default=default, metadata=metadata)


def seed() -> Any:
    """A field for a seed, by default 0."""
    return setting(0, least=0, most=MOST_SEED)


def check(settings: Any) -> None:
    """Check every field of a frozen dataclass. Integers in float fields become floats.

    NumPy scalars become Python numbers.

    **Errors:** `ValueError` for a value out of range, or a word that is not one of its choices;
    `TypeError` for a value of another type, such as a text for a number or a class for an object.
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
    if all(one in (bool, int, float, str, NoneType) for one in members(field.type)):
        value = plain(value)
        if not fits(value, field.type):
            raise TypeError(f"`{field.name}` must be {wanted(field.type)}; got {value!r}.")
    if takes_floats(field.type):
        value = floating(value)
    least, most = field.metadata.get("least"), field.metadata.get("most")
    if least is not None:
        check_range(field.name, value, least, most)
    above = field.metadata.get("above")
    if above is not None and value is not None and not value > above:
        raise ValueError(f"`{field.name}` must be above {above}; got {value}.")
    kinds = [one for one in (field.type, *get_args(field.type)) if get_origin(one) is Literal]
    if kinds and not (value is None and kinds[0] is not field.type):
        choices = get_args(kinds[0])
        if value not in choices:
            raise ValueError(f"`{field.name}` must be one of {', '.join(choices)}; got {value!r}.")
    return value


def check_range(name: str, value: Any, least: int | float, most: int | float | None = None) -> None:
    """Check the range of a number. None and traced arrays pass; NaN does not.

    **Errors:** `ValueError` for a number out of range.
    """
    value = plain(value)
    if not isinstance(value, int | float):
        return
    if most is not None and not least <= value <= most:
        raise ValueError(f"`{name}` must be between {least} and {most}; got {value}.")
    if not value >= least:
        raise ValueError(f"`{name}` must be {least} or more; got {value}.")


def plain(value: Any) -> Any:
    """The Python number of a NumPy scalar or of an array of one number; other values unchanged.

    A traced array has no number yet and is unchanged too.
    """
    if getattr(value, "shape", None) != () or not hasattr(value, "dtype"):
        return value
    jax = sys.modules.get("jax")
    traced = jax is not None and isinstance(value, jax.core.Tracer)
    return value if traced or not hasattr(value, "item") else value.item()


_NAMED = {"bool": bool, "int": int, "float": float, "str": str, "None": NoneType}
_WANTED = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation.

    >>> members(int | None) == members("int | None") == (int, type(None))
    True
    """
    if isinstance(annotation, str):
        words = [one.strip() for one in annotation.split("|")]
        return tuple(_NAMED.get(word, word) for word in words)
    if get_origin(annotation) in (Union, UnionType):
        return tuple(one for each in get_args(annotation) for one in members(each))
    return (annotation,)


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is one of the plain types or words of an annotation. An integer or an array
    is a number; a truth value is not.

    >>> fits(3, float), fits(True, int), fits(2.5, int | None), fits("a", Literal["a", "b"])
    (True, False, False, True)
    """
    array = hasattr(value, "shape") and hasattr(value, "dtype")
    for one in members(annotation):
        if one is float and (type(value) in (int, float) or array):
            return True
        if one in (bool, int, str, NoneType) and type(value) is one:
            return True
        if get_origin(one) is Literal and value in get_args(one):
            return True
    return False


def wanted(annotation: Any) -> str:
    """The plain types and words of an annotation, for a message.

    >>> wanted(float | None), wanted(Literal["last", "best"])
    ('a number or None', 'last or best')
    """
    words: list[str] = []
    for one in members(annotation):
        words += map(str, get_args(one)) if get_origin(one) is Literal else []
        words += [_WANTED[one]] if one in _WANTED else []
    words += ["None"] if NoneType in members(annotation) else []
    return " or ".join(words)


def _with_floats(value: Any) -> Any:
    """An update, a readout or another object, with floats in its float fields."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    found = {
        field.name: getattr(value, field.name, None) for field in fields if takes_floats(field.type)
    }
    numbers = {name: floating(plain(number)) for name, number in found.items()}
    changed = {name: number for name, number in numbers.items() if number is not found[name]}
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
