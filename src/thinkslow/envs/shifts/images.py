"""Shifts of every image: noise, covers, light, colours and blur."""

import abc

import numpy as np
from PIL import Image, ImageFilter

from thinkslow.envs.shifts.shift import Seen, Shift

HELD = 10
"""Number of decisions for which an occlusion stays at one place."""


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
