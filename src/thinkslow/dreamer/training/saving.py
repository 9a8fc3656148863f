"""What a training run writes into its folder, and how it continues from there."""

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from thinkslow.dreamer import saved as checkpoint
from thinkslow.dreamer.nets import named, with_named
from thinkslow.dreamer.training import run as runs
from thinkslow.dreamer.training.logs import Logs, log, null_nonfinite
from thinkslow.dreamer.training.replay import Replay
from thinkslow.storage import atomic, checks, lock, saves, store

if TYPE_CHECKING:
    from thinkslow.dreamer.training.trainer import Trainer

PLAYED = "environments"
"""The name of the environments' state in a save; it is JSON as bytes."""
LOOK_EVERY = 1.0
"""Seconds between two checks whether the folder of the run still exists."""


def claim(run: Path) -> lock.Lock:
    """The lock of the folder. **Errors:** `lock.Locked` if another process writes in it."""
    return lock.claim(run, what="training run")


def kept(trainer: "Trainer") -> Path:
    """The folder of the present agent."""
    return trainer.run / "agents" / str(trainer.steps)


def keep(trainer: "Trainer") -> None:
    """Store the present agent under `agents/`."""
    config = trainer.config
    checkpoint.save(
        kept(trainer),
        trainer.learner.model,
        name=f"{config.preset}-seed{config.seed}-{trainer.steps}",
        environment={
            "id": config.environment,
            "size": config.size,
            "repeat": config.repeat,
            **config.making,
        },
        training={
            "steps": trainer.steps,
            "updates": trainer.updates,
            "seed": config.seed,
            "preset": config.preset,
            "score": trainer.episodes.mean,
            "returns": trainer.learner.returns.to_json(),
            "configuration": dataclasses.asdict(trainer.learning),
            "made_by": trainer.made_by,
        },
    )


def save(trainer: "Trainer") -> None:
    """Write a save. If the process is killed meanwhile, the previous save stays valid."""
    assert trainer.logs is not None
    if gone := trainer.replay.missing():
        log.warning("%s was deleted: writing the whole replay again.", gone)
        trainer.replay.forget_files()
    index = trainer.replay.save()
    counters = {
        "steps": trainer.steps,
        "updates": trainer.updates,
        "credit": trainer.credit,
        "scores": list(trainer.episodes.recent),
        "last_metrics": null_nonfinite(trainer.last_metrics)[0],
        "rng": trainer.rng.bit_generator.state,
        "metrics_bytes": trainer.logs.position(),
        "replay": index,
        "made_by": trainer.made_by,
    }
    arrays = {name: np.asarray(array) for name, array in named(_learnt(trainer)).items()}
    arrays |= {f"episodes/{name}": array for name, array in trainer.episodes.arrays().items()}
    # The actions of unfinished episodes may have megabytes, which is too much for a manifest.
    played = json.dumps(trainer.envs.state(), allow_nan=False).encode()
    arrays[PLAYED] = np.frombuffer(played, np.uint8)
    saves.write(trainer.run / "saves", arrays, {"counters": counters})
    trainer.replay.commit(index)


def restore(trainer: "Trainer", save: Path) -> None:
    """Continue from a save."""
    arrays, manifest = store.read(save)
    played = json.loads(arrays.pop(PLAYED, np.frombuffer(b"null", np.uint8)).tobytes())
    expected = {name: leaf.shape for name, leaf in named(_learnt(trainer)).items()}
    expected |= {f"episodes/{name}": x.shape for name, x in trainer.episodes.arrays().items()}
    checks.match(arrays, expected, what=f"{save} does not fit {trainer.run / runs.CONFIG}")
    restored = with_named(_learnt(trainer), arrays)
    trainer.learner, trainer.carry = jax.device_put(
        (restored["learner"], restored["carry"]), trainer.everywhere
    )
    counters = manifest["counters"]
    trainer.steps, trainer.updates = counters["steps"], counters["updates"]
    trainer.credit = counters["credit"]
    trainer.last_metrics = {
        name: float("nan") if value is None else value
        for name, value in counters["last_metrics"].items()
    }
    trainer.episodes.recent.extend(counters["scores"])
    trainer.episodes.restore(
        {name: arrays[f"episodes/{name}"] for name in trainer.episodes.arrays()}
    )
    trainer.rng.bit_generator.state = counters["rng"]
    trainer.replay = Replay.load(trainer.run / "replay", counters["replay"])
    trainer.logs = Logs(trainer.run, length=counters["metrics_bytes"], step=trainer.steps)
    _compare(trainer, counters.get("made_by", []))
    trainer.step = trainer.envs.restore(played)


def _compare(trainer: "Trainer", before: list[dict[str, Any]]) -> None:
    """Log and record a change of the code or the libraries since the last part of the run.

    A change is allowed: a long run may continue after a bug was fixed. But its results from
    here on may differ from those of a run that was never stopped.
    """
    now = trainer.made_by[-1]
    trainer.made_by = before if before[-1:] == [now] else [*before, now]
    if before and before[-1] != now:
        log.warning(
            "This run was trained by %s so far, and continues with %s. It may differ from a "
            "run that was never stopped; its agents record both.",
            runs.told_apart(before[-1], now),
            runs.told_apart(now, before[-1]),
        )


def _learnt(trainer: "Trainer") -> dict[str, Any]:
    """The state of learning and acting, as one tree."""
    return {"learner": trainer.learner, "carry": trainer.carry}


def look(trainer: "Trainer") -> None:
    """Check that a run still holds its folder. A deleted folder is written again.

    **Errors:** `lock.Lost` if it does not hold the folder.
    """
    assert trainer.lock is not None
    try:
        trainer.lock.check()
    except lock.Lost as error:
        if error.deleted:
            _rescue(trainer)
            raise lock.Lost(
                f"{error} The run was saved there again at decision {trainer.steps:,}. Continue "
                "with `thinkslow train --resume`, or delete the folder again.",
                deleted=True,
            ) from None
        raise


def _rescue(trainer: "Trainer") -> None:
    """Write the whole run into a folder that was deleted."""
    assert trainer.logs is not None
    time.sleep(LOOK_EVERY)  # until the deletion has finished
    log.warning("%s was deleted: saving it again, and stopping.", trainer.run)
    trainer.lock = claim(trainer.run)
    text = trainer.logs.text()
    trainer.logs.close()
    atomic.write_text(trainer.run / runs.CONFIG, trainer.description)
    atomic.write_text(trainer.run / "metrics.jsonl", text)
    trainer.logs = Logs(trainer.run, length=len(text.encode()), step=trainer.steps)
    save(trainer)
    keep(trainer)
