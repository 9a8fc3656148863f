"""The settings of a measurement of gaps, in Python and as the flags of `thinkslow gap`."""

import dataclasses
import math

STEP = 8
"""Factor between two sizes of the importance-weighted bound: 1, 8, 64, and so on."""
LEAST = {
    "episodes": 1, "moments": 1, "lag": 1, "samples": 1, "sweeps": 1, "restarts": 0, "batch": 1,
    "max_decisions": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a measurement.

    **Errors:** `ValueError` for a number that is out of range.
    """

    episodes: int = 8
    """Play N episodes of each agent; intervals are over episodes."""
    moments: int = 10
    """Measure N moments of each episode, evenly spread."""
    lag: int = 5
    """Use N later frames for the conditioning gap."""
    samples: int = 4096
    """Draw up to N samples for the importance-weighted bound, a power of 8."""
    sweeps: int = 3
    """Search the best belief in N sweeps through all factors, from every start."""
    restarts: int = 1
    """Also search from N random beliefs, besides the encoder's belief and the prior."""
    beta: float | None = None
    """Weight the KL from the prior by this number; by default as in training. With 1 the bound is
    a bound on the log-evidence of the frame."""
    seed: int = 0
    """Take environment seeds and random numbers from this seed."""
    batch: int = 8
    """Play N environments in parallel, one process each."""
    max_decisions: int | None = None
    """Cut an episode after N decisions."""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"`{name}` must be {least} or more; got {value}.")
        if self.sizes[-1] != self.samples:
            raise ValueError(
                f"`samples` must be a power of {STEP}, such as 4096; got {self.samples}."
            )
        if self.beta is not None and not 0 < self.beta < math.inf:
            raise ValueError(f"`beta` must be above 0; got {self.beta}.")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"`seed` must be between 0 and {2**31 - 1}; got {self.seed}.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of the importance-weighted bound: 1, 8, 64, and so on."""
        return tuple(STEP**n for n in range(int(math.log(self.samples, STEP) + 1e-9) + 1))
