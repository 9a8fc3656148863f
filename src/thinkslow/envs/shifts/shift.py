"""What a shift is: a graded change of an environment, in an episode with a seed."""

import abc
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from thinkslow.spaces import Space

Seen = dict[str, np.ndarray]


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
