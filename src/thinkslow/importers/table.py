"""The projects whose agents are read, by the name that `--format` takes. Imports none of them."""

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
"""A module of `sources` that has a `SOURCE`, or a source that was registered."""


def names() -> tuple[str, ...]:
    """Names of all sources, in the order in which they are tried."""
    return tuple(_KNOWN)


def source(name: str) -> "Source":
    """The source of a name. **Errors:** `KeyError` for an unknown one."""
    found = _KNOWN[name]
    if isinstance(found, str):
        return importlib.import_module(f"thinkslow.importers.sources.{found}").SOURCE
    return found


def register_source(new: "Source") -> None:
    """Let agents of another project be opened by every command and by `thinkslow.load`.

    A file or a notebook cell that runs again may register its sources again.

    Args:
        new: What the project's files are, how they are recognised and how they are read.

    **Errors:** `ValueError` for a name that another source has.
    """
    old = _KNOWN.get(new.name, new)
    if isinstance(old, str) or not registry.redefines(new.read, old.read):
        raise ValueError(f"There is a source {new.name!r} already. Choose another name.")
    _KNOWN[new.name] = new
