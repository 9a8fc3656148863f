"""Small problems in which every belief is known exactly, and a world model for them.

They test the claims of the library. Beliefs of refinement, filters and encoders are compared with
the exact belief, and information gains with sums over all cases.
"""

from thinkslow.toy.exact import Information, filtered, information
from thinkslow.toy.model import Toy, exact, noisy, off_manifold
from thinkslow.toy.problem import Problem, family, hidden_markov, ring, simulate
from thinkslow.toy.rewarded import Rewarded, rewarded

__all__ = [
    "Information",
    "Problem",
    "Rewarded",
    "Toy",
    "exact",
    "family",
    "filtered",
    "hidden_markov",
    "information",
    "noisy",
    "off_manifold",
    "rewarded",
    "ring",
    "simulate",
]
