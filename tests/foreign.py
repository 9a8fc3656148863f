"""Checkpoints as other projects write them, small."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from thinkslow.dreamer.model import Dreamer
from thinkslow.spaces import Space
from thinkslow.weights import named


def image(side: int, channels: int = 3) -> Space:
    return Space((side, side, channels), "uint8")


def vector(*shape: int) -> Space:
    return Space(shape, "float32")


def choice(classes: int) -> Space:
    return Space((), "int32", classes)


def as_danijar(folder: Path, model: Dreamer, **more: Any) -> Path:
    """A log folder as danijar/dreamerv3 writes it."""
    config = model.config
    params = {name: np.asarray(array) for name, array in named(model).items()} | more
    params |= {"opt/state/0": np.zeros(3, np.float32), "retnorm/lo/value": np.zeros((), "f4")}
    inside = folder / "ckpt" / "20260101T000000F000000"
    inside.mkdir(parents=True)
    agent = {"params": params, "counters": {"actions": 7}}
    (inside / "agent.pkl").write_bytes(pickle.dumps(agent))
    (inside / "done").touch()
    (folder / "ckpt" / "latest").write_text(inside.name)
    rssm = {"classes": config.classes, "unimix": config.unimix, "free_nats": config.free_nats}
    options = {
        "agent": {
            "dyn": {"rssm": rssm},
            "loss_scales": {"rep": config.rep_scale},
            "contdisc": True,
        },
        "task": "gym_cartpole",
        "seed": 3,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    return folder


SMALL = {"vision": "conv", "decoder_blocks": 4, "observations": {"image": image(8)}, "mults": (1,)}
