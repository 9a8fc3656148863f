"""Shifts: graded changes of the environment that training did not have.

A shift has a name, a version and a severity from 0 to 5; 0 is the unchanged environment, bit for
bit. Its effect in an episode follows from the episode's seed and the actions, so all arms with one
seed meet the same shift, and an episode can be played again. A changed shift gets another version.

Image shifts apply to every image. Dropped or late frames affect the whole observation. Two further
observations report them, unless the shift is silent: `missing`, 1 for a lost frame, and `age`, the
age of the shown frame in decisions. The first observation of an episode is never lost or late.
"""

import abc
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageFilter

from thinkslow.envs.families import miniworld
from thinkslow.registry import nearest
from thinkslow.spaces import Space

Seen = dict[str, np.ndarray]
SEVERITIES = range(6)
BURST = 5
"""Number of frames that are lost together."""
HELD = 10
"""Number of decisions for which an occlusion stays at one place."""


class Shift(abc.ABC):
    """One kind of change at one severity; `doses` has a value for each of severities 1 to 5."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    doses: ClassVar[tuple[float, ...]]
    pictured: ClassVar[bool] = False
    """Whether it needs an image."""
    changes: ClassVar[str] = ""
    """The method of the world that it calls."""

    def __init__(self, severity: int, images: tuple[str, ...]):
        self.severity, self.images = severity, images
        self.dose = self.doses[severity - 1]

    @property
    def adds(self) -> dict[str, Space]:
        """Observations that it adds to the environment's own."""
        return {}

    def begin(self, seed: int) -> None:
        """Begin an episode with this seed."""
        self.rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), self.version])
        self.time = 0

    def change_world(self, world: Any) -> None:  # noqa: B027 - most leave it alone
        """Change the simulation, before its next episode begins."""

    def act(self, action: Mapping[str, Any]) -> Mapping[str, Any]:
        """The action that is played instead of the chosen one."""
        return action

    def see(self, seen: Seen) -> Seen:
        """The observation that is shown instead of the real one."""
        return seen


class _Pictures(Shift):
    """Changes each image separately."""

    pictured = True

    def see(self, seen: Seen) -> Seen:
        changed = {name: self.change(seen[name].astype(np.float32)) for name in self.images}
        self.time += 1
        return seen | {
            name: np.clip(np.rint(image), 0, 255).astype(np.uint8)
            for name, image in changed.items()
        }

    @abc.abstractmethod
    def change(self, image: np.ndarray) -> np.ndarray:
        """An image in [0, 255]."""


class Noise(_Pictures):
    """Gaussian noise on every pixel; the dose is its deviation."""

    name = "noise"
    doses = (8, 16, 32, 48, 64)

    def change(self, image: np.ndarray) -> np.ndarray:
        return image + self.rng.normal(0.0, self.dose, image.shape)


class Occlusion(_Pictures):
    """A black square that moves every ten decisions; the dose is its share of the side."""

    name = "occlusion"
    doses = (0.2, 0.3, 0.4, 0.5, 0.6)

    def change(self, image: np.ndarray) -> np.ndarray:
        if self.time % HELD == 0:
            self.corner = self.rng.uniform(0.0, 1.0 - self.dose, 2)
        top, left = (
            int(share * side) for share, side in zip(self.corner, image.shape, strict=False)
        )
        height, width = (round(self.dose * side) for side in image.shape[:2])
        out = image.copy()
        out[top : top + height, left : left + width] = self.fill(image.shape[-1])
        return out

    def fill(self, channels: int) -> float | np.ndarray:
        """What the square shows."""
        return 0.0


class ColouredOcclusion(Occlusion):
    """The same in a plain colour, which changes with the place."""

    name = "occlusion-coloured"

    def fill(self, channels: int) -> float | np.ndarray:
        if self.time % HELD == 0:
            self.colour = self.rng.uniform(0.0, 255.0, channels)
        return self.colour


class Brightness(_Pictures):
    """Lighter or darker for an episode; the dose is the change of the factor."""

    name = "brightness"
    doses = (0.1, 0.2, 0.3, 0.45, 0.6)

    def begin(self, seed: int) -> None:
        super().begin(seed)
        self.factor = 1 + self.dose * self.rng.choice([-1.0, 1.0])

    def change(self, image: np.ndarray) -> np.ndarray:
        return image * self.factor


class Contrast(_Pictures):
    """Less contrast: pixels move to the mean of their image; the dose is the lost share."""

    name = "contrast"
    doses = (0.2, 0.4, 0.6, 0.7, 0.8)

    def change(self, image: np.ndarray) -> np.ndarray:
        return image.mean() + (1 - self.dose) * (image - image.mean())


class Colour(_Pictures):
    """Hues rotated for an episode, in either direction; the dose is in degrees."""

    name = "colour"
    doses = (15, 30, 60, 90, 120)

    def begin(self, seed: int) -> None:
        super().begin(seed)
        angle = np.radians(self.dose) * self.rng.choice([-1.0, 1.0])
        # A rotation of red, green and blue around grey (Rodrigues).
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        turned = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3
        self.turn = turned.astype(np.float32)

    def change(self, image: np.ndarray) -> np.ndarray:
        return image @ self.turn.T if image.shape[-1] == 3 else image


class Blur(_Pictures):
    """Gaussian blur; the dose is its deviation in pixels of 64."""

    name = "blur"
    doses = (0.5, 1.0, 1.5, 2.0, 3.0)

    def change(self, image: np.ndarray) -> np.ndarray:
        blurred = ImageFilter.GaussianBlur(self.dose * len(image) / 64)
        channels = [
            np.asarray(Image.fromarray(image[..., index].astype(np.uint8)).filter(blurred))
            for index in range(image.shape[-1])
        ]
        return np.stack(channels, -1).astype(np.float32)


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
    images = tuple(name for name, space in observations.items() if len(space.shape) == 3)
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
        text: `name:severity`, several joined by commas, such as `delayed:2,noise:1`.

    >>> lateness("delayed:2,noise:1"), lateness("dropped:3")
    (2, 0)
    """
    found = [part.strip().partition(":") for part in text.split(",") if part.strip()]
    late = [
        (SHIFTS[name], int(level))
        for name, _, level in ((a.rpartition("-v")[0] or a, b, c) for a, b, c in found)
        if issubclass(SHIFTS.get(name, Shift), Delayed) and level.isdecimal()
    ]
    return sum(int(kind.doses[level - 1]) for kind, level in late if level)
