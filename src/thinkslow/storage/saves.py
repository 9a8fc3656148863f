"""Numbered saves: each is a folder of its own, and a file names the valid one.

    saves/000124/    arrays and a manifest, as `store` writes them
    saves/latest     the name of the valid save: 000124

A save is written once and never changed. `latest` is replaced in one step when the new save is
complete on the disk; the older saves are deleted after that. If a process is killed at any instant,
`latest` therefore names a complete save. One writer at a time is assumed (see `lock`).
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thinkslow.storage import atomic, store
from thinkslow.storage.reading import is_file, read_bounded

LATEST = "latest"
NUMBERED = re.compile(r"\.?([0-9]{6,})(\.tmp-[0-9a-f]{8})?")


def latest(folder: str | Path) -> Path | None:
    """The valid save; None if nothing was saved yet.

    **Errors:** `store.Damaged` if `latest` names no save; `store.Missing` if that save is gone.
    """
    path = Path(folder) / LATEST
    if not is_file(path):
        return None
    try:
        name = read_bounded(path, 255, "the number of a save").decode().strip()
    except UnicodeDecodeError:
        name = ""
    if not re.fullmatch("[0-9]{6,}", name):
        raise store.Damaged(f"{path} must hold the number of a save; it was altered. Restore it.")
    if not (path.parent / name).is_dir():
        raise store.Missing(f"{path} names the save {name}, which is gone. Restore it.")
    return path.parent / name


def write(
    folder: str | Path, arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]
) -> Path:
    """Write a new save, make it the valid one, and remove the older ones. Returns its folder.

    **Errors:** those of `store.write`; the save before it stays valid then.
    """
    folder = Path(folder)
    numbers = [int(found[1]) for found in _found(folder).values()]
    save = folder / f"{max(numbers, default=0) + 1:06}"
    store.write(save, arrays, manifest)
    atomic.write_text(folder / LATEST, save.name + "\n")
    for name in _found(folder):
        if name != save.name:
            shutil.rmtree(folder / name, ignore_errors=True)
    return save


def _found(folder: Path) -> dict[str, re.Match]:
    """All saves in a folder, complete or left by a kill."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return {name: found for name in names if (found := NUMBERED.fullmatch(name))}
