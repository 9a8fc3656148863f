"""Give trained world-model agents time to think, and measure whether it helps.

Public names and modules are imported when they are first used, because the processes of the
environments import this package and must not load JAX.
"""

import sys

TYPE_CHECKING = False  # as type checkers know it; to import `typing` takes as long as all else here
if TYPE_CHECKING:
    from typing import Any

    from thinkslow.agent.abstract import About, AbstractAgent
    from thinkslow.agent.agent import Agent
    from thinkslow.agent.arms.arm import Arm, arm
    from thinkslow.agent.checks import Check
    from thinkslow.agent.choices import Choice
    from thinkslow.agent.deadline import Timed
    from thinkslow.agent.decision import Thought
    from thinkslow.agent.gates import Gated, GateScore
    from thinkslow.agent.inputs import Carry
    from thinkslow.agent.thinking import Thinking
    from thinkslow.distributions import Belief, Categorical, Gaussian
    from thinkslow.evaluation.calibrate import calibrated
    from thinkslow.evaluation.protocol import evaluate
    from thinkslow.evaluation.result import Evaluation
    from thinkslow.evaluation.video import record
    from thinkslow.evaluation.watching.session import Watched, watch
    from thinkslow.loading import load
    from thinkslow.needs import Need, unmet
    from thinkslow.objectives import ImaginedTerm, PresentTerm, lookahead
    from thinkslow.readouts import Readout
    from thinkslow.refinement import Gradient, Mirror, Refined, Status, Update, refine
    from thinkslow.registry import register
    from thinkslow.saved.folder import save
    from thinkslow.worldmodel import State, WorldModel, detached, imagine, perceive
else:
    Any = object

_HOMES = {
    "agent.abstract": ("About", "AbstractAgent"),
    "agent.agent": ("Agent",),
    "agent.checks": ("Check",),
    "agent.choices": ("Choice",),
    "agent.deadline": ("Timed",),
    "agent.decision": ("Thought",),
    "agent.inputs": ("Carry",),
    "agent.arms.arm": ("Arm", "arm"),
    "agent.gates": ("GateScore", "Gated"),
    "agent.thinking": ("Thinking",),
    "saved.folder": ("save",),
    "distributions": ("Belief", "Categorical", "Gaussian"),
    "evaluation.calibrate": ("calibrated",),
    "evaluation.protocol": ("evaluate",),
    "evaluation.result": ("Evaluation",),
    "evaluation.video": ("record",),
    "evaluation.watching.session": ("Watched", "watch"),
    "loading": ("load",),
    "needs": ("Need", "unmet"),
    "objectives": ("ImaginedTerm", "PresentTerm", "lookahead"),
    "readouts": ("Readout",),
    "refinement": ("Gradient", "Mirror", "Refined", "Status", "Update", "refine"),
    "registry": ("register",),
    "worldmodel": ("State", "WorldModel", "detached", "imagine", "perceive"),
}

__all__ = [
    "About",
    "AbstractAgent",
    "Agent",
    "Arm",
    "Belief",
    "Carry",
    "Categorical",
    "Check",
    "Choice",
    "Evaluation",
    "GateScore",
    "Gated",
    "Gaussian",
    "Gradient",
    "ImaginedTerm",
    "Mirror",
    "Need",
    "PresentTerm",
    "Readout",
    "Refined",
    "State",
    "Status",
    "Thinking",
    "Thought",
    "Timed",
    "Update",
    "Watched",
    "WorldModel",
    "arm",
    "calibrated",
    "detached",
    "evaluate",
    "imagine",
    "load",
    "lookahead",
    "perceive",
    "record",
    "refine",
    "register",
    "save",
    "unmet",
    "watch",
]


def __getattr__(name: str) -> Any:
    import importlib.util

    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"thinkslow.{home}"), name)
    if "." not in name and importlib.util.find_spec(f"thinkslow.{name}"):
        return importlib.import_module(f"thinkslow.{name}")
    message = f"module 'thinkslow' has no attribute {name!r}"
    raise AttributeError(message, name=name, obj=sys.modules[__name__])  # for "Did you mean"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
