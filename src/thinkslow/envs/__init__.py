"""Environments: made by id, played side by side, the same for every family.

Importing this registers the project's own tasks with Gymnasium and loads no simulator.
"""

import gymnasium

from thinkslow.envs.failures import Failed, Failure, Mismatch, Nonfinite
from thinkslow.envs.make import arguments, make
from thinkslow.envs.requirements import Unavailable
from thinkslow.envs.vector import Step, VectorEnv

__all__ = [
    "Failed",
    "Failure",
    "Mismatch",
    "Nonfinite",
    "Step",
    "Unavailable",
    "VectorEnv",
    "arguments",
    "make",
]

for _name in ("CollectGoodObjects", "CollectGoodObjectsTopDown"):
    gymnasium.register(
        f"thinkslow/{_name}-v0",
        f"thinkslow.envs.tasks.collect:{_name}",
        disable_env_checker=True,
        order_enforce=False,
    )
