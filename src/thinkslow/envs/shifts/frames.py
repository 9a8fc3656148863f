"""Frames that are lost or late, as whole observations.

Two further observations report them, unless the shift is silent: `missing`, 1 for a lost frame, and
`age`, the age of the shown frame in decisions. The first observation of an episode is never lost or
late.
"""

from typing import ClassVar

import numpy as np

from thinkslow.envs.shifts.shift import Seen, Shift
from thinkslow.spaces import Space

BURST = 5
"""Number of frames that are lost together."""


class Dropped(Shift):
    """Lost frames, independent of each other, shown as black. The dose is their share."""

    name = "dropped"
    doses = (0.1, 0.25, 0.5, 0.75, 0.9)
    silent: ClassVar[bool] = False

    @property
    def adds(self) -> dict[str, Space]:
        return {} if self.silent else {"missing": Space((), "float32")}

    def see(self, seen: Seen) -> Seen:
        missing = self.time > 0 and self.lost()
        self.time += 1
        out = {name: self.blank(name, array) for name, array in seen.items()} if missing else seen
        return out if self.silent else out | {"missing": np.asarray(missing, np.float32)}

    def blank(self, name: str, array: np.ndarray) -> np.ndarray:
        """What a lost frame shows in the place of this observation: zeros, or a filled image."""
        return self.fill(array) if name in self.images else np.zeros_like(array)

    def fill(self, image: np.ndarray) -> np.ndarray:
        """What a lost frame shows in the place of this image."""
        return np.zeros_like(image)

    def lost(self) -> bool:
        """Whether this frame is lost."""
        return bool(self.rng.random() < self.dose)


class DroppedBursts(Dropped):
    """Lost frames, five in a row; the dose is their share."""

    name = "dropped-bursts"

    def begin(self, seed: int) -> None:
        super().begin(seed)
        self.left = 0

    def lost(self) -> bool:
        # The rate of bursts is such that the share of lost frames is the dose.
        if self.left == 0 and self.rng.random() < self._begins:
            self.left = BURST
        lost = self.left > 0
        self.left -= lost
        return lost

    @property
    def _begins(self) -> float:
        between = BURST * (1 - self.dose) / self.dose
        return 1 / (1 + between)


class DroppedSilent(Dropped):
    """`dropped` without the flag `missing`."""

    name, silent = "dropped-silent", True


class DroppedBurstsSilent(DroppedBursts):
    """`dropped-bursts` without the flag `missing`."""

    name, silent = "dropped-bursts-silent", True


class DroppedBurstsSilentColoured(DroppedBurstsSilent):
    """The same, where lost images show one colour, another one in each episode."""

    name, pictured = "dropped-bursts-silent-coloured", True

    def begin(self, seed: int) -> None:
        super().begin(seed)
        self.colour = self.rng.integers(0, 256, 3)

    def fill(self, image: np.ndarray) -> np.ndarray:
        return np.full_like(image, np.resize(self.colour, image.shape[-1]))


class DroppedBurstsSilentNoise(DroppedBurstsSilent):
    """The same, where lost images show noise, uniform on every pixel."""

    name, pictured = "dropped-bursts-silent-noise", True

    def fill(self, image: np.ndarray) -> np.ndarray:
        return self.rng.integers(0, 256, image.shape, image.dtype)


class Delayed(Shift):
    """Late frames; the dose is the delay in decisions."""

    name = "delayed"
    doses = (1, 2, 3, 4, 5)

    @property
    def adds(self) -> dict[str, Space]:
        return {"age": Space((), "float32")}

    def begin(self, seed: int) -> None:
        super().begin(seed)
        self.frames: list[Seen] = []
        self.comes: list[int] = []

    def see(self, seen: Seen) -> Seen:
        self.frames.append({name: array.copy() for name, array in seen.items()})
        self.comes.append(self.time + (self.lateness() if self.time else 0))
        newest = max(index for index, comes in enumerate(self.comes) if comes <= self.time)
        age = len(self.frames) - 1 - newest
        # A frame older than the newest one shown is never shown again.
        self.frames, self.comes = self.frames[newest:], self.comes[newest:]
        self.time += 1
        return {**self.frames[0], "age": np.asarray(age, np.float32)}

    def lateness(self) -> int:
        """Number of decisions until the present frame arrives."""
        return int(self.dose)


class DelayedRandom(Delayed):
    """Frames that are late by up to the dose in decisions; the newest one is shown."""

    name = "delayed-random"

    def lateness(self) -> int:
        return int(self.rng.integers(int(self.dose) + 1))
