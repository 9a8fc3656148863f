"""Environments: made by id and played in parallel, in the same way for every family.

Importing this module registers the project's own tasks with Gymnasium and loads no simulator.
"""

from thinkslow.consent import trust
from thinkslow.envs.descriptions import arguments
from thinkslow.envs.failures import Failed, Failure, Mismatch, Nonfinite
from thinkslow.envs.make import make
from thinkslow.envs.requirements import Unavailable
from thinkslow.envs.shifts import lateness
from thinkslow.envs.snapshots import Snapshot
from thinkslow.envs.steps import Step
from thinkslow.envs.tasks import register
from thinkslow.envs.twins import Twin, twin_of
from thinkslow.envs.vector import VectorEnv

__all__ = [
    "Failed",
    "Failure",
    "Mismatch",
    "Nonfinite",
    "Snapshot",
    "Step",
    "Twin",
    "Unavailable",
    "VectorEnv",
    "arguments",
    "lateness",
    "make",
    "trust",
    "twin_of",
]

register()
