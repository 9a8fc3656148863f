"""Studies: hypotheses are declared in advance, played on any machine, and answered with
verdicts.
"""

from thinkslow.study.parsing import planned, read, shipped
from thinkslow.study.plan import Misplanned, Plan
from thinkslow.study.run import Another, finish, run

__all__ = ["Another", "Misplanned", "Plan", "finish", "planned", "read", "run", "shipped"]
