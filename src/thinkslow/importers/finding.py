"""Find the newest checkpoint of a log folder, and the project that wrote it.

The path may be a log folder, a checkpoint folder or the file itself. Each importer knows where its
project stores checkpoints and how to recognise them.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinkslow.importers import misplaced
from thinkslow.importers.foreign import Found
from thinkslow.importers.formats import pickles, torchfile
from thinkslow.importers.formats.arrays import File
from thinkslow.importers.importer import Order, importers
from thinkslow.plural import plural
from thinkslow.storage.faults import Damaged, Missing, shown
from thinkslow.storage.reading import is_there

DEEPEST = 6
"""How many levels of folders are searched; sheeprl's logs have five."""
MOST_FOLDERS = 10_000
"""Largest number of folders that are searched."""
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c")
"""The first bytes of files of gzip, bzip2, xz, zstd and 7z."""
INSIDE = re.compile(r"checkpoint|ckpt|version_\d+")
"""Folders that belong to the run in their parent folder."""


def find(path: Path, *, format: str = "auto") -> Found:
    """The newest checkpoint at a path: a log folder, a checkpoint folder, or a file.

    Args:
        path: where to look.
        format: the name of an importer, or `auto`.

    **Errors:** `Missing` if there is no checkpoint; `ValueError` if there are several runs, or if
    another project wrote it; `Damaged` and `pickles.Refused` from reading.
    """
    known = importers()
    if format not in ("auto", *known):
        raise ValueError(
            f"`format` must be auto or one of {', '.join(known)}; got {shown(format)}."
        )
    file = newest(path)
    content = content_of(file)
    name = whose(content, file)
    if format not in ("auto", name):
        raise ValueError(
            f"{file} was written by {known[name].title}, not by {known[format].title}. Leave "
            "`format` out, or check the path."
        )
    return Found(name, file, _config(file, known[name].config), content)


def content_of(file: Path) -> Any:
    """The content of a checkpoint. Its first bytes tell the format.

    **Errors:** `Damaged`, `pickles.Refused`.
    """
    opened = File(file)
    start = bytes(opened.read(0, min(opened.size, len(torchfile.OLD))))
    tar = opened.size >= 262 and opened.read(257, 5) == b"ustar"
    if tar or start.startswith(PACKED):
        raise Damaged(
            f"{file} is packed, and an agent is a folder or a checkpoint file. Unpack it, and give "
            "what was in it."
        )
    archive = start.startswith((torchfile.MARK, b"PK")) or start == torchfile.OLD
    return torchfile.load(file) if archive else pickles.load(file)


def has_checksum(file: Path) -> bool:
    """Whether an altered number in a checkpoint is detected: archives have checksums, pickles do
    not.
    """
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"


def newest(path: Path) -> Path:
    """The checkpoint that `find` reads.

    **Errors:** `Missing`, `Damaged`, `ValueError`.
    """
    if path.is_file():
        return path
    if not is_there(path):
        raise Missing(f"An agent is a folder or a file; {path} does not exist. Check the path.")
    if not path.is_dir():
        raise Damaged(f"An agent is a folder or a file; {path} is neither. Check the path.")
    here = list(_checkpoints(path))
    if not here:
        here = _of_one_run(path)
    if not here:
        if instead := misplaced.above(path) or misplaced.below(path, _below(path)):
            raise Missing(instead)
        raise Missing(
            f"{path} holds no agent: neither manifest.json, as thinkslow writes, nor ckpt/latest, "
            "checkpoint.pkl, checkpoint.ckpt, latest.pt or ckpt_STEP_RANK.ckpt, as others do. "
            "Check the path."
        )
    return max(here)[1]


def whose(content: Any, file: Path) -> str:
    """The name of the importer for a checkpoint.

    **Errors:** `Damaged` if no known project wrote it, or if this version of the project is not
    supported.
    """
    known = importers()
    for each in known.values():
        if (why := each.unread(content)) is not None:
            raise Damaged(f"{file} {why}")
    for name, each in known.items():
        if each.recognises(content):
            return name
    titles = ", ".join(each.title for each in known.values())
    raise Damaged(f"{file} holds no agent of a known project: {titles}.")


def _checkpoints(folder: Path) -> Iterator[tuple[Order, Path]]:
    """The checkpoints directly in a folder, in the layout of each project, with their sort keys."""
    seen = set()
    for each in importers().values():
        for order, file in each.places(folder):
            if file not in seen:
                seen.add(file)
                yield order, file


def _of_one_run(path: Path) -> list[tuple[Order, Path]]:
    """The checkpoints of the only run below a folder.

    **Errors:** `ValueError` naming the runs if there are several.
    """
    below = [(folder, found) for folder in _below(path) for found in _checkpoints(folder)]
    runs = {_run(folder) for folder, _ in below}
    # Everything inside the folder of a run belongs to that run, such as danijar's ckpt/TIME.
    runs = {run for run in runs if not any(other in run.parents for other in runs)}
    if len(runs) > 1:
        few = ", ".join(str(run) for run in sorted(runs)[:3])
        raise ValueError(
            f"{path} holds {plural(len(runs), 'run')} ({few}{', ...' * (len(runs) > 3)}). Give "
            "one of them."
        )
    # The run records which of its checkpoints is the newest.
    for run in runs:
        below = [(run, found) for found in _checkpoints(run)] or below
    return [found for _, found in below]


def _below(path: Path) -> Iterator[Path]:
    """The folders below a path, with limits on depth and number."""
    level, seen = [path], 0
    for _ in range(DEEPEST):
        level = sorted(
            child
            for folder in level
            for child in folder.iterdir()
            if child.is_dir() and not child.is_symlink()
        )
        seen += len(level)
        if seen > MOST_FOLDERS:
            raise ValueError(f"{path} holds over {MOST_FOLDERS:,} folders. Give the log folder.")
        yield from level


def _run(folder: Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    while INSIDE.fullmatch(folder.name):
        folder = folder.parent
    return folder


def _config(file: Path, places: tuple[str, ...]) -> Path | None:
    """The configuration file of a checkpoint.

    **Errors:** `Damaged` if that path exists but is not a file.
    """
    for place in places:
        path = Path(os.path.normpath(file.parent / place))
        if path.is_file():
            return path
        if is_there(path):
            raise Damaged(
                f"{path} must be a file, the configuration of {file}; it is not a file, or a "
                "broken link. Copy it again, or remove it."
            )
    return None
