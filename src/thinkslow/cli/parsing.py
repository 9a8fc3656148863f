"""How the help of a command shows its options: groups, units and sentences, without Python types.

Options are flat dataclasses, and tyro reads the command line. This module first makes another
dataclass for tyro. Fields are grouped by the class that declares them. Its `GROUP` is the title, by
default that of the options themselves, and the outermost class comes first. A field that may be
None shows the unit of its value. Empty defaults are not shown.
"""

import ast
import contextlib
import dataclasses
import functools
import inspect
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
    for field in dataclasses.fields(options):
        owner = _owner(options, field.name)
        hint = typing.get_type_hints(owner, include_extras=True)[field.name]
        value = _default(field) if default is None else getattr(default, field.name)
        title = vars(owner).get("GROUP", vars(options).get("GROUP"))
        alone = not isinstance(title, str) or tyro.conf.Positional in _marks(hint)
        entries = nested if _is_nested(hint) else top if alone else groups[str(title)]
        entries.append(_entry(field.name, hint, documentation(owner).get(field.name, ""), value))
    made = []
    for title, entries in ((title, some) for title, some in groups.items() if some):
        group = dataclasses.make_dataclass(title.title().replace(" ", ""), entries, kw_only=True)
        group.__doc__ = " "
        made.append(
            (
                f"group_{title.replace(' ', '_')}",
                Annotated[tyro.conf.OmitArgPrefixes[group], tyro.conf.arg(name=title, help="")],
                dataclasses.field(default_factory=group),
            )
        )
    fields = [*top, *made[:1], *nested, *made[1:]]
    return dataclasses.make_dataclass(options.__name__, fields, kw_only=True)


def values(given: Any) -> dict[str, Any]:
    """The values by the name of the field, without the groups."""
    out = {}
    for name, value in vars(given).items():
        out |= vars(value) if name.startswith("group_") else {name: value}
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
    """The classes in the source of a module, by their qualified names.

    `inspect.getsource` would parse the module again for each class.
    """
    found = {}

    def walk(parent: ast.AST, within: str) -> None:
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.ClassDef):
                found[within + node.name] = node
                walk(node, f"{within}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                walk(node, f"{within}{node.name}.<locals>.")
            elif isinstance(node, ast.stmt):
                walk(node, within)

    with contextlib.suppress(OSError, TypeError):  # a module without a source
        walk(ast.parse(inspect.getsource(sys.modules[module])), "")
    return found


def _entry(name: str, hint: Any, text: str, default: Any) -> tuple[str, Any, Any]:
    """One field in the form that tyro expects."""
    if _is_nested(hint):
        return name, hint, dataclasses.field(default_factory=lambda: default)
    kind, marks = _kind(hint), _marks(hint)
    silent = default is None or default is False or default in ("", ())
    said = not silent and default is not dataclasses.MISSING
    note = tyro.conf.arg(
        metavar=None if any(getattr(mark, "metavar", None) for mark in marks) else _metavar(kind),
        help=text.replace("%", "%%"),
        help_behavior_hint=f"(default: {_written(default)})" if said else "",
    )
    shown: Any = Annotated[hint, note]
    if kind is bool and default is False:
        shown = tyro.conf.FlagCreatePairsOff[shown]
    return name, shown, dataclasses.field(default=default)


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


def _metavar(kind: Any) -> str | None:
    """The unit of a value without an annotation; None: tyro's own."""
    if typing.get_origin(kind) is Literal:
        return "|".join(typing.get_args(kind))
    return METAVARS.get(kind)


def _written(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, tuple):
        return " ".join(map(_written, value))
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
