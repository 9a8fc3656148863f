"""Evaluations in tests: agents that guess or are random, and what of a result must be equal."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
from helpers import smallest_config, with_random_weights
from odd_episodes import id_of
from odd_players import Guesser

from thinkslow.dreamer.model import Dreamer
from thinkslow.evaluation import Evaluation, evaluate, read
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space

ENVIRONMENT = {"id": "counting:thinkslow-test/Counting-v0", "size": 16, "repeat": 1}


MODEL = smallest_config()


LATENCIES = ("latency_ms", "latency_ms_mean", "latency_ms_p10", "latency_ms_p90")


GUESSERS = {"none": Guesser(), "bold": Guesser(prefers=2)}


@functools.cache
def dreamer(image: int = 16, names: tuple[str, ...] = ("image",)) -> Dreamer:
    observations = {name: Space((image, image, 3), "uint8") for name in names}
    actions = {"action": Space((), "int32", 3)}
    shape = jax.eval_shape(lambda: Dreamer(observations, actions, MODEL, key=jr.key(0)))
    return with_random_weights(shape, 0)


def saved_agent(folder: Path, image: int = 16) -> checkpoint.Saved:
    checkpoint.save(
        folder,
        dreamer(image),
        name=folder.name,
        environment=ENVIRONMENT,
        training={"steps": 7, "seed": 3, "preset": "test"},
    )
    return checkpoint.load(folder)


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without the milliseconds, in one order."""
    kept = [{key: value for key, value in row.items() if key not in LATENCIES} for row in rows]
    return sorted(kept, key=lambda row: (row["agent"], row["arm"], row["episode"]))


def table(result: Evaluation) -> dict[str, Any]:
    """The summary without milliseconds and without who made it when."""
    summary = json.loads(json.dumps(result.summary))
    for arm in summary["arms"]:
        arm["latency_ms"] = None
    return summary | {"protocol": None}


def rows(result: Evaluation) -> list[dict[str, Any]]:
    return result.episodes


def rows_of(result: Evaluation, arm: str) -> list[dict[str, Any]]:
    return [row for row in rows(result) if row["arm"] == arm]


def guessed(name: str, **more: Any) -> Evaluation:
    settings: dict[str, Any] = {"episodes": 9, "seed": 0, "batch": 3}
    return evaluate(GUESSERS, id_of(name), **settings | more)


def score(result: Evaluation) -> dict[str, Any]:
    (row,) = (row for row in result.comparisons if row["metric"] == "score")
    return row


class Stopped(BaseException):
    """Ctrl-C, between two chosen blocks."""


def stopping_after(episodes: int):
    """Stop once so many episodes are written: not at a word from inside a block."""

    def show(what: str, done: int, total: int) -> None:
        if done >= episodes and "decision" not in what:
            raise Stopped

    return show


def lines(out: Path) -> int:
    return len(read(out).episodes) if (out / "evaluation.json").exists() else 0
