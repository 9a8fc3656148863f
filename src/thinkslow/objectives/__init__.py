"""Terms that refinement minimises, in nats, over imagined futures and the present observation."""

from thinkslow.distributions import Objective
from thinkslow.objectives.imagined import ELBO, PIG, SIG, Ambiguity, Entropy, ObservedPIG
from thinkslow.objectives.information import parameter_information_gain, state_information_gain
from thinkslow.objectives.lookahead import Terms, lookahead
from thinkslow.objectives.present import L2, Anchor, Evidence, Prior
from thinkslow.objectives.term import ImaginedStep, ImaginedTerm, Present, PresentTerm, Term

__all__ = [
    "ELBO",
    "L2",
    "PIG",
    "SIG",
    "Ambiguity",
    "Anchor",
    "Entropy",
    "Evidence",
    "ImaginedStep",
    "ImaginedTerm",
    "Objective",
    "ObservedPIG",
    "Present",
    "PresentTerm",
    "Prior",
    "Term",
    "Terms",
    "lookahead",
    "parameter_information_gain",
    "state_information_gain",
]
