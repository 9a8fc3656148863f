"""How far an agent's beliefs are from the best there are, and by what they fall short.

At moments of the base agent's play three gaps are measured, in nats: what the encoder loses to the
best belief of its family (amortisation), what that family loses to the exact belief
(approximation), and what is lost by not knowing the frames that follow (conditioning). Each is
taken before and after refinement, together with how well the next frame is predicted, which no
belief that is fitted to the present one can feign.
"""

from thinkslow.gap.measure import Plan, measure
from thinkslow.gap.stored import read
from thinkslow.gap.summary import summarise

__all__ = ["Plan", "measure", "read", "summarise"]
