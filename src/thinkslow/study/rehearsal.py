"""How long a study takes: every kind of task is begun here, as many at once as will be played.

A task is a process that starts, loads its programs and plays. So the rehearsal starts such
processes too: one alone, which compiles what is not compiled yet and is not counted, then as many
as run at once, which tell how long a start and a decision take while the machine is as busy as it
will be.
"""

import dataclasses
import heapq
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from thinkslow.envs import arguments, make
from thinkslow.evaluation.protocol import evaluate
from thinkslow.loading import load
from thinkslow.study.plan import Plan, restored
from thinkslow.study.tasks import Task, arms_of, environment, finished, found, tasks

SHORT, LONG = 16, 56
"""Decisions of two runs, whose difference tells what a decision takes once all is loaded. Both are
long enough for images to be scored."""
UNKNOWN = 1_000
"""Decisions of an episode where the environment does not say when it ends."""


def rehearse(
    plan: Plan,
    folder: Path,
    *,
    jobs: int | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The tasks of a plan and the minutes that the missing ones take here.

    Episodes are counted as long as the environment lets them be. Compiling is not counted where
    compiled programs are kept.

    Args:
        plan: from `read`.
        folder: of the study, which may hold finished tasks.
        jobs: local processes at once; None: as many as cores.
        show: told what is rehearsed.

    **Errors:** those of `tasks.found`, and `ValueError` for what cannot be played.
    """
    todo = tasks(plan, found(plan))
    missing = [task for task in todo if not finished(folder / task.folder)]
    at_once = min(jobs or os.cpu_count() or 1, max(len(missing), 1))
    seconds: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "plan.json").write_text(json.dumps(dataclasses.asdict(plan)))
        for task in missing:
            cell = (task.group, task.setting)
            if cell not in seconds:
                show(f"{task.group} in {task.setting}")
                _timed(Path(place), task, 1)
                several = _timed(Path(place), task, at_once)
                seconds[cell] = sum(several) / len(several)
    each = plan.block * len(plan.arms)
    return {
        "plan": plan.hash, "tasks": len(todo), "episodes": len(todo) * each,
        "finished": (len(todo) - len(missing)) * each,
        "minutes": makespan([seconds[task.group, task.setting] for task in missing], at_once) / 60,
    }  # fmt: skip


def makespan(durations: Sequence[float], at_once: int) -> float:
    """When the last of several tasks ends, each begun as soon as a place is free.

    >>> makespan([3.0, 3.0, 3.0], 2), makespan([], 2)
    (6.0, 0.0)
    """
    free = [0.0] * at_once
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def longest(env: Any) -> int | None:
    """Steps after which an environment ends its episodes; None where it does not say.

    Gymnasium's specification says it, or the environment itself, as MiniWorld's and MiniGrid's do.
    """
    said = [env.spec.max_episode_steps if env.spec else None]
    said += [getattr(env.unwrapped, name, None) for name in ("max_episode_steps", "max_steps")]
    known = [one for one in said if isinstance(one, int | float) and 0 < one < math.inf]
    return int(min(known)) if known else None


def _timed(place: Path, task: Task, at_once: int) -> list[float]:
    """Seconds of a task by each of several processes that play its beginning at once."""
    command = [sys.executable, "-m", "thinkslow.study.rehearsal", str(place)]
    running = [
        subprocess.Popen(
            [*command, json.dumps(vars(task)), str(time.time())],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(at_once)
    ]  # fmt: skip
    try:
        said = [one.communicate() for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()
    for one, (_, errors) in zip(running, said, strict=True):
        if one.returncode:
            last = (errors.strip().splitlines() or ["nothing"])[-1]
            raise ValueError(f"{task.agent} cannot play in {task.setting}. It said: {last}")
    return [float(out.split()[-1]) for out, _ in said]


def _begin(plan: Plan, task: Task, began: float) -> float:
    """Play the beginning of a task; seconds that all of it takes, from when it was begun."""
    agent = load(task.path)
    where = environment(plan, agent, task.setting)
    env = make(**arguments(where))
    most = longest(env.env) or UNKNOWN
    env.close()
    decisions = -(-most // where.get("repeat", 1))
    if plan.max_decisions is not None:
        decisions = min(decisions, plan.max_decisions)
    arms = {name: agent.thinking(one) for name, one in arms_of(plan).items()}
    ends = [began]
    with tempfile.TemporaryDirectory() as place:
        for length in (SHORT, SHORT, LONG):  # the first loads
            evaluate(
                {task.agent: arms}, where, episodes=plan.block, seed=0, batch=plan.block,
                out=Path(place) / str(len(ends)), max_decisions=length,
            )  # fmt: skip
            ends.append(time.time())
    first, short, long = (after - before for before, after in itertools.pairwise(ends))
    return first + (decisions - SHORT) * max(long - short, 0.0) / (LONG - SHORT)


if __name__ == "__main__":
    stored = json.loads((Path(sys.argv[1]) / "plan.json").read_text())
    print(_begin(restored(stored), Task(**json.loads(sys.argv[2])), float(sys.argv[3])))
