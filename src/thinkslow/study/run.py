"""Play a study: registered, resumable, with the same result for every way of running it."""

import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from thinkslow.cores import cores
from thinkslow.evaluation import records
from thinkslow.evaluation.records import Episode, Records
from thinkslow.evaluation.summary import summarise
from thinkslow.saved.provenance import provenance
from thinkslow.storage import atomic, headers, jsontext, lines
from thinkslow.storage.lock import writing
from thinkslow.storage.paths import expanded
from thinkslow.storage.reading import is_file
from thinkslow.study import executors, page, stored, verdicts
from thinkslow.study.effects import Cells
from thinkslow.study.plan import Plan
from thinkslow.study.stored import STORED, Stored
from thinkslow.study.tasks import Task, finished, playing, tasks

log = logging.getLogger("thinkslow")

RESULT = "result.json"
OWN = ("episodes", "seed", "images", "curves", "sittings")
"""What the blocks of one agent in one setting need not have in common."""
Executor = Literal["local", "ray"]
Show = Callable[[int, int], None]
"""Called with the number of finished episodes, and of all episodes."""


class Another(ValueError):
    """The folder holds another study or result, or a study begun by another version of the code."""


def run(
    plan: Plan,
    folder: str | Path,
    *,
    executor: Executor = "local",
    jobs: int | None = None,
    address: str | None = None,
    command: str = "thinkslow.study.run(...)",
    show: Show = lambda *_: None,
) -> dict[str, Any]:
    """Play the missing tasks of a study, and give its verdicts.

    Args:
        plan: from `read`.
        folder: the folder of the study; a stopped study continues.
        executor: `local` processes, or a `ray` cluster.
        jobs: local processes at once; None: as many as cores.
        address: the address of a running Ray cluster; None: one is started here.
        command: the command to show on the page.
        show: called with the number of finished episodes, and of all episodes.

    Returns the content of `result.json`: verdicts, the summary of every group in every setting,
    hashes of the plan and of the code.

    **Errors:** `Another` for a folder of another plan or another version of the code; `Misplanned`
    for agents that do not fit the plan; `executors.Failing`; `lock.Locked` while another process
    plays there.
    """
    folder = expanded(folder)
    with writing(folder):
        agents = begin(plan, folder, command)
        todo = tasks(plan, agents)
        missing = [task for task in todo if not finished(folder / task.folder)]
        total = len(todo) * plan.block * len(plan.arms)
        progress = functools.partial(_count, folder, todo, total, show)
        progress()
        if not missing:
            log.info("%s holds this study, finished: nothing is played.", folder)
        if missing and executor == "local":
            executors.local(folder, missing, jobs or cores(), progress)
        elif missing:
            executors.on_ray(folder, missing, address, progress)
        progress()
        return finish(folder)


def refuse_other(folder: Path) -> None:
    """**Errors:** `Another` if the folder holds the result of something else than a study."""
    theirs = [records.HEADER]  # a study has it in the folders of its tasks only
    if not is_file(folder / STORED):
        theirs += [RESULT, page.PAGE, records.EPISODES, *headers.KINDS]
    if left := [name for name in theirs if (folder / name).exists()]:
        raise Another(
            f"{folder} holds {left[0]} of another result, which a study would overwrite. Give "
            "another folder."
        )


def begin(plan: Plan, folder: Path, command: str = "") -> dict[str, dict[str, str]]:
    """Register a study in a folder, or check that the folder holds this study.

    Args:
        plan: from `read`.
        folder: the folder of the study.
        command: the command that plays it.

    **Errors:** `Another`, `Misplanned`.
    """
    agents = playing(plan)
    refuse_other(folder)
    path, code, made = folder / STORED, code_hash(), provenance()
    if is_file(path):
        before = stored.read(folder)
        if before.plan.hash != plan.hash:
            others = [
                field.name
                for field in dataclasses.fields(plan)
                if field.name not in ("hash", "file", "file_hash")
                and getattr(plan, field.name) != getattr(before.plan, field.name)
            ]
            raise Another(
                f"{folder} holds study {before.plan.name} of plan {before.plan.hash}, not "
                f"{plan.hash}, with other {', '.join(others)}. Give another folder."
            )
        if before.code != code:
            raise Another(
                f"{folder} was begun by other code of thinkslow ({before.code}, now {code}). A "
                "study is played by one. Go back to it, or give another folder."
            )
        if others := headers.unlike(before.versions, made["versions"]):
            raise Another(
                f"{folder} was begun with other libraries or settings of JAX: {', '.join(others)}. "
                "A study is played with one. Go back to them, or give another folder."
            )
        if before.agents != agents:
            raise Another(f"{folder} was begun with other agents. Give another folder.")
        return agents
    begun = Stored(
        plan=plan,
        agents=agents,
        code=code,
        revision=made["revision"],
        versions=made["versions"],
        command=command,
        began=time.strftime("%Y-%m-%d %H:%M:%S %z"),
    )
    stored.write(folder, begun)
    return agents


