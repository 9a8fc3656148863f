"""Find agents of other projects, read them without running their code, and convert them.

Modules are loaded on first use, so listing the importers imports neither NumPy nor JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkslow.importers.finding import find
    from thinkslow.importers.importer import Importer
    from thinkslow.importers.loading import load, open_agent, told, write
    from thinkslow.storage.store import is_own

_HOMES = {
    "importers.finding": ("find",),
    "importers.loading": ("load", "open_agent", "told", "write"),
    "importers.importer": ("Importer",),
    "storage.store": ("is_own",),
}

__all__ = [
    "Importer",
    "find",
    "is_own",
    "load",
    "open_agent",
    "told",
    "write",
]


def __getattr__(name: str) -> Any:
    for home, inside in _HOMES.items():
        if name in inside:
            return getattr(importlib.import_module(f"thinkslow.{home}"), name)
    raise AttributeError(f"module 'thinkslow.importers' has no attribute {name!r}")
