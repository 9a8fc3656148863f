"""How long a study takes, from a few decisions of every arm played here."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from thinkslow.envs import arguments, make
from thinkslow.evaluation.protocol import evaluate
from thinkslow.loading import load
from thinkslow.study.plan import Plan
from thinkslow.study.tasks import arms_of, environment, finished, found, tasks

SHORT, LONG = 4, 20
"""Decisions of the two runs, whose difference is what a decision takes once all is compiled."""
UNKNOWN = 1_000
"""Decisions of an episode where the environment does not say when it ends."""


def rehearse(plan: Plan, folder: Path, *, jobs: int | None = None) -> dict[str, Any]:
    """The tasks of a plan and the minutes that they take here, at most.

    Episodes are counted as long as the environment lets them be. What this compiles is kept for
    the tasks, so compiling is not in the minutes; starting each task is.

    Args:
        plan: from `read`.
        folder: of the study, which may hold finished tasks.
        jobs: local processes at once; None: as many as cores.

    **Errors:** those of `tasks.found`, and `ValueError` for an arm that an agent cannot play.
    """
    todo = tasks(plan, found(plan))
    missing = [task for task in todo if not finished(folder / task.folder)]
    seconds: dict[tuple[str, str], float] = {}
    for task in missing:
        if (task.group, task.setting) not in seconds:
            seconds[task.group, task.setting] = _of_a_block(plan, task.path, task.setting)
    spent = sum(seconds[task.group, task.setting] for task in missing)
    at_once = min(jobs or os.cpu_count() or 1, max(len(missing), 1))
    each = plan.block * len(plan.arms)
    return {
        "plan": plan.hash, "tasks": len(todo), "episodes": len(todo) * each,
        "finished": (len(todo) - len(missing)) * each, "minutes": spent / 60 / at_once,
    }  # fmt: skip


def _of_a_block(plan: Plan, path: str, setting: str) -> float:
    """Seconds of one block of one agent in one setting, all arms."""
    agent = load(path)
    where = environment(plan, agent, setting)
    env = make(**arguments(where))
    spec = env.env.spec
    env.close()
    longest = (spec.max_episode_steps if spec else None) or UNKNOWN
    decisions = -(-longest // where.get("repeat", 1))
    if plan.max_decisions is not None:
        decisions = min(decisions, plan.max_decisions)
    arms = {name: agent.thinking(one) for name, one in arms_of(plan).items()}
    times = []
    with tempfile.TemporaryDirectory() as place:
        for length in (SHORT, SHORT, LONG):  # the first compiles
            began = time.monotonic()
            evaluate(
                {agent.about.name or "agent": arms}, where, episodes=plan.block, seed=0,
                batch=plan.block, out=Path(place) / str(len(times)), max_decisions=length,
            )  # fmt: skip
            times.append(time.monotonic() - began)
    _, short, long = times
    return short + (decisions - SHORT) * max(long - short, 0.0) / (LONG - SHORT)
