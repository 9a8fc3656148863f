"""Give trained world-model agents time to think, and measure whether it helps.

The public names, loaded when first asked for: the processes that run environments import this
package and must not load JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent
    from thinkslow.agent.deadline import Timed
    from thinkslow.agent.decision import Carry, Thought
    from thinkslow.agent.gates import Gated, calibrate
    from thinkslow.agent.presets import ARMS, Arm
    from thinkslow.agent.thinking import Thinking
    from thinkslow.distributions import Categorical, Gaussian
    from thinkslow.dreamer.saved import load, save
    from thinkslow.objectives import TERMS, lookahead
    from thinkslow.refinement import Gradient, Mirror, Refined
    from thinkslow.worldmodel import State, WorldModel, detached, imagine

_HOMES = {
    "agent.agent": ("Agent",),
    "agent.presets": ("ARMS", "Arm"),
    "agent.deadline": ("Timed",),
    "agent.decision": ("Carry", "Thought"),
    "distributions": ("Categorical", "Gaussian"),
    "dreamer.saved": ("load", "save"),
    "objectives": ("TERMS", "lookahead"),
    "agent.gates": ("Gated", "calibrate"),
    "refinement": ("Gradient", "Mirror", "Refined"),
    "agent.thinking": ("Thinking",),
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
