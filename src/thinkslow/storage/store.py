"""Named arrays on disk: agents, and the parts of a checkpoint.

A saved agent is a folder with two files, `weights.safetensors` and `manifest.json`, and with a
third, `ensemble.safetensors`, if the manifest lists it. It is either complete or absent. Reading it
either returns exactly what was written, or raises `Missing` or `Damaged` with one line that says
what is wrong. Nothing in the files is executed. This module knows names, arrays and a JSON
dictionary; it knows neither the meaning of the arrays nor their model.

**How an agent is replaced.** A file of arrays is never changed. New arrays get a new name,
`weights-ID.safetensors`, and are flushed to the disk. Then the manifest, which has this name under
`file`, is replaced in one step. Then the old arrays are removed. At every instant the manifest
names a complete file, so a kill leaves either the old agent or the new one.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from thinkslow.plural import plural
from thinkslow.storage import atomic, lock, tensorfile
from thinkslow.storage.faults import Damaged, Misfit, Missing, shown
from thinkslow.storage.manifest import (
    FORMAT,
    MANIFEST,
    manifest_text,
    read_manifest,
    refuse_non_finite,
)
from thinkslow.storage.reading import is_file, is_there

__all__ = [
    "MANIFEST",
    "Damaged",
    "Misfit",
    "Missing",
    "read",
    "read_manifest",
    "read_whole",
    "write",
]

Read = TypeVar("Read")

LARGEST_HEADER = 2**24
"""Bytes of a weights file that are not weights."""
WEIGHTS = "weights.safetensors"
ENSEMBLE = "ensemble.safetensors"
FILES = re.compile(
    r"(weights|ensemble)(-[0-9a-f]{8})?\.safetensors|manifest\.json|"
    r"\.manifest\.json\.tmp-[0-9a-f]{8}"
)
"""Names of files in an agent folder, including those that a kill leaves."""
DTYPES = frozenset(
    np.dtype(kind).name
    for kind in (
        *(np.bool_, np.int8, np.int16, np.int32, np.int64),
        *(np.uint8, np.uint16, np.uint32, np.uint64),
        *(np.float16, ml_dtypes.bfloat16, np.float32, np.float64),
    )
)
_KINDS = {np.dtype(kind).name: np.dtype(kind).itemsize for kind in DTYPES}


def write(
    folder: str | Path, weights: Mapping[str, np.ndarray], manifest: Mapping[str, Any]
) -> None:
    """Save arrays and a manifest as an agent folder. An existing agent is replaced.

    `weights` maps names such as `enc/cnn0/kernel` to arrays of a dtype in `DTYPES`; `manifest` must
    be JSON. The stored manifest has more keys, which replace keys of the same name: `format`;
    `sha256` of the weights file; `weights`, a table from name to `[shape, dtype]`; `checksum` of
    the manifest itself; and `file`, the name of the weights file if it is not
    `weights.safetensors`. An ensemble belongs to the weights that it was fitted to. It is removed
    together with replaced weights, and an `ensemble` in `manifest` is left out.

    **Errors:** `ValueError` or `TypeError` for arrays or manifests that cannot be saved, before
    anything is written; `ValueError` if `folder` holds files that do not belong to an agent;
    `atomic.Full` if the disk is full.
    **Cost:** one pass to write and one to hash; no copy of an array that is contiguous.
    """
    folder = atomic.absolute(folder)
    arrays, described = _described(weights)
    kept = {key: value for key, value in manifest.items() if key not in ("ensemble", "file")}
    full = {**kept, "format": FORMAT, "sha256": "0" * 64, "weights": described}
    refuse_non_finite(full)  # before anything is written
    _refuse_others(folder)
    if folder.is_dir() and any(folder.iterdir()):
        _replace(folder, WEIGHTS, arrays, full, full)
        return
    with atomic.folder(folder) as temporary:
        full["sha256"] = _save(arrays, temporary / WEIGHTS)
        (temporary / MANIFEST).write_text(manifest_text(full), encoding="utf-8")
        shutil.copymode(temporary / MANIFEST, temporary / WEIGHTS)


def write_ensemble(
    folder: str | Path, members: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    """Store an ensemble with an agent. It replaces an earlier one; the weights do not change.

    `members` maps names of the agent's arrays to members stacked along a first axis. The manifest
    gains `ensemble`: `facts`, which must be JSON, with `sha256` of the file and the table
    `weights`, as for an agent's own.

    **Errors:** those of `write`; `Missing` or `Damaged` for a damaged agent.
    **Cost:** one pass over the agent's weights, to check them.
    """
    folder = atomic.absolute(folder)
    arrays, described = _described(members)
    kept = {key: value for key, value in facts.items() if key != "file"}
    entry = {**kept, "sha256": "0" * 64, "weights": described}
    json.dumps(entry, allow_nan=False)
    _refuse_others(folder)
    _, manifest = read(folder)
    manifest = {**manifest, "format": FORMAT, "ensemble": entry}
    _replace(folder, ENSEMBLE, arrays, manifest, entry)


def read(folder: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Load an agent folder: the arrays in the order of saving, and the whole manifest.

    The weights file is hashed before anything in it is interpreted. Then names, shapes and dtypes
    are compared with the manifest. If the agent is replaced in the meantime, it is read again.

    **Errors:** `Missing`, `Damaged`.
    **Cost:** two passes over the file, the second from the page cache; each array is in memory
    once, and writable.
    """
    return _of_one_manifest(folder, _read)


