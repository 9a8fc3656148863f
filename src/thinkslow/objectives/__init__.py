"""What refinement descends: terms in nats over imagined futures and the present observation."""

from thinkslow.objectives.information import parameter_information_gain, state_information_gain
from thinkslow.objectives.lookahead import Objective, evidence, lookahead
from thinkslow.objectives.terms import DIAGNOSTICS, IMAGINED, PRESENT, TERMS, check_terms

__all__ = [
    "DIAGNOSTICS",
    "IMAGINED",
    "PRESENT",
    "TERMS",
    "Objective",
    "check_terms",
    "evidence",
    "lookahead",
    "parameter_information_gain",
    "state_information_gain",
]
