"""Paired evaluation: `evaluate` plays agents under paired seeds; `read` and `summarise` return the
records and the summary of an evaluation on disk.

Parts are imported when they are used: `thinkslow report` and the table need no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkslow.evaluation.blocks import Failing
    from thinkslow.evaluation.calibrate import calibrated
    from thinkslow.evaluation.protocol import evaluate
    from thinkslow.evaluation.records import Episode, read
    from thinkslow.evaluation.result import Evaluation
    from thinkslow.evaluation.summary import summarise
    from thinkslow.storage.headers import Occupied

_HOMES = {
    "Episode": "records",
    "Evaluation": "result",
    "Failing": "blocks",
    "Occupied": "result",
    "calibrated": "calibrate",
    "evaluate": "protocol",
    "read": "records",
    "summarise": "summary",
}

__all__ = [
    "Episode",
    "Evaluation",
    "Failing",
    "Occupied",
    "calibrated",
    "evaluate",
    "read",
    "summarise",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"thinkslow.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'thinkslow.evaluation' has no attribute {name!r}")
