"""The settings of a bank, in Python and as the flags of `thinkslow bank`."""

import dataclasses

LEAST = {"moments": 1, "every": 1, "futures": 2, "horizon": 1, "batch": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a bank.

    **Errors:** `ValueError` for a number that is out of range.
    """

    moments: int = 300
    """Fill the bank with N moments."""
    every: int = 25
    """Take a moment after every N decisions of an episode."""
    futures: int = 2
    """Play out every action N times; 2 or more, so that noise can be separated from value."""
    horizon: int = 20
    """Play N decisions in each play-out."""
    seed: int = 0
    """Take environment seeds and random numbers from this seed."""
    batch: int = 8
    """Play N environments in parallel, one process each."""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if (value := getattr(self, name)) < least:
                raise ValueError(f"`{name}` must be {least} or more; got {value}.")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"`seed` must be between 0 and {2**31 - 1}; got {self.seed}.")
