"""Runs in tests: tiny, and what must be equal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from helpers import smallest_config

from thinkslow.dreamer.config import TrainConfig
from thinkslow.dreamer.training.run import RunConfig
from thinkslow.dreamer.training.trainer import Trainer
from thinkslow.storage import saves, store
from thinkslow.weights import named

ENVIRONMENT = "counting:thinkslow-test/Counting-v0"


MODEL = smallest_config()


LEARNING = TrainConfig(
    batch_size=2,
    batch_length=4,
    imagination=3,
    imagination_starts=2,
    replay_ratio=4.0,
    replay_capacity=120,
    warmup=1,
    learning_rate=1e-3,
)


CONFIG = RunConfig(ENVIRONMENT, seed=5, environments=2, size=16, log_every=8, budgets=(24,))


def begin(run: Path, learning: TrainConfig = LEARNING) -> Trainer:
    return Trainer.begin(run, CONFIG, MODEL, learning)


def finish(trainer: Trainer, steps: int) -> dict[str, np.ndarray]:
    try:
        trainer.train(steps=steps)
        return {name: np.asarray(array) for name, array in named(trainer.learner).items()}
    finally:
        trainer.close()


def counters(run: Path) -> dict[str, Any]:
    """What the save that holds counted."""
    save = saves.latest(run / "saves")
    assert save
    return store.read_manifest(save)["counters"]


def lines(run: Path) -> list[dict[str, Any]]:
    """`metrics.jsonl`, held to what JSON allows."""

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refused) for line in text.splitlines()]


class Killed(Exception):
    """Ends a run without a save, as a kill would."""


def killed_at(steps: int):
    def show(progress) -> None:
        if progress.steps >= steps:
            raise Killed

    return show
