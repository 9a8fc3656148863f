"""Names of objects for the command line.

In Python you pass objects, which need no names. A command line has only text, so each kind of
object has a table from names to the functions that make them. You can add names with `register` in
a module that `--import` loads, or with an entry point of an installed package. The group of the
entry point is `thinkslow.` and the kind:

    [project.entry-points."thinkslow.term"]
    reward = "mypackage.terms:Reward"

A name may have arguments: `best-of:8`, `langevin:step_size=10:temperature=0.5`. This module
imports nothing from the package until an object is made.
"""

import difflib
import functools
import importlib
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_origin

from thinkslow.names import CLASSES, KINDS, TABLE, Entry, at
from thinkslow.settings import fits, floating, members, takes_floats, wanted


def register(kind: str, name: str, make: Callable[..., Any], about: str = "") -> None:
    """Give your own object a name on the command line.

    Args:
        kind: one of `KINDS`.
        name: the name; a name that is already in use is refused. A file or a notebook cell that
            runs again may register its names again.
        make: a class or a function that makes the object; its parameters may be given after
            the name. For an architecture, the class of its sizes (see `thinkslow.save`).
        about: a description of one line; by default the first line of its docstring.

    **Errors:** `ValueError` for an unknown kind or a name that is in use; `TypeError` for a `make`
    that cannot be called, or a class of another kind.
    """
    table = _table(kind)
    if not callable(make):
        raise TypeError(
            f"`make` must be a class or a function that makes the {kind}; got {make!r}."
        )
    if name in table and not redefines(make, table[name].make):
        raise ValueError(f"{kind} {name!r} is taken. Choose another name.")
    if any(letter in name for letter in ":*,= ") or not name:
        raise ValueError(
            f"A name must have letters and hyphens, without ':', '*', ',', '=' or spaces; got "
            f"{name!r}."
        )
    if isinstance(make, type) and kind in CLASSES:
        _check_class(kind, name, make)
    first_line = (inspect.getdoc(make) or "").partition("\n")[0]
    table[name] = Entry(make, about or first_line)


def redefines(new: Callable[..., Any] | str, old: Callable[..., Any] | str) -> bool:
    """Whether a definition is a repeated run of another one: the same name in the same module or
    file.
    """
    return bool(_homes(new) & _homes(old))


def _homes(make: Callable[..., Any] | str) -> set[object]:
    """The identity of a definition: its name with its module, and with the file of its code."""
    own = getattr(make, "__qualname__", None)
    if own is None or "<lambda>" in own:
        return {make}
    inside = vars(make).values() if isinstance(make, type) else [make]
    codes = (getattr(getattr(one, "fget", one), "__code__", None) for one in inside)
    # Without methods that a decorator such as `dataclass` added, whose code is elsewhere.
    written = [code for code in codes if code and code.co_qualname.startswith(own)]
    files = {os.path.abspath(code.co_filename) for code in written}
    return {(home, own) for home in {make.__module__, *files}}


def entries(kind: str) -> dict[str, Entry]:
    """Every name of a kind."""
    return dict(_table(kind))


def find(kind: str, name: str) -> Entry | None:
    """The entry of a name; None for an unknown one.

    The packages installed here are searched only for names that are neither ours nor registered.
    """
    return _own(kind).get(name) or _table(kind).get(name)


def make(kind: str, spec: str) -> Any:
    """The object for a text such as `sig`, `best-of:8` or `evidence:beta=1:samples=4`.

    **Errors:** `ValueError` for an unknown name or argument, with the nearest; for an argument that
    is given twice, or whose value is not of the annotated type. `TypeError` for a function that
    makes an object of another kind.

    >>> make("readout", "best-of:4").count
    4
    """
    name, *arguments = spec.split(":")
    function, what = check(kind, spec).load(), f"{kind} {name}"
    positional = [text for text in arguments if "=" not in text]
    pairs = [text.split("=", 1) for text in arguments if "=" in text]
    given = {key.replace("-", "_"): text for key, text in pairs}
    if len(given) < len(pairs):
        raise ValueError(f"The {what} takes each argument once; got {spec!r}.")
    bound = taken(function, what, *positional, **given)
    # The annotation of a converted field is that of its converter.
    types = {name: one.type for name, one in getattr(function, "__dataclass_fields__", {}).items()}
    for key, text in bound.arguments.items():
        parameter = bound.signature.parameters[key]
        annotation = types.get(key, parameter.annotation)
        read = functools.partial(_read, annotation=annotation, what=what)
        if parameter.kind is parameter.VAR_POSITIONAL:
            bound.arguments[key] = tuple(read(one, name=key) for one in text)
        elif parameter.kind is parameter.VAR_KEYWORD:
            bound.arguments[key] = {of: read(one, name=of) for of, one in text.items()}
        else:
            bound.arguments[key] = read(text, name=key)
    try:
        made = function(*bound.args, **bound.kwargs)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            _refuse_unknown(given, kind, what)
        raise ValueError(f"The {what} cannot be made from {spec!r}: {error}") from error
    if kind in CLASSES:
        _check_class(kind, name, type(made))
    return made


def _refuse_unknown(given: Mapping[str, Any], kind: str, what: str) -> None:
    """**Errors:** `ValueError` for an argument that a function passed on to what it makes, and
    that no class of this kind has.
    """
    fields = [getattr(at(one), "__dataclass_fields__", {}) for one in CLASSES.get(kind, ())]
    known = [name for each in fields for name in each]
    for name in given:
        if known and name not in known:
            raise ValueError(f"The {what} has no argument {name!r}{nearest(name, known)}")


