"""Twins: a partly and a fully observed version of one task, as data that studies can pair.

For one seed and the same actions both have the same world, rewards and random numbers; only the
observations differ. Some twins have their own ids, others are options of one id.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from thinkslow.envs.families import popgym_arcade
from thinkslow.envs.requirements import family_of
from thinkslow.envs.tasks import COLLECT, TASKS, VERSIONS

Observed = Literal["partly", "wholly"]


@dataclasses.dataclass(frozen=True)
class Twin:
    """One side of a pair, as `make` takes it: `make(twin.id, options=twin.options)`."""

    id: str
    options: Mapping[str, Any]
    observed: Observed
    """How much of the world's state one observation tells."""


def twin_of(id: str, options: Mapping[str, Any] | None = None) -> Twin | None:
    """The twin of a task: wholly observed if `id` is partly observed, and vice versa.

    Args:
        id: the id of an environment; nothing is imported.
        options: arguments of its constructor; one of them may choose the view.

    Returns None if no twin is known.

    >>> twin_of("MiniGrid-DoorKey-8x8-v0", {"view": "full"})
    Twin(id='MiniGrid-DoorKey-8x8-v0', options={'view': 'partial'}, observed='partly')
    >>> twin_of("thinkslow/CollectGoodObjects-v1").id
    'thinkslow/CollectGoodObjectsInformed-v1'
    """
    given = dict(options or {})
    name, _, version = id.rpartition("-")
    if version in VERSIONS and (task := {one.name: one for one in TASKS}.get(name)):
        if task.twin_of is None and name != COLLECT:
            return None
        other = task.twin_of or f"{COLLECT}Informed"
        observed: Observed = "partly" if task.twin_of else "wholly"
        # Only a panorama has a field.
        kept = {key: value for key, value in given.items() if key != "field"}
        return Twin(f"{other}-{version}", kept, observed)
    family = family_of(id)
    if family is popgym_arcade.FAMILY:
        partial = name.endswith(popgym_arcade.PARTIAL)
        other = name.removesuffix(popgym_arcade.PARTIAL) + popgym_arcade.PARTIAL * (not partial)
        return Twin(f"{other}-{version}", given, "wholly" if partial else "partly")
    if family is None or family.twins is None:
        return None
    option, partly, wholly = family.twins
    seen = given.get(option, partly)
    if seen not in (partly, wholly):
        return None
    whole = seen == partly
    return Twin(id, given | {option: wholly if whole else partly}, "wholly" if whole else "partly")
