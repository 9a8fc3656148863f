"""How much better an agent's beliefs could be, and why they are worse.

Three gaps are measured in nats at moments of the base agent's play: between the encoder's belief
and the best belief of its family (amortisation), between that and the exact belief (approximation),
and to the best belief that also knows the later frames (conditioning). Each is measured before and
after refinement, together with the prediction of the next frame, which a belief that over-fits the
present frame does not improve.

Modules are loaded on first use: the command line reads `Plan` without JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkslow.gap.measuring import measure
    from thinkslow.gap.plan import Plan
    from thinkslow.gap.stored import read
    from thinkslow.gap.summary import summarise

_HOMES = {"measure": "measuring", "Plan": "plan", "read": "stored", "summarise": "summary"}

__all__ = ["Plan", "measure", "read", "summarise"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"thinkslow.gap.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'thinkslow.gap' has no attribute {name!r}")
