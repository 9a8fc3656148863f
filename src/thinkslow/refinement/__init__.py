"""Decision-time refinement of a latent belief.

A world model gives a belief about the present state in one encoder pass. This module improves
that belief, with every parameter frozen, by a few descent steps on an objective of the belief.
Nothing here knows the model: a belief is a pytree of floating arrays with a `kl`, an objective
any differentiable scalar function of it.

The length of a step is bounded by the KL that it moves the belief, because gradient norms differ
50-fold between states: a step size that works in one state does nothing, or wrecks the belief, in
another.
"""

from thinkslow.refinement.anytime import Anytime
from thinkslow.refinement.coordinate import coordinate
from thinkslow.refinement.loop import refine
from thinkslow.refinement.result import Refined, Status
from thinkslow.refinement.step import Objective
from thinkslow.refinement.updates import Gradient, Langevin, Mirror, Random, Update, adam

__all__ = [
    "Anytime",
    "Gradient",
    "Langevin",
    "Mirror",
    "Objective",
    "Random",
    "Refined",
    "Status",
    "Update",
    "adam",
    "coordinate",
    "refine",
]
