"""Gates: when to think."""

from thinkslow.agent.gates.gated import Gated
from thinkslow.agent.gates.scores import (
    BaseDecision,
    Chance,
    Disagreement,
    GateScore,
    Improvement,
    Novelty,
    PolicyInformation,
    PosteriorEntropy,
    Sensitivity,
    Surprise,
    TwoStage,
    ValueOfComputation,
)

__all__ = [
    "BaseDecision",
    "Chance",
    "Disagreement",
    "GateScore",
    "Gated",
    "Improvement",
    "Novelty",
    "PolicyInformation",
    "PosteriorEntropy",
    "Sensitivity",
    "Surprise",
    "TwoStage",
    "ValueOfComputation",
]
