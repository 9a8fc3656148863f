"""Our own tasks: their names and twins, without importing a simulator."""

import dataclasses
from typing import Literal

from thinkslow.envs.families import family

COLLECT = "thinkslow/CollectGoodObjects"
WITHDRAWN = "TopDown"
"""A view that agents do not learn from, so it is not used as a twin (docs/environments.md says
why).
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """One of our tasks."""

    name: str
    """Its id, without the version."""
    entry_point: str
    observed: Literal["partly", "wholly"]
    """How much of the world's state one observation tells."""
    twin_of: str | None = None
    """The name of the task that differs from it only in its observations. With the same seed and
    actions, both have the same world, rewards and random numbers.
    """


def _collect(view: str, observed: Literal["partly", "wholly"]) -> Task:
    module = "views" if view else "collect"
    entry_point = f"thinkslow.envs.tasks.{module}:CollectGoodObjects{view}"
    twin = COLLECT if view and view != WITHDRAWN else None
    return Task(f"{COLLECT}{view}", entry_point, observed, twin)


TASKS = (
    _collect("", "partly"),
    _collect("TopDown", "wholly"),
    _collect("Informed", "wholly"),
    _collect("Panorama", "partly"),
    _collect("Map", "wholly"),
)
VERSIONS = {"v0": {}, "v1": {"counter": True}}
"""The versions of each task: in version 1 boxes reappear by a counter."""


def register() -> None:
    """Register them with Gymnasium."""
    for task in TASKS:
        for version, given in VERSIONS.items():
            family.register(f"{task.name}-{version}", task.entry_point, **given)
