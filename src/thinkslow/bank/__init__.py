"""The decision bank: moments of play, what each action is worth there by play, and how arms choose.

Playing whole episodes says whether an arm pays, slowly: two arms soon see different frames. A bank
keeps moments instead, each with the true value of every action, found by playing out. The effect
of any arm on a single decision is then a sum over actions, without further play.
"""

from thinkslow.bank.fill import Plan, fill
from thinkslow.bank.judge import Choices, judge
from thinkslow.bank.stored import Bank, Moments, read
from thinkslow.bank.summary import summarise

__all__ = ["Bank", "Choices", "Moments", "Plan", "fill", "judge", "read", "summarise"]