def read_whole(
    folder: str | Path,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None, dict[str, Any]]:
    """As `read`, with the members of the agent's ensemble as the second value; None without an
    ensemble.

    **Errors:** `Missing`, `Damaged`; also for an ensemble that the manifest lists.
    """
    return _of_one_manifest(folder, _read_whole)


def is_own(path: Path) -> bool:
    """Whether a path is an agent folder of thinkslow."""
    return path.is_dir() and is_there(path / MANIFEST)


def _of_one_manifest(folder: str | Path, reading: Callable[[Path, dict[str, Any]], Read]) -> Read:
    """The result of `reading`, repeated if the agent is replaced in the meantime."""
    folder = atomic.absolute(folder)
    while True:
        manifest = read_manifest(folder)
        try:
            return reading(folder, manifest)
        except Missing:  # its files are removed once there is a newer manifest
            if read_manifest(folder) == manifest:
                raise


def _read(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    remedy = "Save it again, or copy it again."
    return _read_arrays(folder, WEIGHTS, manifest, remedy), manifest


def _read_whole(
    folder: Path, manifest: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None, dict[str, Any]]:
    weights, manifest = _read(folder, manifest)
    if (entry := manifest.get("ensemble")) is None:
        return weights, None, manifest
    remedy = f"Fit it again: thinkslow ensemble {folder}"
    return weights, _read_arrays(folder, ENSEMBLE, entry, remedy), manifest


def _read_arrays(folder: Path, usual: str, entry: Any, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of a file, which must match `entry` of the manifest."""
    expected, table = (
        (entry.get("sha256"), entry.get("weights")) if isinstance(entry, dict) else (None, None)
    )
    file = _file(entry, usual)
    path = folder / file
    if not is_file(path):
        raise Missing(f"An agent folder holds {file}; {folder} does not. {remedy}")
    if not isinstance(expected, str) or not isinstance(table, dict):
        raise Damaged(f"{folder / MANIFEST} lacks the checksum or the table of {file}. {remedy}")
    _check_size(path, table, remedy)
    if (found := sha256(path)) != expected:
        raise Damaged(
            f"{path} is not the file that its manifest describes (SHA-256 {found[:12]}…, "
            f"expected {shown(expected[:12])}…): it was truncated, altered or swapped. {remedy}"
        )
    try:
        weights = tensorfile.load(path)
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Damaged(f"{path} is not a safetensors file of known arrays: {error}.") from None
    for name in [*table, *weights]:
        if name not in weights or name not in table:
            where = MANIFEST if name in table else file
            raise Damaged(f"{folder}: {name} is only in {where}. {remedy}")
        described = [list(weights[name].shape), weights[name].dtype.name]
        if table[name] != described:
            raise Damaged(
                f"{path}: {name} is {described}, its manifest says {shown(table[name])}. {remedy}"
            )
    return {name: weights[name] for name in table}


def _check_size(path: Path, table: Mapping[str, Any], remedy: str) -> None:
    """Check the size of a file against its manifest, before reading all of it.

    **Errors:** `Damaged`.
    """
    size = path.stat().st_size
    try:
        bytes_ = sum(math.prod(shape) * _KINDS[kind] for shape, kind in table.values())
        fits = 0 <= size - bytes_ <= LARGEST_HEADER
    except (TypeError, ValueError, KeyError, OverflowError):
        fits = False
    if not fits:
        raise Damaged(
            f"{path} has {plural(size, 'byte')} and is not the file that its manifest describes: "
            "it was "
            f"truncated, altered or swapped. {remedy}"
        )


def _described(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, list[Any]]]:
    """Arrays as they are stored, and the table from name to `[shape, dtype]`."""
    stored = {name: _storable(name, value) for name, value in arrays.items()}
    return stored, {name: [list(x.shape), x.dtype.name] for name, x in stored.items()}


def _refuse_others(folder: Path) -> None:
    """**Errors:** `NotADirectoryError` for a file, `ValueError` for files that do not belong to an
    agent.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder or not exist yet; it is a file.")
    names = sorted(set(os.listdir(folder)) - {lock.NAME}) if folder.is_dir() else []
    if others := [name for name in names if not FILES.fullmatch(name)]:
        raise ValueError(
            f"An agent can replace only an agent or an empty folder; {folder} holds {others[0]}. "
            "Choose another folder."
        )


def _file(entry: Any, usual: str) -> str:
    """The name of the file of arrays that an entry of the manifest describes.

    **Errors:** `Damaged` for an impossible name.
    """
    name = entry.get("file", usual) if isinstance(entry, dict) else usual
    kind = usual.partition(".")[0]
    if not isinstance(name, str) or not FILES.fullmatch(name) or not name.startswith(kind):
        raise Damaged(
            f"The {MANIFEST} names {name!r:.99} as the file of its {kind}: it was altered. "
            "Save it again, or copy it again."
        )
    return name


def _save(arrays: dict[str, np.ndarray], path: Path) -> str:
    """Write a file of arrays. Returns its SHA-256."""
    with _system_errors():
        safetensors.numpy.save_file(arrays, path)
    return sha256(path)


def _replace(
    folder: Path,
    usual: str,
    arrays: dict[str, np.ndarray],
    manifest: dict[str, Any],
    entry: dict[str, Any],
) -> None:
    """Move a file of arrays, which `entry` of the manifest describes, into place, then the
    manifest.
    """
    path = folder / usual
    if path.exists():
        path = folder / f"{usual.partition('.')[0]}-{os.urandom(4).hex()}.safetensors"
    try:
        with atomic.explained(path):
            entry["sha256"] = _save(arrays, path)
            if path.name != usual and sha256(folder / usual) == entry["sha256"]:
                path.unlink()  # the file that exists has the same content
                path = folder / usual
            if path.name != usual:
                entry["file"] = path.name
            if (folder / MANIFEST).exists():  # safetensors makes it readable by its owner only
                shutil.copymode(folder / MANIFEST, path)
            atomic.sync(path)
            atomic.write_text(folder / MANIFEST, manifest_text(manifest))
    except BaseException:
        # An interruption is possible right after the manifest was replaced.
        if path.name not in _needed(folder):
            path.unlink(missing_ok=True)
        raise
    needed = _needed(folder)
    for name in os.listdir(folder):
        if name not in needed and FILES.fullmatch(name):
            (folder / name).unlink(missing_ok=True)


def _needed(folder: Path) -> set[str]:
    """The files that the manifest on the disk refers to; all files if it cannot be read."""
    try:
        manifest = read_manifest(folder)
        needed = {MANIFEST, _file(manifest, WEIGHTS)}
        if (entry := manifest.get("ensemble")) is not None:
            needed.add(_file(entry, ENSEMBLE))
    except Missing:
        return set()
    except Damaged:
        return set(os.listdir(folder))
    return needed


def _storable(name: str, value: np.ndarray) -> np.ndarray:
    """The array in the layout on disk: contiguous and little-endian."""
    if not isinstance(name, str) or name in ("", "__metadata__"):
        raise ValueError(f"The name of an array must be a string of its own; got {name!r}.")
    array = np.asarray(value)
    if array.dtype.name not in DTYPES:
        raise ValueError(f"{name} has dtype {array.dtype}, which cannot be saved. Convert it.")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Turn the system errors that safetensors reports as text into `OSError`."""
    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise
