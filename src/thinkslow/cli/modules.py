"""Import the user's modules before a command begins, so that they can register names."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from thinkslow.cli.places import place_of
from thinkslow.consent import trust


def load_modules(names: Sequence[str]) -> None:
    """Import the user's modules, so that they can register names.

    A name is searched as in Python, in the working folder first. A path that ends in `.py` is a
    file.

    **Errors:** `ValueError` that names the module and says why it could not be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        if not name.endswith(".py") and (os.sep in name or name.startswith(".") or not name):
            raise ValueError(
                f"--import must be a module, such as mypackage.terms, or a file that ends in .py; "
                f"got {name!r}."
            )
        try:
            if name.endswith(".py"):
                name_of_module = _load_file(Path(name))
            else:
                name_of_module = importlib.import_module(name).__name__
            trust(name_of_module)
        except Exception as error:
            said = " ".join(str(error).split()).rstrip(".")
            remedy = ""
            if isinstance(error, FileNotFoundError | ModuleNotFoundError):
                remedy = " Searched the working folder and Python's path."
            if "," in name:
                remedy = " For several modules repeat the flag: --import A --import B."
            at = f" ({place})" if (place := place_of(error)) else ""
            raise ValueError(
                f"--import {name}: {type(error).__name__}: {said}{at}.{remedy}"
            ) from error


def _load_file(path: Path) -> str:
    """Import a file and return the name of its module."""
    name = _name(path)
    if name in sys.modules:
        return name  # once is enough: its names are registered
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return name


def _name(path: Path) -> str:
    """The name of a file's module: its own, unless another module has it, such as `json`."""
    own = path.stem
    if own.isidentifier() and own not in sys.stdlib_module_names:
        known = sys.modules.get(own)
        file = getattr(known, "__file__", None)
        if known is None:
            found = importlib.util.find_spec(own)
            file = found.origin if found is not None else str(path)
        if file is not None and Path(file).resolve() == path.resolve():
            return own
    import hashlib

    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return f"_imported_{digest}_{own}"
