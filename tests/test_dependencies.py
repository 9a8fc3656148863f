"""What is declared is what is imported: nothing is installed in vain, nothing comes by luck."""

import ast
import functools
import re
import sys
from importlib import metadata
from pathlib import Path

import thinkslow

SOURCE = Path(thinkslow.__file__).parent


@functools.cache
def imported() -> set[str]:
    """Distributions whose modules any file of the package imports, anywhere in it."""
    modules = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                modules.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
    owners = metadata.packages_distributions()
    third = modules - sys.stdlib_module_names - {"thinkslow"}
    return {normal(owners.get(module, [module])[0]) for module in third}


def declared(*, extras: bool) -> set[str]:
    """Requirements of the installed package, with or without those of its extras."""
    requirements = metadata.requires("thinkslow") or []
    if not extras:
        requirements = [
            requirement for requirement in requirements if "extra ==" not in requirement
        ]
    return {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared():
    assert not imported() - declared(extras=True), "add to `dependencies` in pyproject.toml"


def test_every_declared_dependency_is_imported():
    assert not declared(extras=False) - imported(), "remove from `dependencies` in pyproject.toml"
