"""What a source is: everything that is known of one project's agents, in one object."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from thinkslow.importers.foreign import Foreign, Found

Order = tuple[int, ...]
"""The larger, the newer, among the checkpoints of one run."""
Places = Callable[[Path], Iterable[tuple[Order, Path]]]
"""The checkpoints that lie right at a folder, with their order."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A project whose agents are read.

    Its module names no other source, and the table `importers.table` has one line for it.
    """

    name: str
    """What `--format` takes."""
    title: str
    """The project and its versions, as text."""
    places: Places
    """Where its checkpoints lie."""
    recognises: Callable[[Any], bool]
    """Whether a checkpoint's content is of this project. Whose a file is shows in what it holds,
    not in its name; `content` is what `pickles.load` or `torchfile.load` gave, and may be
    anything."""
    read: Callable[..., Foreign]
    """`read(found, classes=...)`, with `vectors=...` if `orders_vectors`."""
    config: tuple[str, ...] = ()
    """Where its configuration may lie, seen from the checkpoint's folder."""
    orders_vectors: bool = False
    """Whether the order of vectors is stored nowhere, so that a user may give it."""
    unread: Callable[[Any], str | None] = lambda content: None
    """Why a version of this project that is recognised cannot be read."""


def files(*names: str) -> Places:
    """Checkpoints of fixed names right in a folder."""

    def at(folder: Path) -> Iterator[tuple[Order, Path]]:
        for name in names:
            if (folder / name).is_file():
                yield (0,), folder / name

    return at


def inside(content: Any, *path: str) -> Mapping[Any, Any]:
    """The mapping inside of mappings; empty if there is none."""
    for name in path:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def has(mapping: Mapping[Any, Any], *pieces: str) -> bool:
    """Whether any name of a mapping holds one of the pieces."""
    return any(isinstance(name, str) and piece in name for name in mapping for piece in pieces)


__all__ = ["Foreign", "Found", "Order", "Places", "Source", "files", "has", "inside"]
