"""Checks: which frames, and which parts of them, are used."""

from thinkslow.agent.checks.check import Check, Checked, Frame, Guard, Judgement, Verdict
from thinkslow.agent.checks.clean import Clean
from thinkslow.agent.checks.controls import (
    Masked,
    Median,
    Misplaced,
    Moments,
    RandomRejection,
    Wiser,
)
from thinkslow.agent.checks.robust import Covered, Robust

__all__ = [
    "Check",
    "Checked",
    "Clean",
    "Covered",
    "Frame",
    "Guard",
    "Judgement",
    "Masked",
    "Median",
    "Misplaced",
    "Moments",
    "RandomRejection",
    "Robust",
    "Verdict",
    "Wiser",
]
