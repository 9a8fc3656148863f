"""The projects whose agents can be read, by the name that `--format` accepts. Imports none of
them.
"""

import importlib
from typing import TYPE_CHECKING

from thinkslow import registry

if TYPE_CHECKING:
    from thinkslow.importers.source import Source

_KNOWN: "dict[str, str | Source]" = {
    "dreamerv3": "danijar",
    "dreamerv3-v1": "danijar_v1",
    "dreamerv3-torch": "torch_v1",
    "r2dreamer": "r2dreamer",
    "sheeprl": "sheeprl_v1",
    "sheeprl-3.5": "sheeprl_main",
}
"""A module of `sources` that has a `SOURCE`, or a registered source."""


def names() -> tuple[str, ...]:
    """The names of all sources, in the order in which they are tried."""
    return tuple(_KNOWN)


def source(name: str) -> "Source":
    """The source with this name. **Errors:** `KeyError` for an unknown name."""
    found = _KNOWN[name]
    if isinstance(found, str):
        return importlib.import_module(f"thinkslow.importers.sources.{found}").SOURCE
    return found


def register_source(new: "Source") -> None:
    """Register a source, so that every command and `thinkslow.load` can open its agents.

    A file or a notebook cell may run again and register its sources again.

    Args:
        new: The project's files, how to recognise them, and how to read them.

    **Errors:** `ValueError` if another source has this name.
    """
    old = _KNOWN.get(new.name, new)
    if isinstance(old, str) or not registry.redefines(new.read, old.read):
        raise ValueError(f"There is a source {new.name!r} already. Choose another name.")
    _KNOWN[new.name] = new
