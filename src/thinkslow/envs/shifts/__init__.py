"""Shifts: graded changes of the environment that training did not have.

A shift has a name, a version and a severity from 0 to 5; 0 is the unchanged environment, bit for
bit. Its effect in an episode follows from the episode's seed and the actions, so all arms with one
seed meet the same shift, and an episode can be played again. A changed shift gets another version.

Image shifts apply to every image. Lost or late frames affect the whole observation.
"""

from collections.abc import Mapping
from typing import Any

from thinkslow.envs.families import miniworld
from thinkslow.envs.shifts.frames import (
    Delayed,
    DelayedRandom,
    Dropped,
    DroppedBursts,
    DroppedBurstsSilent,
    DroppedBurstsSilentColoured,
    DroppedBurstsSilentNoise,
    DroppedSilent,
)
from thinkslow.envs.shifts.images import (
    Blur,
    Brightness,
    Colour,
    ColouredOcclusion,
    Contrast,
    Noise,
    Occlusion,
)
from thinkslow.envs.shifts.shift import Shift
from thinkslow.envs.shifts.worlds import Rooms, Sticky, Textures
from thinkslow.registry import nearest
from thinkslow.spaces import Space

SEVERITIES = range(6)

SHIFTS: dict[str, type[Shift]] = {
    kind.name: kind
    for kind in (
        Noise,
        Occlusion,
        ColouredOcclusion,
        Dropped,
        DroppedSilent,
        DroppedBursts,
        DroppedBurstsSilent,
        DroppedBurstsSilentColoured,
        DroppedBurstsSilentNoise,
        Delayed,
        DelayedRandom,
        Brightness,
        Contrast,
        Colour,
        Blur,
        Textures,
        Rooms,
        Sticky,
    )
}


def shifts(text: str, observations: Mapping[str, Space], world: Any = None) -> list[Shift]:
    """The shifts of `name:severity`, several joined by commas, in the order in which they act.

    The version may be given, `noise-v1:3`. Severity 0 is no shift.

    **Errors:** `ValueError` for an unknown name, version or severity, an image shift without an
    image, or a shift of rooms if `world` has no method to change them.

    >>> [type(one).__name__ for one in shifts("dropped:3,sticky:0", {})]
    ['Dropped']
    """
    images = tuple(name for name, space in observations.items() if space.is_image)
    out: list[Shift] = []
    for kind, level in kinds(text):
        if kind.pictured and not images:
            raise ValueError(
                f"The shift {kind.name} changes images. This environment shows no image, only "
                f"{', '.join(observations)}."
            )
        if kind.changes and not _can(world, kind.changes):
            raise ValueError(
                f"The shift {kind.name} changes the rooms of thinkslow/…{_OTHERS[kind.name]}. Give "
                f"your environment a method {_METHODS[kind.changes]}."
            )
        if level:
            out.append(kind(level, images))
    names = [*observations, *(name for one in out for name in one.adds)]
    if again := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"`shift` must add only what is not there yet; {', '.join(again)} is there already. "
            "Give one shift that adds it."
        )
    return out


def kinds(text: str) -> list[tuple[type[Shift], int]]:
    """The kinds and severities of a text such as `dropped:3,sticky:1`.

    **Errors:** `ValueError` for an unknown name, with the nearest, a version or a severity.

    >>> [(kind.name, level) for kind, level in kinds("dropped:3,noise-v1:1")]
    [('dropped', 3), ('noise', 1)]
    """
    out = []
    for part in (part.strip() for part in text.split(",")):
        given, colon, level = part.partition(":")
        name, dash, version = given.rpartition("-v")
        name = name if dash and version.isdecimal() else given
        if name not in SHIFTS:
            raise ValueError(f"There is no shift {given!r}{nearest(name, SHIFTS)}")
        kind = SHIFTS[name]
        if name != given and int(version) != kind.version:
            raise ValueError(f"The shift {name} has version {kind.version} here; got {given}.")
        if not colon or not level.isdecimal() or int(level) not in SEVERITIES:
            raise ValueError(f"`shift` must be NAME:SEVERITY, severity 0 to 5; got {part!r}.")
        out.append((kind, int(level)))
    return out


_METHODS = {"cover": "`cover(rng, count)`", "resize": "`resize(factor)`"}
_OTHERS = {
    "textures": " and of MiniWorld-…",
    "rooms": " (those of MiniWorld-… have arguments of their own for it: `options`)",
}


def _can(world: Any, method: str) -> bool:
    """Whether a world has the method to be changed."""
    return callable(getattr(world, method, None)) or (method == "cover" and miniworld.is_one(world))


def lateness(text: str) -> int:
    """How many decisions late an observation may come under the shifts of a text.

    Args:
        text: as `kinds` takes it; empty for no shift.

    **Errors:** those of `kinds`.

    >>> lateness("delayed:2,noise:1"), lateness("dropped:3"), lateness("")
    (2, 0, 0)
    """
    found = kinds(text) if text else []
    late = [kind.doses[level - 1] for kind, level in found if level and issubclass(kind, Delayed)]
    return int(sum(late))
