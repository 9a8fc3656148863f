"""Estimate the time of a study: begin every kind of task here, with as many processes as will play.

A task is a process that starts, loads its programs and plays. The rehearsal starts such processes
too. The first one runs alone, compiles missing programs, and is not counted. Then as many run at
the same time as in the study. They measure how long a start and a decision take under the same
load. Settings that differ in their shift only are of one kind: in a study of 12 shifts their times
differed by a tenth from the mean, and measuring each took half as long as playing all.
"""

import dataclasses
import heapq
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkslow.cores import cores
from thinkslow.envs import arguments, make
from thinkslow.envs.failures import Failed, ended, failure
from thinkslow.evaluation.protocol import evaluate
from thinkslow.loading import load
from thinkslow.storage import atomic, jsontext
from thinkslow.storage.reading import read_json
from thinkslow.storage.typed import built
from thinkslow.study.plan import Plan
from thinkslow.study.tasks import Task, arms_of, environment, finished, playing, tasks

SHORT, LONG = 16, 56
"""Numbers of decisions of two runs. Their difference gives the time of a decision after loading.
Both are long enough for images to be scored.
"""
FORECAST = "forecast.json"
"""Seconds of a task of every kind, kept in the folder of a study from its rehearsal."""
UNKNOWN = 1_000
"""Assumed number of decisions of an episode, if the environment does not declare a limit."""


