"""The settings of a bank, in Python and as the flags of `thinkslow bank`."""

import dataclasses

from thinkslow import settings
from thinkslow.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a bank.

    **Errors:** `ValueError` for a number that is out of range.
    """

    moments: int = setting(300, least=1)
    """Fill the bank with N moments, or a few more: a batch adds its own together."""
    every: int = setting(25, least=1)
    """Take a moment after every N decisions of an episode."""
    futures: int = setting(2, least=2)
    """Play out every action N times; 2 or more, so that noise can be separated from value."""
    horizon: int = setting(20, least=1)
    """Play N decisions in each play-out."""
    seed: int = settings.seed()
    """Take environment seeds and random numbers from this seed."""
    batch: int = setting(8, least=1)
    """Play N environments in parallel, one process each."""

    def __post_init__(self) -> None:
        settings.check(self)
