"""What a reader of another project's agents is given and what it gives back.

Each source has a module with one public function, `read(found: Found) -> Foreign`. It picks the
agent's arrays from `found.content` by name, reads and renames them, and finds every size in their
shapes; what shapes do not tell (classes of the latent, the uniform mix) comes from the source's
configuration. That names and shapes are exactly those of the model is checked by the caller.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from thinkslow.dreamer.config import ModelConfig
from thinkslow.dreamer.v1.config import ClassicConfig
from thinkslow.spaces import Space
from thinkslow.storage.store import Damaged

LARGEST_CONFIG = 2**20
"""Bytes of a configuration file; real ones have 10,000."""


@dataclasses.dataclass(frozen=True)
class Found:
    """Where a foreign agent is: known before its weights are read."""

    source: str
    """One of the names in `importers.SOURCES`."""
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
    """Of the model: `dreamerv3-main` or `dreamerv3-v1`."""
    model: ModelConfig | ClassicConfig
    weights: dict[str, np.ndarray]
    """float32, under the names of that architecture."""
    extras: dict[str, np.ndarray]
    """What the source keeps besides: the slow critic `slowval/...`, `retnorm/{lo,hi}/value`."""
    observations: dict[str, Space]
    actions: dict[str, Space]
    steps: int | None
    """Decisions in the environment that it was trained for, where the source says so."""
    seed: int | None
    """Of its training, where the source says so."""
    environment: dict[str, Any]
    """`{"id", "size", "repeat"}` in Gymnasium's terms; the id is None where nothing here is the
    same, and `task` is what the source calls it."""
    action: Literal["sample", "mode"]
    """How the source takes an action when it evaluates."""
    logits: Literal["raw", "mixed"]
    """Whether the latent logits that the source keeps are before or after the uniform mix."""
    cannot: dict[str, str]
    """What this agent cannot do, with the reason."""
    options: dict[str, Any]
    """The source's own configuration; empty where it writes none."""
    assumed: tuple[str, ...] = ()
    """What no file tells and was taken to be so, a clause each."""


class Options:
    """A source's configuration, or its defaults where no file was found.

    With a file, an option without a default must be in it.
    """

    def __init__(self, found: Found):
        self.file = found.config
        self.data = read_options(found.config) if found.config else {}

    def __call__(self, path: str, kind: type, default: Any) -> Any:
        """The option, which is `default` where there is no file.

        **Errors:** `Damaged` naming the option.
        """
        return option(self.data, path, kind, default if self.file is None else None)

    def maybe(self, path: str, kind: type, default: Any) -> Any:
        """The option, which is `default` where it is missing."""
        return option(self.data, path, kind, default)

    def require(self, known: Mapping[str, Any]) -> None:
        """That options which change what weights mean are those that are known here.

        **Errors:** `Damaged` naming the first that is not.
        """
        for path, value in known.items():
            if (given := option(self.data, path, type(value), value)) != value:
                raise Damaged(
                    f"`{path}` of {self.file} must be {value!r}, which is all that is known here; "
                    f"it is {given!r}."
                )

    def classes(self, path: str, given: int | None, found: Found) -> int:
        """Classes of the latent, which no shape tells.

        **Errors:** `FileNotFoundError` where nothing does.
        """
        if given is not None:
            return given
        if self.file is None:
            name = path.rpartition(".")[2]
            raise FileNotFoundError(
                f"{found.file} does not say how many classes its latent has, and its configuration "
                f"is not beside it. Give the whole log folder, or pass `{name}` of its training as "
                "--classes."
            )
        return option(self.data, path, int)


def read_options(path: Path) -> dict[str, Any]:
    """A YAML configuration with its references `${a.b}` resolved.

    Tags that would make Python objects are refused; nothing is evaluated.

    **Errors:** `FileNotFoundError`, `Damaged`.
    """
    if path.stat().st_size > LARGEST_CONFIG:
        raise Damaged(f"{path} is no configuration: it is too large.")
    try:
        options = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} is not YAML: {' '.join(str(error).split())[:200]}.") from None
    if not isinstance(options, dict):
        raise Damaged(f"{path} is no configuration: it has no keys.")
    return options


def option(options: Mapping[str, Any], path: str, kind: type, default: Any = None) -> Any:
    """The value at `a.b.c`, references such as `${x.y}` followed, as `kind`.

    Numbers that YAML reads as text, such as 1e-3, become numbers. Without a default the option
    must be there.

    **Errors:** `Damaged` naming the option.

    >>> option({"a": {"b": "${c}"}, "c": "1e-3"}, "a.b", float)
    0.001
    """
    value: Any = f"${{{path}}}"
    for _ in range(8):
        if not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
            break
        at: Any = options
        for key in value[2:-1].split("."):
            at = at.get(key) if isinstance(at, Mapping) else None
        value = at
    if value is None and default is not None:
        return default
    if kind in (int, float) and isinstance(value, int | float | str) and type(value) is not bool:
        try:
            number = float(value)
            if kind(number) == number:
                return kind(number)
        except (ValueError, OverflowError):
            pass
    elif isinstance(value, kind):
        return value
    raise Damaged(f"The configuration says `{path}` is {value!r}, expected {kind.__name__}.")
