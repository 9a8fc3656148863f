"""How much better an agent's beliefs could be, and why they are worse.

Three gaps are measured in nats at moments of the base agent's play: between the encoder's belief
and the best belief of its family (amortisation), between that and the exact belief (approximation),
and to the best belief that also knows the later frames (conditioning). Each is measured before and
after refinement, together with the prediction of the next frame, which a belief that over-fits the
present frame does not improve.
"""

from thinkslow.gap.measure import Plan, measure
from thinkslow.gap.stored import read
from thinkslow.gap.summary import summarise

__all__ = ["Plan", "measure", "read", "summarise"]
