"""Decision-time refinement of a latent belief.

A world model gives a belief about the present state in one encoder pass. This module improves
that belief by a few gradient steps on an objective of the belief, with every parameter frozen.
Nothing here knows the model: a belief is a pytree of floating arrays with a `kl`, and an objective
is any differentiable scalar function of it.

Each step is bounded by the KL by which it moves the belief, because gradient norms differ 50-fold
between states: a step size that works in one state does nothing, or wrecks the belief, in another.
"""

from thinkslow.distributions import Objective
from thinkslow.refinement.anytime import Anytime
from thinkslow.refinement.coordinate import coordinate
from thinkslow.refinement.loop import refine
from thinkslow.refinement.result import Refined, Status
from thinkslow.refinement.step import Descent
from thinkslow.refinement.updates import Gradient, Langevin, Mirror, Random, Update, adam

__all__ = [
    "Anytime",
    "Descent",
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
