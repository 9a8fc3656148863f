"""The settings of a measurement of gaps, in Python and as the flags of `thinkslow gap`."""

import dataclasses
import math

from thinkslow import settings
from thinkslow.settings import setting

STEP = 8
"""Factor between two sizes of the importance-weighted bound: 1, 8, 64, and so on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a measurement.

    **Errors:** `ValueError` for a number that is out of range.
    """

    episodes: int = setting(8, least=1)
    """Play N episodes of each agent; intervals are over episodes."""
    moments: int = setting(10, least=1)
    """Measure N moments of each episode, evenly spread."""
    lag: int = setting(5, least=1)
    """Use N later frames for the conditioning gap."""
    samples: int = setting(4096, least=1)
    """Draw up to N samples for the importance-weighted bound, a power of 8."""
    sweeps: int = setting(3, least=1)
    """Search the best belief in N sweeps through all factors, from every start."""
    restarts: int = setting(1, least=0)
    """Also search from N random beliefs, besides the encoder's belief and the prior."""
    beta: float | None = None
    """Weight the KL from the prior by this number; by default as in training. With 1 the bound is
    a bound on the log-evidence of the frame."""
    seed: int = settings.seed()
    """Take environment seeds and random numbers from this seed."""
    batch: int = setting(8, least=1)
    """Play N environments in parallel, one process each."""
    max_decisions: int | None = setting(None, least=1)
    """Cut an episode after N decisions."""

    def __post_init__(self) -> None:
        settings.check(self)
        if self.sizes[-1] != self.samples:
            raise ValueError(
                f"`samples` must be a power of {STEP}, such as 4096; got {self.samples}."
            )
        if self.beta is not None and not 0 < self.beta < math.inf:
            raise ValueError(f"`beta` must be above 0; got {self.beta}.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of the importance-weighted bound: 1, 8, 64, and so on."""
        return tuple(STEP**n for n in range(int(math.log(self.samples, STEP) + 1e-9) + 1))
