"""JSON of settings that may be without bound.

Python writes an infinite number as `Infinity`, which is no JSON: other readers refuse the file.
"""

import json
import re
from typing import Any

from thinkslow.storage.faults import shown

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')
_WRITTEN = {"Infinity": "1e999", "-Infinity": "-1e999", "NaN": "null"}


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Valid JSON: an infinite number is written as 1e999, which is read as infinity, and NaN as
    null.

    >>> dumps({"max_kl": float("inf"), "name": "NaN", "share": float("nan")})
    '{"max_kl": 1e999, "name": "NaN", "share": null}'
    >>> json.loads(dumps([float("-inf")]))
    [-inf]
    """
    text = json.dumps(value, indent=indent)
    return _TOKEN.sub(lambda found: _WRITTEN.get(found[0], found[0]), text)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` of `json.loads`, which would take the last of two equal names.

    **Errors:** `ValueError` for a name that is given twice.
    """
    out = dict(pairs)
    if len(out) != len(pairs):
        seen = set[str]()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{shown(twice)} is given twice")
    return out
