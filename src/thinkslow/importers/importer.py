"""An importer: how the agents of one project are found, recognised and read."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from thinkslow import registry
from thinkslow.importers.foreign import Foreign, Found

Order = tuple[int, ...]
"""Sort key of a checkpoint among those of one run. The newest has the largest."""
Places = Callable[[Path], Iterable[tuple[Order, Path]]]
"""Function that lists the checkpoints directly in a folder, with their sort keys."""


@dataclasses.dataclass(frozen=True)
class Importer:
    """A project whose agents can be read.

    `thinkslow.register("importer", NAME, make)` adds one; `make()` returns it, and NAME is what
    `--format` accepts.
    """

    title: str
    """The project and its versions, for people."""
    places: Places
    """Where its checkpoints are."""
    recognises: Callable[[Any], bool]
    """Whether a checkpoint is from this project, judged by its content and not by its name.
    `content` is the result of `pickles.load` or `torchfile.load`, and may be anything.
    """
    read: Callable[..., Foreign]
    """`read(found, classes=...)`, with `vectors=...` if `orders_vectors`."""
    config: tuple[str, ...] = ()
    """Possible paths of its configuration, relative to the checkpoint's folder."""
    orders_vectors: bool = False
    """Whether no file stores the order of vectors, so that a user may pass it."""
    unread: Callable[[Any], str | None] = lambda content: None
    """The reason why a recognised version of this project cannot be read."""


def importers() -> dict[str, Importer]:
    """Every importer by its name, in the order in which they are tried."""
    return {name: registry.make("importer", name) for name in registry.entries("importer")}


def files(*names: str) -> Places:
    """Checkpoints with fixed names directly in a folder."""

    def at(folder: Path) -> Iterator[tuple[Order, Path]]:
        for name in names:
            if (folder / name).is_file():
                yield (0,), folder / name

    return at


def inside(content: Any, *path: str) -> Mapping[Any, Any]:
    """The mapping at a path inside nested mappings; empty if there is none."""
    for name in path:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def has(mapping: Mapping[Any, Any], *pieces: str) -> bool:
    """Whether any key of a mapping contains one of the pieces."""
    return any(isinstance(name, str) and piece in name for name in mapping for piece in pieces)


__all__ = ["Foreign", "Found", "Importer", "Order", "Places", "files", "has", "inside"]
