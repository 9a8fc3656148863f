"""Import the user's modules before a command begins, so that they can register names."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def load_modules(names: Sequence[str]) -> None:
    """Import the user's modules, so that they can register names.

    A name is searched as in Python, in the working folder first. A path that ends in `.py` is a
    file.

    **Errors:** `ValueError` that names the module and says why it could not be imported.
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
                f"--import {name}: {type(error).__name__}: {str(error).rstrip('.')}. Searched the "
                "working folder and Python's path."
            ) from error


def _load_file(path: Path) -> None:
    known = getattr(sys.modules.get(path.stem), "__file__", None)
    if known is not None and Path(known).resolve() == path.resolve():
        return  # once is enough: its names are registered
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
