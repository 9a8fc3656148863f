"""Decision-time refinement of a latent belief.

A world model gives a belief about the present state in one encoder pass. This module improves
that belief, with every parameter frozen, by a few descent steps on an objective of the belief.
Nothing here knows the model: a belief is a pytree of floating arrays with a `kl`, an objective
any differentiable scalar function of it.

How far a step goes is bounded by the KL it moves the belief, because gradient norms differ
50-fold between states: a step length that suits one is nothing or ruin for another.
"""

from thinkslow.refinement.anytime import Anytime
from thinkslow.refinement.coordinate import coordinate
from thinkslow.refinement.loop import refine
from thinkslow.refinement.step import Refined
from thinkslow.refinement.updates import Direction, Gradient, Langevin, Mirror, Random

__all__ = [
    "Anytime",
    "Direction",
    "Gradient",
    "Langevin",
    "Mirror",
    "Random",
    "Refined",
    "coordinate",
    "refine",
]
