"""The logs of a training run: `metrics.jsonl`, TensorBoard events, `log.txt`."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from thinkslow.storage import atomic
from thinkslow.storage.events import Events
from thinkslow.storage.reading import is_file

log = logging.getLogger("thinkslow.train")


@runtime_checkable
class Writer(Protocol):
    """A receiver of scalars: TensorBoard's writer, Weights & Biases, or your own."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Receive one number at one decision."""

    def close(self) -> Any:
        """Called when the run ends."""


class Logs:
    """The open logs of one run, truncated to its last save."""

    def __init__(self, run: Path, *, length: int = 0, step: int = 0):
        """`length` is the number of bytes of metrics.jsonl to keep, and `step` the decision to
        continue from.
        """
        self.path = path = run / "metrics.jsonl"
        text = run / "log.txt"
        for file in (path, text):  # opening a pipe would wait for its other end
            if not is_file(file):
                file.touch()
            atomic.unshare(file)
        self.metrics = path.open("r+")
        length = min(length, path.stat().st_size)
        self.metrics.truncate(length)
        self.metrics.seek(length)
        self.handler = logging.FileHandler(text)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.setLevel(logging.INFO)
        log.addHandler(self.handler)
        log.info("%s at decision %d.", "Resumed" if step else "Started", step)
        events = Events(run / "tensorboard", purge=step or None)
        self.writers: list[Writer] = [events]
        """Receivers of every finite scalar; add your own."""
        self._said: set[str] = set()

    def write(self, line: Mapping[str, Any], scalars: Mapping[str, float], step: int) -> None:
        """Write one line of metrics, and its scalars as events.

        JSON has no NaN and no infinity, so a non-finite value becomes null. Each name is reported
        once.
        """
        whole, bad = null_nonfinite(line)
        with atomic.explained(self.path):
            self.metrics.write(json.dumps(whole, allow_nan=False) + "\n")
            self.metrics.flush()
        if new := [name for name in bad if name not in self._said]:
            self._said.update(new)
            log.warning(
                "Non-finite at decision %d, and null in metrics.jsonl: %s (reported once each).",
                step,
                ", ".join(new),
            )
        for name, value in scalars.items():
            if math.isfinite(value):
                for writer in self.writers:
                    writer.add_scalar(name, value, step)

    def position(self) -> int:
        """Bytes of metrics.jsonl so far."""
        self.metrics.flush()
        return self.metrics.tell()

    def text(self) -> str:
        """The content of metrics.jsonl, even if the file was deleted."""
        length = self.position()
        self.metrics.seek(0)
        text = self.metrics.read()
        self.metrics.seek(length)
        return text

    def close(self) -> None:
        for writer in self.writers:
            writer.close()
        self.metrics.close()
        log.removeHandler(self.handler)
        self.handler.close()


def null_nonfinite(value: Any, name: str = "") -> tuple[Any, list[str]]:
    """The record with null for non-finite numbers, and the names of those numbers.

    >>> null_nonfinite({"step": 3, "episode": {"score": float("nan")}})
    ({'step': 3, 'episode': {'score': None}}, ['episode/score'])
    """
    if isinstance(value, Mapping):
        parts = {
            key: null_nonfinite(each, f"{name}/{key}" if name else str(key))
            for key, each in value.items()
        }
        bad = [each for _, names in parts.values() for each in names]
        return {key: each for key, (each, _) in parts.items()}, bad
    if isinstance(value, float) and not math.isfinite(value):
        return None, [name]
    return value, []
