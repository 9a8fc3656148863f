"""Input and output of a reader of another project's agents.

Each project has a module with one public function, `read(found: Found) -> Foreign`. It picks the
agent's arrays from `found.content` by name, reads and renames them, and derives every size from
their shapes. What shapes do not determine (the classes of the latent, the uniform mix) comes from
the project's configuration. The caller checks that names and shapes are exactly those of the model.
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
    """The files of a foreign agent, found before its weights are read."""

    format: str
    """Name of the importer."""
    file: Path
    """The checkpoint that was chosen."""
    config: Path | None
    """Its configuration file, if the project writes one."""
    content: Any
    """The result of `pickles.load` or `torchfile.load`."""


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A foreign agent: its weights under our names, and a description of its model."""

    model: ModelConfig | V1Config
    """Sizes of the model."""
    weights: dict[str, np.ndarray]
    """The weights as float32, under the names of that model."""
    observations: dict[str, Space]
    actions: dict[str, Space]
    environment: dict[str, Any]
    """`{"id", "size", "repeat"}` in Gymnasium's terms, and `task`, the project's own name. The id
    is None if no environment here is the same.
    """
    action: Literal["sample", "mode"]
    """How the project chooses an action in its own evaluation: `sample` or `mode`."""
    logits: Literal["raw", "mixed"]
    """Whether the latent logits that the project stores are before or after the uniform mix."""
    extras: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Other arrays that the project stores: the slow critic `slowval/...`,
    `retnorm/{lo,hi}/value`.
    """
    steps: int | None = None
    """Number of decisions in the environment during training, if the project stores it."""
    seed: int | None = None
    """Seed of the training, if the project stores it."""
    cannot: dict[str, str] = dataclasses.field(default_factory=dict)
    """What this agent cannot do, with reasons."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The project's own configuration; empty if it writes none."""
    assumed: tuple[str, ...] = ()
    """Assumptions that no file confirms, one clause each."""
