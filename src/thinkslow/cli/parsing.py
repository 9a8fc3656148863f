"""How the help of a command shows its options: groups, units and sentences, without Python types.

Options are flat dataclasses, and tyro reads the command line. This module first makes another
dataclass for tyro. Fields are grouped by the class that declares them. Its `GROUP` is the title, by
default that of the options themselves, and the outermost class comes first. A field that may be
None shows the unit of its value. Empty defaults are not shown.
"""

import ast
import dataclasses
import functools
import linecache
import sys
import typing
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from thinkslow.cli.numbers import number, path, truth, whole

METAVARS = {int: "N", float: "X", str: "NAME", Path: "PATH"}
TRUTH = "True|False"
"""The unit of a truth value that may be None; a flag has none."""
READ = {int: whole, float: number, str: str, Path: path, bool: truth}

READING = ConstructorRegistry()
"""How values are read, with errors in words: `with READING: tyro.cli(...)`."""


def grouped(options: type, default: Any = None) -> type:
    """A dataclass for tyro with the fields of `options`, in groups.

    Args:
        options: a dataclass, with a text below every field.
        default: an instance whose values are the defaults; None: those of the class.
    """
    top: list[tuple[str, Any, Any]] = []
    nested: list[tuple[str, Any, Any]] = []
    titles = [vars(one)["GROUP"] for one in options.__mro__ if "GROUP" in vars(one)]
    groups: dict[str, list[tuple[str, Any, Any]]] = {title: [] for title in titles}
    hints = typing.get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        owner, hint = _owner(options, field.name), hints[field.name]
        value = _default(field) if default is None else getattr(default, field.name)
        title = vars(owner).get("GROUP", vars(options).get("GROUP"))
        alone = not isinstance(title, str) or tyro.conf.Positional in _marks(hint)
        entries = nested if _is_nested(hint) else top if alone else groups[str(title)]
        entries.append(_entry(field.name, hint, documentation(owner).get(field.name, ""), value))
    made = []
    for title, entries in ((title, some) for title, some in groups.items() if some):
        group = _dataclass(title.title().replace(" ", ""), entries)
        made.append(
            (
                f"group_{title.replace(' ', '_')}",
                Annotated[tyro.conf.OmitArgPrefixes[group], tyro.conf.arg(name=title, help="")],
                dataclasses.field(default_factory=group),
            )
        )
    return _dataclass(options.__name__, [*top, *made[:1], *nested, *made[1:]])


def _dataclass(name: str, entries: list[tuple[str, Any, Any]], kind: type | None = None) -> type:
    """A class whose instances are only read: to compile its other methods would take longer.

    Args:
        name: its name.
        entries: its fields.
        kind: the dataclass in whose place it is.
    """
    made = dataclasses.make_dataclass(
        name, entries, namespace={"KIND": kind}, kw_only=True, eq=False, repr=False
    )
    made.__doc__ = " "
    return made


def values(given: Any) -> dict[str, Any]:
    """The values by the name of the field, without the groups.

    **Errors:** those of a dataclass inside the options.
    """
    out = {}
    for name, value in vars(given).items():
        if name.startswith("group_"):
            out |= vars(value)
        else:
            kind = getattr(value, "KIND", None)
            out[name] = value if kind is None else kind(**vars(value))
    return out


