"""The decision bank: moments of play, the value of every action there, and the choices of arms.

Whole episodes compare arms slowly, because two arms soon see different frames. A bank instead keeps
moments with the value of every action, measured by playing it out. The effect of any arm on a
single decision is then a sum over actions, without further play.

Modules are loaded on first use: the command line reads `Plan` without JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkslow.bank.filling import fill, filled
    from thinkslow.bank.judging import Choices, judge
    from thinkslow.bank.plan import Plan
    from thinkslow.bank.stored import Bank, Moments, read
    from thinkslow.bank.summary import summarise

_HOMES = {
    "fill": "filling",
    "filled": "filling",
    "Choices": "judging",
    "judge": "judging",
    "Plan": "plan",
    "Bank": "stored",
    "Moments": "stored",
    "read": "stored",
    "summarise": "summary",
}

__all__ = ["Bank", "Choices", "Moments", "Plan", "fill", "filled", "judge", "read", "summarise"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"thinkslow.bank.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'thinkslow.bank' has no attribute {name!r}")
