"""Give trained world-model agents time to think, and measure whether it helps.

The public names, loaded when first asked for: the processes that run environments import this
package and must not load JAX. The functions `refine` and `evaluate` live in the modules of the
same names: `from thinkslow.refine import refine`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkslow.agent import Agent
    from thinkslow.arms import ARMS, Arm
    from thinkslow.deadline import Timed
    from thinkslow.decision import Carry, Thought
    from thinkslow.distributions import Categorical, Gaussian
    from thinkslow.dreamer.checkpoint import load, save
    from thinkslow.gates import Gated, calibrate
    from thinkslow.objectives import TERMS, lookahead
    from thinkslow.refine import Gradient, Mirror, Refined
    from thinkslow.thinking import Thinking
    from thinkslow.worldmodel import State, WorldModel, detached, imagine

_HOMES = {
    "agent": ("Agent",),
    "arms": ("ARMS", "Arm"),
    "deadline": ("Timed",),
    "decision": ("Carry", "Thought"),
    "distributions": ("Categorical", "Gaussian"),
    "dreamer.checkpoint": ("load", "save"),
    "objectives": ("TERMS", "lookahead"),
    "gates": ("Gated", "calibrate"),
    "refine": ("Gradient", "Mirror", "Refined"),
    "thinking": ("Thinking",),
    "worldmodel": ("State", "WorldModel", "detached", "imagine"),
}

__all__ = [
    "ARMS",
    "TERMS",
    "Agent",
    "Arm",
    "Carry",
    "Categorical",
    "Gated",
    "Gaussian",
    "Gradient",
    "Mirror",
    "Refined",
    "State",
    "Thinking",
    "Thought",
    "Timed",
    "WorldModel",
    "calibrate",
    "detached",
    "imagine",
    "load",
    "lookahead",
    "save",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"thinkslow.{home}"), name)
    raise AttributeError(f"module 'thinkslow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
