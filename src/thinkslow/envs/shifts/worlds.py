"""Shifts of the simulation itself, and of the actions that it plays."""

from collections.abc import Mapping
from typing import Any

from thinkslow.envs.families import miniworld
from thinkslow.envs.shifts.shift import Shift


class Textures(Shift):
    """Other walls and floors for an episode; the dose is the number of surfaces, of five."""

    name = "textures"
    doses = (1, 2, 3, 4, 5)
    changes = "cover"

    def change_world(self, world: Any) -> None:
        way = getattr(world, "cover", None)
        if way is None:
            miniworld.cover(world, self.rng, int(self.dose))
        else:
            way(self.rng, int(self.dose))


class Rooms(Shift):
    """Rooms that are larger or smaller for an episode; the dose is the change of the factor."""

    name = "rooms"
    doses = (0.1, 0.2, 0.3, 0.4, 0.5)
    changes = "resize"

    def change_world(self, world: Any) -> None:
        factor = 1 + self.dose
        world.resize(factor if self.rng.random() < 0.5 else 1 / factor)


class Sticky(Shift):
    """The previous action replaces the chosen one; the dose is the probability."""

    name = "sticky"
    doses = (0.1, 0.25, 0.4, 0.5, 0.6)

    def begin(self, seed: int) -> None:
        super().begin(seed)
        self.last: Mapping[str, Any] | None = None

    def act(self, action: Mapping[str, Any]) -> Mapping[str, Any]:
        stays = self.rng.random() < self.dose
        if self.last is None or not stays:
            self.last = action
        return self.last
