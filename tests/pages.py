"""Folders as an evaluator writes them, of which tests of the page are made; how pages are seen."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from thinkslow.evaluation.metrics import AHEAD, ahead, image_columns
from thinkslow.evaluation.records import Episode, Header, append, strip_file, write_header
from thinkslow.evaluation.report.page import build

ARMS = {
    "none": (0.0, 0.0, "The agent as it was trained."),
    "sig": (0.9, -0.08, "State information gain over a 3-step rollout, 5 steps."),
    "elbo": (0.1, 0.37, "Evidence of the present frame, soft latent, 5 steps."),
    "control-mode": (0.4, 0.27, "The posterior's mode, without refinement."),
    "control-random": (-0.8, -0.2, "A random step that moves the same KL."),
}
AGENTS = {"tiny-8k": 3.0, "tiny-48k": 14.0}
WIDTHS = {"desktop": 1280, "tablet": 768, "phone": 390}
"""Pixels that every page must fit."""
OPEN = "document.querySelectorAll('details').forEach(one => one.open = true)"
"""A script that unfolds what is folded."""


def frames(rng: np.random.Generator, *lead: int) -> np.ndarray:
    """Rooms of a kind: floor, sky and a coloured box, with a little noise."""
    images = np.empty((*lead, 32, 32, 3))
    images[..., :16, :, :], images[..., 16:, :, :] = (110, 160, 215), (120, 95, 70)
    for index in np.ndindex(*lead):
        x, y = rng.integers(2, 22, size=2)
        images[index][y : y + 8, x : x + 8] = rng.integers(0, 255, 3)
    return np.clip(images + rng.normal(scale=6, size=images.shape), 0, 255).astype(np.uint8)


def header(episodes: int, agents: list[str]) -> Header:
    return Header(
        protocol="paired-v1",
        environment={"id": "thinkslow/CollectGoodObjects-v0", "size": 64, "repeat": 1},
        agents=[
            {
                "name": agent,
                "training_steps": 1000 * int(agent[5:-1]),
                "training_seed": 0,
                "preset": "tiny",
                "parameters": 912_345,
            }
            for agent in agents
        ],
        arms=[
            {"agent": agent, "arm": arm, "description": description}
            for agent in agents
            for arm, (*_, description) in ARMS.items()
        ],
        episodes=episodes,
        seed=7,
        batch=8,
        max_decisions=None,
        pool=False,
        versions={"thinkslow": "0.1.0", "jax": "0.10.1"},
        images={agent: ["image"] for agent in agents},
        curves={},
        sittings=[
            {
                "command": f"thinkslow evaluate tiny --episodes {episodes} --seed 7",
                "machine": "2 cores, x86_64, CPU only",
                "revision": "abc",
            }
        ],
    )


def image_scores(psnr: float, ssim: float, mse: float, gain: float) -> dict[str, float]:
    """The columns of an image, worse the farther ahead."""
    now = {"psnr": psnr, "ssim": ssim, "mse": mse}
    worse = {"psnr": -1.1, "ssim": -0.02, "mse": 0.001}
    later = {ahead(m, step): now[m] + worse[m] * step**0.5 for m in now for step in AHEAD}
    gains = {column: gain for column in image_columns() if "gain" in column}
    return {**now, **later, **gains, "mse_gain": -0.0014 * gain}


def whole_episode(
    agent: str,
    arm: str,
    number: int,
    score: float | None,
    *,
    latency: float = 1.0,
    **more: Any,
) -> Episode:
    """An episode to whose end nothing failed."""
    facts: dict[str, Any] = {
        "environment_seed": 1000 + number,
        "training_seed": 0,
        "rewards_size": abs(score or 0.0),
        "length": 250,
        "crashed": False,
        "error": None,
        "cut": False,
        "nonfinite": 0,
        "nonfinite_first": None,
        "first_observation": f"seen-{number}",
        "thought_share": 0.0,
        "belief_kl": 0.0,
        "latency_ms": latency,
        "latency_ms_mean": latency,
        "latency_ms_p10": 0.9 * latency,
        "latency_ms_p90": 1.2 * latency,
    }
    return Episode(agent=agent, arm=arm, episode=number, score=score, **facts | more)


def evaluation(folder: Path, *, episodes: int = 24) -> Path:
    """An evaluation of two agents and five arms, as the evaluator writes it."""
    rng = np.random.default_rng(0)
    steps = np.arange(0, 50_000, 500)
    curve = {"step": steps.tolist(), "score": (17 * steps / (2e4 + steps)).tolist()}
    whole = dataclasses.replace(header(episodes, list(AGENTS)), curves=dict.fromkeys(AGENTS, curve))
    (folder / "strips").mkdir(parents=True)
    write_header(folder, whole)
    records: list[Episode] = []
    for agent, level in AGENTS.items():
        world = rng.normal(scale=0.3 * level, size=episodes)
        for arm, (score, decibel, _) in ARMS.items():
            noise = rng.normal(scale=2.0, size=(3, episodes))
            records += [
                whole_episode(
                    agent,
                    arm,
                    number,
                    float(np.round(level + world[number] + score + noise[0, number])),
                    latency=2.1 * {"none": 1, "sig": 9.4, "elbo": 3.1}.get(arm, 1.3),
                    rewards_size=30.0,
                    thought_share=float(arm != "none"),
                    belief_kl=2.5,
                    images=image_scores(
                        21.5 + decibel + 0.1 * noise[1, number],
                        0.80 + 0.02 * decibel + 0.004 * noise[2, number],
                        0.0071 * (1 - 0.2 * decibel) + 0.0001 * noise[1, number],
                        0.0 if arm == "none" else decibel + 0.1 * noise[2, number],
                    ),
                )
                for number in range(episodes)
            ]
            savez(strip_of(folder, agent, arm), strip(arm))
    append(folder, records)
    build(folder)
    return folder


def strip(arm: str, channels: int = 3) -> dict[str, Any]:
    """Three moments of `none`, as they came and as an arm decodes them."""
    rng = np.random.default_rng(1)
    real, came = frames(rng, 3)[..., [0] * channels], frames(rng, 3, 3)[..., [0] * channels]
    if channels == 3:
        real, came = frames(rng, 3), frames(rng, 3, 3)
    shift = list(ARMS).index(arm)
    out: dict[str, Any] = {
        "now": real // 2 + 40 + shift,
        "imagined": came // 2 + 60 + shift,
        "psnr": np.full((3, 4), 20.0 + shift),
        "step": np.array([12, 57, 103]),
        "ahead": np.array(AHEAD),
        "frames": np.array(7),
    }
    return out | ({"real": real, "came": came} if arm == "none" else {})


def strip_of(folder: Path, agent: str, arm: str) -> Path:
    at = list(AGENTS).index(agent) * len(ARMS) + list(ARMS).index(arm)
    return strip_file(folder, at, 0)


def savez(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)
