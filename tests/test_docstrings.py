"""The API reference: what it shows is there, and its arguments are those of the code."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import thinkslow

API = Path(__file__).parents[1] / "docs" / "api.md"
SOURCE = Path(thinkslow.__file__).parent
AGENT = (".agent.choices", ".agent.checks", ".agent.gates")
MODULES = ("", *AGENT, ".objectives", ".refinement", ".evaluation", ".envs", ".testing")
NOT_DOCUMENTED = {"Objective", "Terms", "TERMS", "UPDATES", "WAYS", "Trial"}
"""Type aliases and tables."""
ARGUMENTS = re.compile(r"^( *)Args:\n((?:\1 +.*\n|\n)+)", re.MULTILINE)


def public() -> dict[str, Any]:
    """Every public object by the name that users import it by."""
    found: dict[int, tuple[str, Any]] = {}
    for part in MODULES:
        module = importlib.import_module(f"thinkslow{part}")
        for name in sorted(set(module.__all__) - NOT_DOCUMENTED):
            value = getattr(module, name)
            found.setdefault(id(value), (f"thinkslow{part}.{name}", value))
    return dict(found.values())


PUBLIC = public()


def functions(value: Any) -> list[tuple[str, Any]]:
    """An object and, of a class, its own public functions, each with a docstring."""
    if not inspect.isclass(value):
        return [(value.__name__, value)]
    inside = [
        (f"{value.__name__}.{name}", function)
        for name, function in vars(value).items()
        if inspect.isfunction(function) and (not name.startswith("_") or name == "__call__")
    ]
    return [(value.__name__, value), *inside]


def documented(text: str) -> list[str]:
    """Names in the list of arguments of a docstring."""
    match = ARGUMENTS.search(inspect.cleandoc(text) + "\n")
    if match is None:
        return []
    return re.findall(r"^ {4}(\w+):", match[2], re.MULTILINE)


def documented_above(kind: Any, name: str) -> set[str]:
    """Names in the lists of arguments that the bases of a class give for its method."""
    above = (vars(base).get(name) for base in getattr(kind, "__mro__", ())[1:])
    return {one for method in above for one in documented(getattr(method, "__doc__", None) or "")}


def test_arguments_are_found_in_a_docstring():
    text = (
        "Do.\n\n    Args:\n        one: first,\n            long.\n        two: other.\n\n    End."
    )
    assert documented(text) == ["one", "two"]


@pytest.mark.parametrize("name", PUBLIC)
def test_documented_arguments_are_those_of_the_signature(name):
    for where, function in functions(PUBLIC[name]):
        assert function.__doc__ or where != PUBLIC[name].__name__, f"{where} has no docstring"
        told = documented(function.__doc__ or "")
        if not told and inspect.isclass(function):
            continue
        taken = set(inspect.signature(function).parameters) - {"self", "cls", "args", "kwargs"}
        if not told:
            left = taken - documented_above(PUBLIC[name], function.__name__)
            assert len(taken) < 2 or not left, f"{where} has no list of {left}"
            continue
        left = set() if inspect.isclass(function) else taken - set(told)
        assert not left, f"{where} does not document {left}"
        assert not set(told) - taken, f"{where} documents {told} and takes {taken}"


PROPER = re.compile(r"(?!A )([A-Z]\b|[A-Z]\w*[A-Z]|Optax|Gymnasium|True\b|False\b|None\b)")
"""Acronyms, symbols and names, which begin with a capital letter everywhere."""


def test_every_list_of_arguments_is_written_alike():
    """A third of the modules began each argument with a capital letter, and four lists were
    indented by two, so that nothing compared them with the signature."""
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for indent, inside in ARGUMENTS.findall(path.read_text()):
            named = re.findall(rf"^{indent}( +)\**\w+: +(.*)$", inside, re.MULTILINE)
            assert len(named[0][0]) == 4, f"{path}: indent arguments by 4"
            texts = [text for depth, text in named if len(depth) == 4]
            wrong += [f"{path}: {x}" for x in texts if x[0].isupper() and not PROPER.match(x)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(not API.exists(), reason="the documents are not beside the tests")
def test_the_reference_shows_names_that_there_are():
    """Public names that it does not show yet are added when the site is built."""
    shown = re.findall(r"^::: ([\w.]+)$", API.read_text(), re.MULTILINE)
    assert len(set(shown)) == len(shown) >= 70
    for name in shown:
        # an attribute: a module may have the name of the function that it defines
        home, _, own = name.rpartition(".")
        assert callable(getattr(pkgutil.resolve_name(home), own))
