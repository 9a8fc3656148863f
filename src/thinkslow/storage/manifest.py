"""The manifest of an agent: JSON that describes its arrays, with its own checksum."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkslow.storage import atomic, jsontext
from thinkslow.storage.faults import Damaged, Missing, shown
from thinkslow.storage.reading import is_there, read_bounded

MANIFEST = "manifest.json"
FORMAT = 2
"""1: the manifest has no checksum of its own. 2: it has one, `checksum`."""
LARGEST_MANIFEST = 2**23
"""Largest size in bytes; a large agent's manifest, with its learning curve, has 100,000."""


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Load only the manifest of an agent folder. The weights are neither opened nor checked.

    **Errors:** `Missing` if the folder or the manifest is absent; `Damaged` if it is not JSON, is
    not the manifest of an agent, or has a format that this version does not read.
    """
    folder = atomic.absolute(folder)
    if not folder.exists():
        raise Missing(f"An agent is a folder; {folder} does not exist. Check the path.")
    if not folder.is_dir():
        raise Damaged(f"An agent is a folder; {folder} is a file. Give the folder, or import it.")
    path = folder / MANIFEST
    if not is_there(path):
        raise Missing(
            f"An agent folder holds {MANIFEST}; {folder} does not. Check the path, or import it."
        )
    manifest = _parsed(path)
    if type(manifest.get("format")) is not int:
        raise Damaged(f"{path} is not the manifest of an agent: it names no format.")
    if manifest["format"] > FORMAT:
        raise Damaged(
            f"This version reads agents of format {FORMAT}; {folder} has format "
            f"{shown(manifest['format'])}. Upgrade thinkslow."
        )
    if manifest["format"] < 1:
        raise Damaged(f"{path} names format {manifest['format']}, which never existed.")
    if manifest["format"] > 1 and manifest.get("checksum") != checksum(manifest):
        raise Damaged(
            f"{path} is not what was written (its checksum differs): it was truncated or altered. "
            "Save it again, or copy it again."
        )
    return manifest


def checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content, without the checksum itself, in hexadecimal digits."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_non_finite(manifest: Mapping[str, Any]) -> None:
    """**Errors:** `ValueError` for a non-finite number, `TypeError` for a value that JSON lacks.

    The options of an environment may hold infinity, as the limits of a robot do.
    """
    environment = manifest.get("environment")
    if isinstance(environment, Mapping):
        json.loads(json.dumps(environment.get("options")), parse_constant=_infinite)
        manifest = {**manifest, "environment": {**environment, "options": None}}
    json.dumps(manifest, allow_nan=False)


def manifest_text(manifest: dict[str, Any]) -> str:
    """JSON with one readable line for each array, and with its checksum."""
    # A value that JSON changes, such as a tuple, is hashed in the form in which it will be read.
    manifest = json.loads(jsontext.dumps({**manifest, "checksum": ""}))
    manifest["checksum"] = checksum(manifest)
    head = {key: value for key, value in manifest.items() if key != "weights"}
    rows = [f"  {json.dumps(n)}: {json.dumps(shape)}" for n, shape in manifest["weights"].items()]
    body = jsontext.dumps(head, indent=1).removesuffix("\n}")
    return body + ',\n "weights": {\n' + ",\n".join(rows) + "\n }\n}\n"


def _parsed(path: Path) -> dict[str, Any]:
    """A JSON object without repeated names and, except in the options of an environment, without
    non-finite numbers.

    **Errors:** `Missing`, `Damaged`.
    """
    try:
        manifest = json.loads(
            read_bounded(path, LARGEST_MANIFEST, "a manifest"),
            object_pairs_hook=jsontext.once,
            parse_constant=_no_number,
        )
    except FileNotFoundError:
        raise Missing(f"{path} is a link to nothing. Check the path.") from None
    except Damaged:
        raise
    except (ValueError, RecursionError):
        raise Damaged(f"{path} is not JSON: it was truncated or altered. Save it again.") from None
    if not isinstance(manifest, dict):
        raise Damaged(f"{path} is not the manifest of an agent: it names no format.")
    try:
        refuse_non_finite(manifest)
    except (ValueError, RecursionError):
        raise Damaged(
            f"{path} holds an infinite number, as only the options of an environment may. Save it "
            "again."
        ) from None
    return manifest


def _infinite(name: str) -> str:
    return name if name.endswith("Infinity") else _no_number(name)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
