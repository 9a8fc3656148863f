"""The manifest of an agent: JSON that describes its arrays, with its own checksum."""

import hashlib
import json
import math
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
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def manifest_text(manifest: dict[str, Any]) -> str:
    """JSON with one readable line for each array, and with its checksum."""
    # A value that JSON changes, such as a tuple, is hashed in the form in which it will be read.
    manifest = json.loads(json.dumps({**manifest, "checksum": ""}, allow_nan=False))
    manifest["checksum"] = checksum(manifest)
    head = {key: value for key, value in manifest.items() if key != "weights"}
    rows = [f"  {json.dumps(n)}: {json.dumps(shape)}" for n, shape in manifest["weights"].items()]
    body = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
    return body + ',\n "weights": {\n' + ",\n".join(rows) + "\n }\n}\n"


def _parsed(path: Path) -> dict[str, Any]:
    """A JSON object without non-finite numbers and without repeated names.

    **Errors:** `Missing`, `Damaged`.
    """
    try:
        manifest = json.loads(
            read_bounded(path, LARGEST_MANIFEST, "a manifest"),
            object_pairs_hook=jsontext.once,
            parse_constant=_not_finite,
            parse_float=_finite,
        )
    except FileNotFoundError:
        raise Missing(f"{path} is a link to nothing. Check the path.") from None
    except Damaged:
        raise
    except (ValueError, RecursionError):
        raise Damaged(f"{path} is not JSON: it was truncated or altered. Save it again.") from None
    if not isinstance(manifest, dict):
        raise Damaged(f"{path} is not the manifest of an agent: it names no format.")
    return manifest


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text[:20])