def _check_class(kind: str, name: str, found: type) -> None:
    """**Errors:** `TypeError` for a class of another kind."""
    wanted_classes = tuple(map(at, CLASSES[kind]))
    if not issubclass(found, wanted_classes):
        names = either([one.__name__ for one in wanted_classes])
        raise TypeError(f"The {kind} {name!r} must be of class {names}; got {found.__name__}.")


def _read(text: str, *, annotation: Any, what: str, name: str) -> Any:
    """The value of an argument, of its annotated type. Without an annotation of a number, a word
    or a text, it is what it looks like.

    **Errors:** `ValueError` for a value of another type, or NaN.
    """
    value = _value(text)
    if takes_floats(annotation):
        value = floating(value)  # a float can change without compiling again
    needed = wanted(annotation)
    nan = isinstance(value, float) and math.isnan(value)
    if nan or (needed and not (fits(value, annotation) or fits(text, annotation))):
        raise ValueError(f"The {what}: `{name}` must be {needed or 'a value'}; got {text!r}.")
    if needed:
        return value if fits(value, annotation) else text
    if not isinstance(value, str) and all(_is_other(value, one) for one in members(annotation)):
        raise ValueError(
            f"The {what}: `{name}` must be an object, which text cannot make; got {text!r}. Leave "
            "it out, or register a function that makes it."
        )
    return value


def _is_other(value: Any, annotation: Any) -> bool:
    """Whether a class is wanted of which a number is no instance. Arrays are made from numbers."""
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type) or kind in (inspect.Parameter.empty, Any, float):
        return False
    arrays = any(hasattr(kind, name) for name in ("dtype", "dtypes"))
    unknown = getattr(kind, "_is_protocol", False) and not getattr(
        kind, "_is_runtime_protocol", False
    )
    return not (arrays or unknown or isinstance(value, kind))


def taken(
    function: Callable[..., Any], what: str, *positional: Any, **given: Any
) -> inspect.BoundArguments:
    """The arguments after a name, bound to the parameters of its function.

    **Errors:** `ValueError` for an argument that it does not take, with the nearest name.
    """
    signature = inspect.signature(function)
    open_ended = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    for name in given:
        if name not in signature.parameters and not open_ended:
            raise ValueError(
                f"The {what} has no argument {name!r}{nearest(name, signature.parameters)}"
            )
    try:
        return signature.bind(*positional, **given)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no arguments"
        raise ValueError(f"The {what}: {error}. It takes {takes}.") from None


def check(kind: str, spec: str) -> Entry:
    """The entry of a name; arguments after the name are not checked.

    **Errors:** `ValueError` for an unknown name, with the nearest.
    """
    name = spec.partition(":")[0]
    found = find(kind, name)
    if found is None:
        what, known = {"members": "source of plausible parameters"}.get(kind, kind), _table(kind)
        raise ValueError(f"There is no {what} {name!r}{nearest(name, known, 'thinkslow arms')}")
    return found


def weights(text: str) -> list[tuple[str, float]]:
    """The parts of a text such as `sig,0.5*evidence:beta=1`, each with its weight.

    **Errors:** `ValueError` for a weight that is not a number, or an empty text.
    """
    out = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        before, star, spec = part.rpartition("*")
        try:
            weight = float(before) if star else 1.0
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise ValueError(
                f"A weight must be a finite number; got {before!r} in {text!r}. Separate terms by "
                "commas, as in sig,0.5*evidence."
            )
        out.append((spec.strip(), weight))
    if not out:
        raise ValueError(f"Name at least one, such as sig,0.5*evidence; got {text!r}.")
    return out


def weighted(kind: str, text: str) -> tuple[tuple[Any, float], ...]:
    """Several objects with weights, from `sig,0.5*evidence:beta=1`; the default weight is 1.

    **Errors:** `ValueError`: those of `make` and of `weights`.

    >>> [(term.name, weight) for term, weight in weighted("term", "sig,0.5*evidence")]
    [('sig', 1.0), ('evidence', 0.5)]
    """
    return tuple((make(kind, spec), weight) for spec, weight in weights(text))


MANY = 20
"""Names that a message lists at most."""


def nearest(name: str, known: Any, lister: str = "") -> str:
    """The end of a message about an unknown name: the nearest names, or all.

    Args:
        name: the unknown name.
        known: the known ones.
        lister: a command that lists them, which is named instead if there are many.
    """
    names = sorted(known) if isinstance(known, set | frozenset) else list(dict.fromkeys(known))
    if near := difflib.get_close_matches(name, names, 3):
        return f". Did you mean {either(near)}?"
    if lister and len(names) > MANY:
        return f". `{lister}` lists the names."
    return f". Available: {', '.join(names)}." if names else "."


def either(names: Sequence[str]) -> str:
    """Alternatives joined for a sentence.

    >>> either(["a", "b", "c"])
    'a, b or c'
    """
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _table(kind: str) -> dict[str, Entry]:
    table = _own(kind)
    _from_packages(kind)
    return table


def _own(kind: str) -> dict[str, Entry]:
    """The names that are ours or registered."""
    if kind not in KINDS:
        raise ValueError(f"A kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    if kind == "arm":
        _own_arms()
    return TABLE[kind]


@functools.cache
def _own_arms() -> None:
    """Our arms are made of other names, so they are imported at the first look-up."""
    for module in ("presets", "values"):
        TABLE["arm"] |= importlib.import_module(f"thinkslow.agent.arms.{module}").ARMS


@functools.cache
def _from_packages(kind: str) -> None:
    """Names that installed packages declare as entry points."""
    from importlib import metadata  # slow: it imports a parser of e-mail

    for found in metadata.entry_points(group=f"thinkslow.{kind}"):
        TABLE[kind].setdefault(found.name, Entry(found.value, f"from {found.module}"))


def _value(text: str) -> Any:
    """A number, a truth value, or the text itself."""
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
