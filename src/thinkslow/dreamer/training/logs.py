"""The logs of a training run: `metrics.jsonl`, TensorBoard events, `log.txt`."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

log = logging.getLogger("thinkslow.train")


class Logs:
    """Open logs of one run, cut back to where it last saved: what was lost is written again."""

    def __init__(self, run: Path, *, length: int = 0, step: int = 0):
        """`length` is the byte of metrics.jsonl, and `step` the decision, to go on from."""
        path = run / "metrics.jsonl"
        path.touch()
        self.metrics = path.open("r+")
        self.metrics.truncate(length)
        self.metrics.seek(length)
        self.handler = logging.FileHandler(run / "log.txt")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.setLevel(logging.INFO)
        log.addHandler(self.handler)
        log.info("%s at step %d", "resumed" if length else "begun", step)
        self.events = SummaryWriter(str(run / "tensorboard"), purge_step=step if length else None)

    def write(self, line: Mapping[str, Any], scalars: Mapping[str, float], step: int) -> None:
        """A line of metrics and its scalars as events."""
        self.metrics.write(json.dumps(line) + "\n")
        self.metrics.flush()
        for name, value in scalars.items():
            self.events.add_scalar(name, value, step)

    def position(self) -> int:
        """Bytes of metrics.jsonl so far."""
        self.metrics.flush()
        return self.metrics.tell()

    def close(self) -> None:
        self.events.close()
        self.metrics.close()
        log.removeHandler(self.handler)
        self.handler.close()