def rehearse(
    plan: Plan,
    folder: Path,
    *,
    jobs: int | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The tasks of a plan and the minutes that the missing ones take here.

    Episodes are assumed to have the largest length that the environment allows. Compiling is not
    counted if compiled programs are kept.

    Args:
        plan: the plan, from `read`.
        folder: the folder of the study, which may hold finished tasks.
        jobs: number of local processes at the same time; None: one for each core.
        show: called with the part that is rehearsed.

    Returns `plan`, the numbers of `tasks` and `episodes`, how many are `finished`, the `minutes`,
    and the `seconds` of a task by group and environment.

    **Errors:** those of `tasks.playing`, and `ValueError` for a task that cannot be played.
    """
    todo, missing = _tasks(plan, folder)
    at_once = _at_once(jobs, missing)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "plan.json").write_text(json.dumps(dataclasses.asdict(plan)))
        for task in missing:
            kind = _kind(plan, task)
            if kind not in seconds:
                show(kind)
                _timed(Path(place), task, 1, (SHORT,))  # compiles what is missing
                several = _timed(Path(place), task, at_once, (SHORT, SHORT, LONG))
                seconds[kind] = sum(several) / len(several)
    return _forecast(plan, todo, missing, seconds, at_once)


def keep(folder: Path, found: dict[str, Any]) -> None:
    """Keep the times of a rehearsal in the folder of the study, for `known`."""
    atomic.write_text(folder / FORECAST, jsontext.dumps(found, indent=1) + "\n")


def known(plan: Plan, folder: Path, *, jobs: int | None = None) -> dict[str, Any]:
    """As `rehearse`, from the times that `keep` has kept; nothing is played.

    Args:
        plan: the plan, from `read`.
        folder: the folder of the study.
        jobs: number of local processes at the same time; None: one for each core.

    Returns None as `minutes` if the plan was never rehearsed in this folder.
    """
    todo, missing = _tasks(plan, folder)
    try:
        kept = read_json(folder / FORECAST, "a forecast")
    except (OSError, ValueError):
        kept = None
    seconds: dict[str, float] = {}
    if isinstance(kept, dict) and kept.get("plan") == plan.hash:
        table = kept.get("seconds")
        if isinstance(table, dict) and {type(one) for one in table.values()} <= {int, float}:
            seconds = table
    return _forecast(plan, todo, missing, seconds, _at_once(jobs, missing))


def _tasks(plan: Plan, folder: Path) -> tuple[list[Task], list[Task]]:
    """All tasks, and those that are not finished."""
    todo = tasks(plan, playing(plan))
    return todo, [task for task in todo if not finished(folder / task.folder)]


def _at_once(jobs: int | None, missing: Sequence[Task]) -> int:
    return min(jobs or cores(), max(len(missing), 1))


def _kind(plan: Plan, task: Task) -> str:
    (setting,) = (one for one in plan.settings if one.name == task.setting)
    return f"{task.group} in {setting.env or 'its environment'}"


def _forecast(
    plan: Plan,
    todo: Sequence[Task],
    missing: Sequence[Task],
    seconds: Mapping[str, float],
    at_once: int,
) -> dict[str, Any]:
    each = plan.block * len(plan.arms)
    minutes = None
    kinds = [_kind(plan, task) for task in missing]
    if seconds.keys() >= {*kinds}:
        minutes = makespan([seconds[kind] for kind in kinds], at_once) / 60
    return {
        "plan": plan.hash,
        "tasks": len(todo),
        "episodes": len(todo) * each,
        "finished": (len(todo) - len(missing)) * each,
        "minutes": minutes,
        "seconds": dict(seconds),
    }


def makespan(durations: Sequence[float], at_once: int) -> float:
    """The time until several tasks have ended, if each begins as soon as a process is free.

    >>> makespan([3.0, 3.0, 3.0], 2), makespan([], 2)
    (6.0, 0.0)
    """
    free = [0.0] * at_once
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def longest(env: Any) -> int | None:
    """Number of steps after which an environment ends its episodes; None if it does not declare
    one.

    Gymnasium's specification has it, or the environment itself, as in MiniWorld and MiniGrid.
    """
    said = [env.spec.max_episode_steps if env.spec else None]
    said += [getattr(env.unwrapped, name, None) for name in ("max_episode_steps", "max_steps")]
    known = [one for one in said if isinstance(one, int | float) and 0 < one < math.inf]
    return int(min(known)) if known else None


def _timed(place: Path, task: Task, at_once: int, lengths: Sequence[int]) -> list[float]:
    """Seconds of a task, from several processes that play its beginning at the same time."""
    command = [sys.executable, "-m", "thinkslow.study.rehearsal", str(place)]
    running = [
        subprocess.Popen(
            [*command, json.dumps(vars(task)), str(time.monotonic()), json.dumps(lengths)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(at_once)
    ]
    try:
        said = [one.communicate() for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()
    for one, (_, errors) in zip(running, said, strict=True):
        if one.returncode:
            cause = (errors.strip().splitlines() or ["nothing"])[-1]
            if one.returncode < 0:  # before it could say why
                cause = ended(one.returncode, "play", errors).message
            raise ValueError(f"{task.agent} cannot play in {task.setting}: {cause}")
    return [float(out.split()[-1]) for out, _ in said]


def _begin(plan: Plan, task: Task, began: float, lengths: Sequence[int]) -> float:
    """Play the beginning of a task with these numbers of decisions. Returns the estimated seconds
    of the whole task, including the start; NaN for a single length.
    """
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
        for length in lengths:  # the first one loads programs
            evaluate(
                {task.agent: arms},
                where,
                episodes=plan.block,
                seed=0,
                batch=plan.block,
                out=Path(place) / str(len(ends)),
                max_decisions=length,
            )
            ends.append(time.monotonic())
    if len(lengths) == 1:
        return math.nan
    first, short, long = (after - before for before, after in itertools.pairwise(ends))
    return first + (decisions - SHORT) * max(long - short, 0.0) / (LONG - SHORT)


if __name__ == "__main__":
    stored = json.loads((Path(sys.argv[1]) / "plan.json").read_text())
    at, lengths = float(sys.argv[3]), json.loads(sys.argv[4])
    try:
        print(_begin(built(Plan, stored), Task(**json.loads(sys.argv[2])), at, lengths))
    except (ValueError, OSError, Failed) as error:  # their messages are for users
        sys.exit(" ".join(str(error).split()))
    except Exception as error:
        sys.exit(failure(error, "play").line)
