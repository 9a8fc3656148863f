"""What a reader of another project's agents is given and what it gives back.

Each source has a module with one public function, `read(found: Found) -> Foreign`. It picks the
agent's arrays from `found.content` by name, reads and renames them, and finds every size in their
shapes; what shapes do not tell (classes of the latent, the uniform mix) comes from the source's
configuration. That names and shapes are exactly those of the model is checked by the caller.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from thinkslow.dreamer.config import ModelConfig
from thinkslow.dreamer.v1.config import V1Config
from thinkslow.spaces import Space


@dataclasses.dataclass(frozen=True)
class Found:
    """Where a foreign agent is: known before its weights are read."""

    source: str
    """One of the names in `importers.table`."""
    file: Path
    """The checkpoint that was chosen."""
    config: Path | None
    """The configuration beside it, where the source writes one."""
    content: Any
    """What `pickles.load` or `torchfile.load` gave."""


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A foreign agent: weights under our names, and what they are weights of."""

    architecture: str
    """Architecture of the model: `dreamerv3-main` or `dreamerv3-v1`."""
    model: ModelConfig | V1Config
    weights: dict[str, np.ndarray]
    """float32, under the names of that architecture."""
    observations: dict[str, Space]
    actions: dict[str, Space]
    environment: dict[str, Any]
    """`{"id", "size", "repeat"}` in Gymnasium's terms; the id is None where nothing here is the
    same, and `task` is what the source calls it."""
    action: Literal["sample", "mode"]
    """How the source takes an action when it evaluates."""
    logits: Literal["raw", "mixed"]
    """Whether the latent logits that the source keeps are before or after the uniform mix."""
    extras: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """What the source keeps besides: the slow critic `slowval/...`, `retnorm/{lo,hi}/value`."""
    steps: int | None = None
    """Decisions in the environment that it was trained for, where the source says so."""
    seed: int | None = None
    """Seed of its training, if the source stores it."""
    cannot: dict[str, str] = dataclasses.field(default_factory=dict)
    """What this agent cannot do, with the reason."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The source's own configuration; empty where it writes none."""
    assumed: tuple[str, ...] = ()
    """What no file tells and was taken to be so, a clause each."""
