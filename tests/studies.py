"""Folders of studies as they are after play, of which tests of pages and exports are made."""

from pathlib import Path
from typing import Any

import numpy as np
from pages import whole_episode

from thinkslow.evaluation import records
from thinkslow.evaluation.metrics import image_columns
from thinkslow.evaluation.records import Episode, Header
from thinkslow.evaluation.subjects import written
from thinkslow.study import finish, planned, stored
from thinkslow.study.plan import Plan
from thinkslow.study.stored import Stored
from thinkslow.study.tasks import arms_of, block_seed, tasks

LEVEL = {"partial": 12.0, "informed": 17.0, "early": 3.0}
STEPS = {"partial": 60_000, "informed": 60_000, "early": 12_000}
SHIFTED = {"": 0.0, "dropped:3": -4.0}
SETTINGS = ("clean", "dropped")

PLAN: dict[str, Any] = {
    "format": 1,
    "name": "small",
    "question": "Does it help?",
    "episodes": 4,
    "block": 2,
    "arms": ["control-soft", {"name": "twice", "arm": "evidence", "steps": 2}],
    "agents": {"ours": "collect-half", "others": ["collect-good"]},
    "settings": {"clean": {}, "noisy": {"shift": "noise:3", "agents": ["ours"]}},
    "hypotheses": [{"name": "H", "claim": "It does.", "effect": {"arm": "twice"}}],
}
H = PLAN["hypotheses"][0]

ROLLOUTS: dict[str, Any] = {
    "format": 1,
    "name": "rollouts",
    "episodes": 24,
    "block": 8,
    "question": "Do longer rollouts help, and more so where the world is partly hidden?",
    "arms": [
        "sig-1",
        "sig-3",
        "sig-8",
        "evidence",
        "control-soft",
        {"name": "sig-8 within 1 nat", "arm": "sig-8", "max_kl": 1.0},
    ],
    "agents": {"partial": "p", "informed": "i", "early": "e"},
    "settings": {"clean": {}, "dropped": {"shift": "dropped:3", "agents": ["partial"]}},
    "hypotheses": [
        {
            "name": "C1",
            "claim": "SIG over 8 imagined steps raises the score.",
            "effect": {"arm": "sig-8"},
        },
        {
            "name": "C3",
            "claim": "With the world told, a rollout of 8 scores less than one of 1.",
            "effect": {"arm": "sig-8", "baseline": "sig-1", "agents": "informed"},
            "expect": "less",
        },
        {
            "name": "H4",
            "claim": "A rollout of 8 gains more over one of 1 with the world hidden.",
            "effect": {"arm": "sig-8", "baseline": "sig-1"},
            "minus": {"arm": "sig-8", "baseline": "sig-1", "agents": "informed"},
        },
        {
            "name": "H1",
            "claim": "Evidence wins back half of what dropped frames cost.",
            "effect": {"arm": "evidence", "setting": "dropped"},
            "minus": {
                "arm": "none",
                "setting": "clean",
                "baseline_setting": "dropped",
                "times": 0.5,
            },
        },
        {
            "name": "PSNR",
            "claim": "Evidence raises the PSNR of the present frame.",
            "effect": {"arm": "evidence"},
            "measure": "psnr",
        },
    ],
}
"""Six arms over three groups of agents, one of them with less training, and a shift."""

QUICK: dict[str, Any] = {
    **ROLLOUTS,
    "name": "short",
    "question": "Does it help?",
    "arms": ["evidence"],
    "agents": {"partial": "p"},
    "settings": {"clean": {}},
    "hypotheses": [{"name": "H", "claim": "It does.", "effect": {"arm": "evidence"}}],
}
"""One arm and one group: most figures have nothing to show."""


def folder(place: Path, plan: dict[str, Any], *, seeds: int = 1, blocks: int | None = None) -> Path:
    """A study that was played, and its page.

    Args:
        place: the folder.
        plan: content of its file.
        seeds: agents of each group.
        blocks: of each agent that were played; None: all.
    """
    whole = planned(plan, "plan.toml")
    agents = {
        group.name: {f"{group.name}-{n}": f"runs/{group.name}-{n}/agents/9" for n in range(seeds)}
        for group in whole.groups
    }
    place.mkdir(parents=True)
    begun = Stored(
        plan=whole,
        agents=agents,
        code="c0de",
        revision="abc",
        versions={"thinkslow": "0.1.0"},
        began="2026-11-26 12:00:00 +0000",
        command=f"thinkslow study {whole.name}.toml --out {place}",
    )
    stored.write(place, begun)
    for task in tasks(whole, agents):
        if blocks is None or task.block < blocks:
            _play(whole, task, place / task.folder, int(task.agent.rpartition("-")[2]))
    finish(place)
    return place


def _play(plan: Plan, task: Any, place: Path, seed: int) -> None:
    arms, shift = arms_of(plan), plan.setting(task.setting).shift
    header = Header(
        protocol="paired-v1",
        environment={"id": "thinkslow/CollectGoodObjects-v0", "size": 64, "shift": shift},
        agents=[{"name": task.agent, "training_seed": seed, "training_steps": STEPS[task.group]}],
        arms=[
            {
                "agent": task.agent,
                "arm": name,
                "description": f"{name}, as it is",
                "thinking": written(arm.thinking),
                "gate": None,
                "share": None,
                "deadline_ms": None,
            }
            for name, arm in arms.items()
        ],
        episodes=plan.block,
        seed=block_seed(plan, task.block),
        batch=plan.block,
        max_decisions=None,
        pool=False,
        versions={"thinkslow": "0.1.0"},
        images={task.agent: ["image"]},
        curves={},
        sittings=[{"command": "thinkslow study", "machine": "2 cores", "revision": "abc"}],
    )
    place.mkdir(parents=True)
    records.write_header(place, header)
    luck = np.random.default_rng([seed, task.block]).normal(scale=3, size=plan.block)
    noise = np.random.default_rng([seed, task.block, SETTINGS.index(task.setting), len(task.group)])
    records.append(
        place,
        [
            _episode(task, name, number, at, luck[number], noise, shift, seed, arm)
            for at, (name, arm) in enumerate(arms.items())
            for number in range(plan.block)
        ],
    )


def _episode(
    task: Any,
    name: str,
    number: int,
    at: int,
    luck: float,
    noise: Any,
    shift: str,
    seed: int,
    arm: Any,
) -> Episode:
    effect = {"evidence": 1.5, "sig-8": 0.8, "sig-1": -0.5}.get(name, 0.1 * at)
    gain = {"evidence": 0.3, "none": 0.0}.get(name, -0.1)
    cost = 2.0 * (1 + arm.thinking.steps * arm.thinking.horizon * 0.7) + 0.1 * at
    score = LEVEL[task.group] + SHIFTED[shift] + effect + luck + noise.normal(scale=1.5)
    return whole_episode(
        task.agent,
        name,
        number,
        float(np.round(score, 2)),
        latency=cost,
        environment_seed=100 * task.block + number,
        training_seed=seed,
        rewards_size=20.0,
        first_observation=f"{task.block}-{number}",
        thought_share=float(name != "none"),
        belief_kl=1.0,
        images={"psnr": 20.0}
        | {
            column: gain + 0.05 * float(noise.normal())
            for column in image_columns()
            if "gain" in column
        },
    )