@functools.cache
def documentation(kind: type) -> dict[str, str]:
    """The text below each field of a class, on one line; empty for a class without a source."""
    body = _classes(kind.__module__).get(kind.__qualname__)
    if body is None:
        return {}
    out = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            constant = text.value if isinstance(text, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                out[field.target.id] = " ".join(constant.value.split())
    return out


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes in the source of a module, by their qualified names; none without a source.

    `inspect.getsource` would parse the module again for each class.
    """
    found = {}
    home = sys.modules[module]
    lines = linecache.getlines(getattr(home, "__file__", None) or "", vars(home))

    def walk(parent: ast.AST, within: str) -> None:
        for node in (*getattr(parent, "body", ()), *getattr(parent, "orelse", ())):
            if isinstance(node, ast.ClassDef):
                found[within + node.name] = node
                walk(node, f"{within}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                walk(node, f"{within}{node.name}.<locals>.")
            else:
                walk(node, within)

    walk(ast.parse("".join(lines)), "")
    return found


def _entry(name: str, hint: Any, text: str, default: Any) -> tuple[str, Any, Any]:
    """One field in the form that tyro expects."""
    if _is_nested(hint):
        return _nested(name, hint, default)
    kind, marks = _kind(hint), _marks(hint)
    hint = checked_quickly(hint)
    silent = default is None or default is False or default in ("", ())
    said = not silent and default is not dataclasses.MISSING
    note = tyro.conf.arg(
        metavar=None if any(getattr(mark, "metavar", None) for mark in marks) else _metavar(hint),
        help=text.replace("%", "%%"),
        help_behavior_hint=f"(default: {written(default)})" if said else "",
    )
    shown: Any = Annotated[hint, note]
    if kind is bool and default is False:
        shown = tyro.conf.FlagCreatePairsOff[shown]
    return name, shown, dataclasses.field(default=default)


def _nested(name: str, hint: Any, default: Any) -> tuple[str, Any, Any]:
    """A dataclass inside the options. tyro takes one without a source as it is."""
    kind, texts = _bare(hint), documentation(_bare(hint))
    about = " ".join((kind.__doc__ or "").split()) if texts else ""
    marks = (*_marks(hint), tyro.conf.arg(help=about))  # otherwise tyro reads the source again
    if texts:
        hints = typing.get_type_hints(kind, include_extras=True)
        entries = [
            _entry(
                field.name,
                hints[field.name],
                texts.get(field.name, ""),
                getattr(default, field.name),
            )
            for field in dataclasses.fields(kind)
        ]
        made = _dataclass(kind.__name__, entries, kind)
        return name, Annotated[(made, *marks)], dataclasses.field(default_factory=made)
    return name, Annotated[(kind, *marks)], dataclasses.field(default_factory=lambda: default)


def checked_quickly(hint: Any) -> Any:
    """The same field with a type of which tyro checks a default by itself. For `X | None` and
    `tuple[X, ...]` it imports typeguard, which takes as long as a third of the parsing.
    """
    bare, origin = _bare(hint), typing.get_origin(_bare(hint))
    if origin is UnionType:
        plain: Any = Union[typing.get_args(bare)]  # noqa: UP007
    elif origin is tuple:
        info = PrimitiveTypeInfo.make(hint, set())
        spec: Any = ConstructorRegistry.get_primitive_spec(info)
        appended = tyro.conf.UseAppendAction in info.markers
        read = READ.get(_kind(hint))
        if read is not None and not appended:  # tyro leaves out what is wrong with a value
            spec = dataclasses.replace(spec, instance_from_str=lambda all: tuple(map(read, all)))
        plain = Annotated[tuple if appended else object, spec]
    else:
        return hint
    return Annotated[(plain, *_marks(hint))] if _marks(hint) else plain


def _owner(options: type, name: str) -> type:
    """The class that declares a field."""
    return next(one for one in options.__mro__ if name in vars(one).get("__annotations__", {}))


def _default(field: dataclasses.Field) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _marks(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _bare(hint: Any) -> Any:
    """The type without its annotations."""
    return typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint


def _kind(hint: Any) -> Any:
    """The type of one value: the inner type of an optional type or of a tuple."""
    bare = _bare(hint)
    parts = [part for part in typing.get_args(bare) if part not in (NoneType, ...)]
    several = typing.get_origin(bare) in (UnionType, Union, tuple)
    return parts[0] if several and parts else bare


def _is_nested(hint: Any) -> bool:
    return dataclasses.is_dataclass(_bare(hint))


def _metavar(hint: Any) -> str | None:
    """The unit of a value without an annotation; None: tyro's own, which it repeats for a tuple."""
    if _bare(hint) in (tuple, object):
        return None
    kind = _kind(hint)
    if typing.get_origin(kind) is Literal:
        return "|".join(typing.get_args(kind))
    return METAVARS.get(kind)


def written(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, tuple):
        return " ".join(map(written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@READING.primitive_rule
def _rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Numbers, truth values, texts, choices and paths, optional or not."""
    kind = _kind(info.type)
    optional = NoneType in typing.get_args(info.type)
    if typing.get_origin(kind) is Literal and optional:
        choices, read, metavar = typing.get_args(kind), str, _metavar(kind)
    elif kind in (int, float, Path) or (kind in READ and optional):
        choices, read, metavar = None, READ[kind], METAVARS.get(kind, TRUTH)
    else:
        return None
    if typing.get_origin(info.type) is tuple:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar or "",
        instance_from_str=lambda texts: read(texts[0]),
        is_instance=lambda value: (value is None and optional) or _is_a(value, kind),
        str_from_instance=lambda value: [str(value)],
        choices=choices,
    )


def _is_a(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    allowed = (int, float) if kind is float else kind
    return isinstance(value, allowed) and not isinstance(value, bool)
