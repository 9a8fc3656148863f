"""An episode as the player reads it, made up: every kind of part, action and arm, on few frames."""

import math
from typing import Any

import numpy as np

from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.watching.block import FORMAT, NUMBERS
from thinkslow.evaluation.watching.pictures import inlined

ARMS = ("none", "evidence+gate=surprise", "sig-3", "control-soft")
COUNT, MISSING = 40, 12
"""Decisions, and one whose frame did not come."""
SHAPES = {"front": (16, 24, 1), "map": (32, 32, 3)}


def frame(name: str, at: float, shift: int = 0) -> np.ndarray:
    """A box that wanders over a floor."""
    height, width, channels = SHAPES[name]
    image = np.full((height, width, channels), 90 + 10 * shift, np.uint8)
    image[: height // 2] = 190
    x = int((math.sin(at / 5) + 1) / 2 * (width - 6))
    image[height // 2 - 2 : height // 2 + 4, x : x + 6] = (220, 60, 40)[:channels]
    return image


def block(arms: tuple[str, ...] = ARMS, count: int = COUNT) -> dict[str, Any]:
    """What `Gathering.block` makes."""
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 2, count).tolist()
    speed, lamp = rng.normal(size=(count + 1, NUMBERS)), rng.integers(0, 3, count + 1)
    return {
        "format": FORMAT,
        "agent": {"name": "tiny-8k", "parameters": 912_345, "weights": "6d1f"},
        "environment": {"id": "test/EverythingAtOnce-v0", "size": 32, "repeat": 1},
        "seed": 3,
        "episode": 0,
        "environment_seed": 991,
        "command": "thinkslow watch tiny-8k",
        "versions": {"thinkslow": "0.1.0"},
        "revision": "abc",
        "settings": [settings(arm) for arm in arms],
        "acting": arms[0],
        "decisions": count,
        "ended": "over",
        "error": None,
        "ahead": list(AHEAD),
        "imagined_every": 2,
        "parts": [
            part("front", SHAPES["front"], "image"),
            part("map", SHAPES["map"], "image"),
            part("speed", (30,), "numbers"),
            part("lamp", (), "numbers"),
        ],
        "actions": [
            {"name": "gear", "classes": 4, "shape": []},
            {"name": "steer", "classes": None, "shape": [2]},
        ],
        "reward": rewards,
        "score": np.cumsum(rewards).tolist(),
        "current": [at != MISSING for at in range(count + 1)],
        "came": {
            **{name: [inlined(frame(name, at)) for at in range(count + 1)] for name in SHAPES},
            "speed": speed.tolist(),
            "lamp": lamp.tolist(),
        },
        "arms": [thoughts(arm, index, count, rng) for index, arm in enumerate(arms)],
    }


def part(name: str, shape: tuple[int, ...], kind: str) -> dict[str, Any]:
    error = {"image": "PSNR, dB", "numbers": "RMSE" if shape else "share wrong"}[kind]
    return {"name": name, "kind": kind, "shape": list(shape), "decoded": True, "error": error}


def settings(arm: str) -> dict[str, Any]:
    gated, refines = "gate" in arm, arm not in ("none", "control-soft")
    return {
        "arm": arm,
        "description": f"What {arm} does.",
        "thinking": {"terms": {"Evidence(samples=1)": 1.0} if refines else {}},
        "gate": "surprise" if gated else None,
        "threshold": 11.5 if gated else None,
    }


def thoughts(arm: str, index: int, count: int, rng: np.random.Generator) -> dict[str, Any]:
    doubt = (10 + 3 * rng.normal(size=count)).round(3)
    thinks = doubt > 11.5 if "gate" in arm else np.full(count, arm != "none")
    refines = arm not in ("none", "control-soft")
    loss = [[50 - index - step for step in range(6)] if thinks[at] else None for at in range(count)]
    chances = rng.dirichlet(np.ones(4), (count, 2)).round(4)
    steer = np.stack([rng.uniform(-1, 1, (count, 2, 2)), rng.uniform(0.1, 1, (count, 2, 2))], -1)
    errors = {
        name: [[20 + index, 18 + index, 17, None if at > count - 8 else 15] for at in range(count)]
        for name in (*SHAPES, "speed", "lamp")
    }
    return {
        "name": arm,
        "thinks": thinks.tolist(),
        "moved": (4 * thinks).astype(float).tolist(),
        "action": {
            "gear": chances[:, 1].argmax(-1).tolist(),
            "steer": steer[:, 1, :, 0].round(3).tolist(),
        },
        "doubt": doubt.tolist() if "gate" in arm else None,
        "objective": [
            None
            if one is None
            else {
                "loss": one,
                "moved": [0, 1, 2, 3, 4, 4],
                "chosen": 5,
                "status": "all steps were made",
            }
            for one in loss
        ]
        if refines
        else None,
        "surprise": doubt.tolist(),
        "entropy_before": doubt.tolist(),
        "entropy_after": doubt.tolist(),
        "value": rng.normal(size=(count, 2)).round(3).tolist(),
        "policy": {"gear": chances.tolist(), "steer": steer.round(3).tolist()},
        "decoded": {
            **{name: [inlined(frame(name, at, index)) for at in range(count)] for name in SHAPES},
            "speed": rng.normal(size=(count, NUMBERS)).round(3).tolist(),
            "lamp": rng.integers(0, 3, count).tolist(),
        },
        "imagined": {
            name: [
                None if at % 2 else [inlined(frame(name, at + ahead, index)) for ahead in AHEAD]
                for at in range(count)
            ]
            for name in SHAPES
        },
        "error": errors,
    }
