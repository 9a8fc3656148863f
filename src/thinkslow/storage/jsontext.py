"""JSON of settings that may be without bound.

Python writes an infinite number as `Infinity`, which is no JSON: other readers refuse the file.
"""

import json
import re
from typing import Any

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
