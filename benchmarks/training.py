"""Training end to end beside the update alone: what environments, acting and replay take.

    uv run python benchmarks/training.py --json

Claim: a training run makes at least nine tenths of the updates that the compiled update alone
would make in the same time.

Method: in one process, a run of `tiny` on CollectGoodObjects with four environments (an update of
16 sequences of 32 steps for each 10.24 decisions) until 20 updates are made, then `--updates` more
by the clock, saves off; then, on the same cores, the update alone as `benchmarks/update.py` times
it, before and after. docs/performance.md has the table.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from update import measure

from thinkslow.dreamer.config import model_preset, train_preset
from thinkslow.dreamer.training.episodes import Progress
from thinkslow.dreamer.training.run import RunConfig
from thinkslow.dreamer.training.trainer import Trainer
from thinkslow.evaluation.protocol import machine
from thinkslow.saved.provenance import revision

TASK, WARM = "thinkslow/CollectGoodObjects-v0", 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model, learning = model_preset("tiny"), train_preset("tiny")
    before = measure(model, learning, 10)["update_s"]
    seen: list[tuple[float, int, int]] = []

    def show(progress: Progress) -> None:
        if progress.updates >= WARM:
            seen.append((time.perf_counter(), progress.updates, progress.steps))

    decisions = learning.batch_size * learning.batch_length / learning.replay_ratio
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(TASK, environments=4, save_every=1e9)
        trainer = Trainer.begin(Path(folder) / "run", config, model, learning)
        steps = 4 * 2 * learning.batch_length + int((WARM + given.updates + 1) * decisions) + 8
        try:
            trainer.train(steps=steps, show=show)
        finally:
            trainer.close()
    (begun, first, since), (ended, last, until) = seen[0], seen[-1]
    alone = (before + measure(model, learning, 10)["update_s"]) / 2
    found = {
        "updates_per_s": (last - first) / (ended - begun),
        "decisions_per_s": (until - since) / (ended - begun),
        "alone_per_s": 1 / alone,
        "share": (last - first) / (ended - begun) * alone,
        "machine": machine(),
        "revision": revision(),
    }
    print(json.dumps(found) if given.json else "\n".join(f"{k}: {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
