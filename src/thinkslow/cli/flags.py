"""Flags that change how arms think: made of the fields of `Thinking` and `Arm`, with their help.

Adding a field there adds a flag here. Nothing is made before it is asked for, so that help and
wrong values need no JAX.
"""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import tyro

from thinkslow import registry
from thinkslow.agent.presets import Arm, arm
from thinkslow.agent.thinking import Thinking, check_setting

METAVARS = {int: "N", float: "X", str: "NAME"}
ELSEWHERE = ("thinking",)
"""Fields of `Arm` that are no flags of their own."""
KINDS = {"gate": "score"}
"""Kinds of the registry that fields of `Arm` speak of."""
WHEN = ("gate", "share", "deadline_ms")


def documentation(kind: type) -> dict[str, str]:
    """The text below each field of a class, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    out = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            constant = text.value if isinstance(text, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                out[field.target.id] = " ".join(constant.value.split())
    return out


def _flag(field: dataclasses.Field, text: str) -> tuple[str, Any, Any]:
    """One field as an option that is None unless given."""
    kind = field.metadata.get("kind") or KINDS.get(field.name)
    given: Any = str if kind else field.type
    if get_origin(given) is UnionType or NoneType in get_args(given):
        given = next(one for one in get_args(given) if one is not NoneType)
    metavar = {"term": "TERMS", None: METAVARS.get(given)}.get(kind, str(kind).upper())
    if get_origin(given) is Literal:
        metavar = "|".join(get_args(given))
    if given is bool:
        metavar = "True|False"
    note = tyro.conf.arg(help=text.replace("%", "%%"), metavar=metavar, help_behavior_hint="")
    return field.name, Annotated[given | None, note], dataclasses.field(default=None)


FIELDS = {
    field.name: field
    for field in (*dataclasses.fields(Thinking), *dataclasses.fields(Arm))
    if field.name not in ELSEWHERE
}
_TEXTS = documentation(Thinking) | documentation(Arm)

if TYPE_CHECKING:

    class Changes:
        """What every arm that refines is to do otherwise: an option for each of `FIELDS`."""

else:
    Changes = dataclasses.make_dataclass(
        "Changes",
        [_flag(field, _TEXTS[name]) for name, field in FIELDS.items()],
        frozen=True,
        kw_only=True,
    )


def given(changes: Any) -> dict[str, Any]:
    """The options that were given, by name.

    **Errors:** `ValueError` for a value out of range, or a name that is nothing.
    """
    out = {name: getattr(changes, name) for name in FIELDS if getattr(changes, name) is not None}
    for name, value in out.items():
        field = FIELDS[name]
        kind = field.metadata.get("kind") or KINDS.get(name)
        if kind:
            specs = registry.weights(value) if kind == "term" else [(value, 1.0)]
            for spec, _ in specs:
                registry.check(kind, spec)
        elif "least" in field.metadata:
            check_setting(field, value)
    if "gate" in out:
        out.setdefault("share", 0.2)
    # A share alone is meant for arms that have a gate.
    gate = "any" if "share" in out else None
    Arm(Thinking(), **{"gate": gate, **{name: out[name] for name in WHEN if name in out}})
    return out


def arms(names: Sequence[str], changes: Mapping[str, Any]) -> dict[str, Arm]:
    """The arms of these names by label, with what is to be otherwise.

    **Errors:** `ValueError` for an unknown arm or an impossible value.
    """
    objects = {}
    for name, value in changes.items():
        kind = FIELDS[name].metadata.get("kind") or KINDS.get(name)
        made = value
        if kind == "term":
            made = registry.weighted(kind, value)
        elif kind:
            made = registry.make(kind, value)
        objects[name] = (made, value)
    return dict(changed(name, objects) for name in names)


def changed(name: str, changes: Mapping[str, tuple[Any, Any]]) -> tuple[str, Arm]:
    """An arm of which some settings are changed, under a label that says which.

    Only an arm that refines is changed. The random controls stay random: a random step descends
    nothing, so that nothing selects among its steps. A setting that is as it was adds nothing to
    the label.

    Args:
        name: of the arm.
        changes: by setting, the value and how to write it.

    **Errors:** `ValueError` for an unknown arm or an impossible value.

    >>> changed("sig-3", {"horizon": (8, 8), "steps": (1, 1)})[0]
    'sig-3+horizon=8'
    """
    found = arm(name)
    if not found.thinking.steps:
        return name, found
    fixed: set[str] = set(getattr(found.thinking.update, "keeps", ()))
    if found.gate is not None and found.gate.name == "random":
        fixed.add("gate")
    mine = {
        key: value
        for key, (value, _) in changes.items()
        if key not in fixed and value != getattr(found if key in WHEN else found.thinking, key)
    }
    label = "".join(f"+{key}={_written(changes[key][1])}" for key in mine)
    settings = {key: value for key, value in mine.items() if key not in WHEN}
    thinking = dataclasses.replace(found.thinking, **settings)
    when = {key: value for key, value in mine.items() if key in WHEN}
    return name + label, dataclasses.replace(found, thinking=thinking, **when)


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def load_modules(names: Sequence[str]) -> None:
    """Import modules of the user's, so that what they register has a name.

    A name is looked up as Python does, the working folder first; a path ending in `.py` is a
    file.

    **Errors:** `ValueError` naming what could not be imported and why.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            if name.endswith(".py"):
                _load_file(Path(name))
            else:
                importlib.import_module(name)
        except Exception as error:
            raise ValueError(
                f"--import {name}: {type(error).__name__}: {error}. Looked in the working folder "
                "and where Python looks."
            ) from error


def _load_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
