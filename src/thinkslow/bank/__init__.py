"""The decision bank: moments of play, the value of every action there, and the choices of arms.

Whole episodes compare arms slowly, because two arms soon see different frames. A bank instead keeps
moments with the value of every action, measured by playing it out. The effect of any arm on a
single decision is then a sum over actions, without further play.
"""

from thinkslow.bank.fill import Plan, fill
from thinkslow.bank.judge import Choices, judge
from thinkslow.bank.stored import Bank, Moments, read
from thinkslow.bank.summary import summarise

__all__ = ["Bank", "Choices", "Moments", "Plan", "fill", "judge", "read", "summarise"]
