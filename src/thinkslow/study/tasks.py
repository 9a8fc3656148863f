"""The tasks of a study: each is one block of episodes of one agent in one setting.

A task is a separate evaluation in its own folder, with seeds that follow from the plan and the
block's number. Tasks can therefore be played in any order, anywhere, and more than once. What plays
is imported when it plays: the page of a study is made without JAX.
"""

import dataclasses
import glob
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thinkslow.agent.arms.arm import Arm, arm
from thinkslow.agent.arms.changes import changed, made
from thinkslow.evaluation import records
from thinkslow.saved.environment import Facts, environment_of
from thinkslow.storage.paths import expanded
from thinkslow.storage.reading import is_file
from thinkslow.study.plan import Misplanned, Plan, Setting, StudyArm
from thinkslow.zoo import located

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent

PURPOSES = {"report": 0, "tuning": 1}
"""The last bit of every seed: seeds of tuning are odd, seeds of a report are even."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One block of episodes."""

    group: str
    setting: str
    agent: str
    """Its name in the records."""
    path: str
    """Its path, or a bundled name."""
    block: int

    @property
    def folder(self) -> Path:
        """The folder of its records, inside the folder of the study."""
        parts = [re.sub(r"[^\w.-]+", "_", one) for one in (self.group, self.setting, self.agent)]
        return Path("blocks", *parts, f"{self.block:03d}")


def found(plan: Plan) -> dict[str, dict[str, str]]:
    """The agents of each group: paths, or bundled names, by name.

    **Errors:** `Misplanned` for a pattern without a matching folder, or an agent given twice.
    """
    from thinkslow.evaluation.subjects import told_apart

    out = {}
    for group in plan.groups:
        paths = []
        for given in group.agents:
            pattern = given
            if group.budget is not None:
                pattern = f"{given.rstrip('/')}/agents/{group.budget}"
            here = sorted(glob.glob(str(expanded(pattern)))) or [pattern]
            try:
                paths += [(one, located(one)) for one in here]
            except FileNotFoundError as error:
                raise Misplanned(f"Agents of {group.name}: {error}") from None
        try:
            names = told_apart([path.name for _, path in paths], [path for _, path in paths])
        except ValueError as error:
            raise Misplanned(f"Agents of {group.name}: {error}") from None
        out[group.name] = dict(zip(names, [given for given, _ in paths], strict=True))
    return out


def playing(plan: Plan) -> dict[str, dict[str, str]]:
    """The agents of each group, as of `found`, after all that can be checked without playing: arms,
    shifts and environments. Each agent is opened once: the agents of a group must be of different
    training seeds, and seeds on which something was tuned are not reported.

    **Errors:** `Misplanned`, also for what cannot be opened.
    """
    from thinkslow.loading import opened

    arms_of(plan)
    for setting in plan.settings:
        _check_setting(setting)
    agents = found(plan)
    for group, paths in agents.items():
        known: dict[int, str] = {}
        for name, path in paths.items():
            try:
                seed = opened(path).manifest["training"].get("seed")
            except (OSError, ValueError) as error:
                raise Misplanned(f"Agents of {group}: {error}") from error
            if seed is None or (not plan.tuned_on and len(paths) == 1):
                continue
            if seed in known:
                raise Misplanned(
                    f"{name} and {known[seed]} of {group} are both of training seed {seed}: the "
                    "agents of a group must be different seeds of one recipe and budget. Make two "
                    "groups of them."
                )
            known[seed] = name
            if plan.purpose == "report" and seed in plan.tuned_on:
                raise Misplanned(
                    f"{name} of {group} is of training seed {seed}, on which something was tuned "
                    f"(`tuned_on`). Report on other seeds, or set `purpose` to tuning."
                )
            if plan.purpose == "tuning" and seed not in plan.tuned_on:
                raise Misplanned(
                    f"{name} of {group} is of training seed {seed}, and tuning may play only "
                    f"{', '.join(map(str, plan.tuned_on))} (`tuned_on`)."
                )
    return agents


def tasks(plan: Plan, agents: Mapping[str, Mapping[str, str]]) -> list[Task]:
    """All tasks, in an order in which all agents and settings begin early."""
    return [
        Task(group=group, setting=setting.name, agent=name, path=path, block=block)
        for block in range(plan.episodes // plan.block)
        for setting in plan.settings
        for group in setting.groups
        for name, path in agents[group].items()
    ]


def block_seed(plan: Plan, block: int) -> int:
    """The evaluation seed of a block: the same for every agent and setting, below 2^31."""
    drawn = int(np.random.SeedSequence([0x5EED, plan.seed, block]).generate_state(1)[0])
    return (drawn >> 2) * 2 + PURPOSES[plan.purpose]


def arms_of(plan: Plan) -> dict[str, Arm]:
    """The arms as objects.

    **Errors:** `Misplanned` for an unknown setting or an impossible value.
    """
    return {one.name: _arm(one) for one in plan.arms}


def _arm(planned: StudyArm) -> Arm:
    try:
        values = {name: made(name, value) for name, value in planned.changes.items()}
        return changed(arm(planned.arm), values)
    except (TypeError, ValueError) as error:
        raise Misplanned(f"Arm {planned.name}: {error}") from None


def _check_setting(setting: Setting) -> None:
    """**Errors:** `Misplanned` for a shift or an environment that there is not."""
    from thinkslow.envs.requirements import prepare
    from thinkslow.envs.shifts import kinds

    try:
        if setting.shift:
            kinds(setting.shift)
        if setting.env is not None:
            prepare(setting.env, size=64)
    except ValueError as error:
        raise Misplanned(f"Setting {setting.name}: {error}") from None


@lru_cache(maxsize=4)
def _loaded(path: str) -> "Agent":
    from thinkslow.loading import load

    return load(path)


def environment(plan: Plan, agent: "Agent", setting: str) -> dict[str, Any]:
    """The environment of an agent: the one it was trained on, with the changes of the setting.

    **Errors:** `Misplanned` if neither gives an environment, or if the agent's files name a module.
    """
    said = plan.setting(setting)
    try:
        about = Facts(str(agent.about.name), dict(agent.about.environment))
        out = environment_of(about, said.env)
    except ValueError:
        raise Misplanned(
            f"Setting {setting}: the files of {agent.about.name} ask to import a module for its "
            "environment, which the files of an agent may not. If you know the module, give `env`: "
            "module:Name, or module:function of a function that makes it with its wrappers."
        ) from None
    if said.shift:
        out["shift"] = said.shift
    if not out.get("id"):
        raise Misplanned(
            f"Setting {setting}: {agent.about.name} does not say which environment it plays. "
            "Give `env`."
        )
    return out


def finished(folder: Path) -> bool:
    """Whether a folder holds the complete records of a task."""
    return is_file(folder / records.HEADER) and records.read(folder).finished


def play(plan: Plan, task: Task, folder: Path) -> None:
    """Play one task into a folder. Episodes that are already there are not played again.

    **Errors:** those of `evaluate`, and `ValueError` for an arm that the agent cannot play.
    """
    if finished(folder):
        return
    from thinkslow.evaluation.protocol import evaluate

    agent = _loaded(task.path)
    arms = {name: agent.thinking(one) for name, one in arms_of(plan).items()}
    evaluate(
        {task.agent: arms},
        environment(plan, agent, task.setting),
        episodes=plan.block,
        seed=block_seed(plan, task.block),
        batch=plan.block,
        out=folder,
        max_decisions=plan.max_decisions,
        command=f"study {plan.name}, plan {plan.hash}",
    )