def finish(folder: Path) -> dict[str, Any]:
    """The present result of a study, from its records.

    It is written to `result.json`; `episodes.jsonl`, `report.html` and `cells/` are also rewritten.

    **Errors:** `FileNotFoundError` if the folder holds no study.
    """
    begun = stored.read(folder)
    plan, agents = begun.plan, begun.agents
    cells = joined(plan, agents, folder)
    for (group, setting), each in cells.items():
        place = cell(folder, group, setting)
        place.mkdir(parents=True, exist_ok=True)
        records.write_header(place, each.header)
        lines.write(place / records.EPISODES, (one.row() for one in each.episodes))
    result = dataclasses.asdict(begun) | {
        "finished": all(finished(folder / task.folder) for task in tasks(plan, agents)),
        "hypotheses": [dataclasses.asdict(one) for one in verdicts.judge(plan, cells)],
        "cells": [
            {"group": group, "setting": setting, **summarise(each)}
            for (group, setting), each in cells.items()
        ],
    }
    atomic.write_text(folder / RESULT, jsontext.dumps(result, indent=1) + "\n")
    lines.write(folder / records.EPISODES, rows(cells))
    page.build(folder, result)
    return result


def rows(cells: Cells) -> list[records.Row]:
    """Every episode as a flat record, with its group and setting."""
    return [
        {"group": group, "setting": setting, **row}
        for (group, setting), each in cells.items()
        for row in each.rows()
    ]


def cell(folder: Path, group: str, setting: str) -> Path:
    """The folder with the records of a group in a setting, as a separate evaluation."""
    return folder / "cells" / group / setting


def joined(
    plan: Plan, agents: Mapping[str, Mapping[str, str]], folder: Path
) -> dict[tuple[str, str], Records]:
    """The records of every group in every setting, over all blocks and agents."""
    parts: dict[tuple[str, str], list[tuple[Task, Records]]] = {}
    for task in tasks(plan, agents):
        if is_file(folder / task.folder / records.HEADER):
            read = records.read(folder / task.folder)
            parts.setdefault((task.group, task.setting), []).append((task, read))
    return {key: _together(plan, found) for key, found in parts.items()}


def _together(plan: Plan, parts: list[tuple[Task, Records]]) -> Records:
    """The blocks of a group in a setting as one evaluation.

    **Errors:** `Another` for a block that was played by other weights, arms or libraries than an
    earlier block of the same agent, such as after another training run wrote the agent.
    """
    first = parts[0][1].header
    earlier: dict[str, tuple[Task, records.Header]] = {}
    for task, part in parts:
        before, known = earlier.setdefault(task.agent, (task, part.header))
        if others := headers.differences(known, part.header, apart=OWN):
            raise Another(
                f"Blocks {before.block} and {task.block} of {task.agent} in {task.setting} are not "
                f"of one study: {'; '.join(others)}. Delete {before.folder} or {task.folder} in "
                "the folder of the study, whichever is wrong; the same command plays it again."
            )
    facts = {one["name"]: one for _, part in parts for one in part.header.agents}
    arms = {(one["agent"], one["arm"]): one for _, part in parts for one in part.header.arms}
    seeds = [one.get("training_seed") for one in facts.values()]
    header = dataclasses.replace(
        first,
        agents=[*facts.values()],
        arms=[*arms.values()],
        episodes=plan.episodes,
        seed=plan.seed,
        pool=len(seeds) > 1 and None not in seeds and len(set(seeds)) == len(seeds),
        images={name: shown for _, part in parts for name, shown in part.header.images.items()},
        curves={name: curve for _, part in parts for name, curve in part.header.curves.items()},
    )
    episodes: list[Episode] = [
        dataclasses.replace(one, episode=task.block * plan.block + one.episode)
        for task, part in parts
        for one in part.episodes
    ]
    order = {key: place for place, key in enumerate(arms)}
    episodes.sort(key=lambda one: (order[one.agent, one.arm], one.episode))
    return Records(header, episodes)


def _count(folder: Path, todo: list[Task], total: int, show: Show) -> None:
    done = 0
    for task in todo:
        path = folder / task.folder / records.EPISODES
        if path.exists():
            done += path.read_bytes().count(b"\n")
    show(done, total)


@functools.cache
def code_hash() -> str:
    """Hash of all source files of the package."""
    home = Path(__file__).parents[1]
    found = hashlib.blake2b(digest_size=8)
    for path in sorted(home.rglob("*.py")):
        found.update(str(path.relative_to(home)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
