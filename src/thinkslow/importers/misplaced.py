"""Which folder to give instead of a path that belongs to thinkslow and is not an agent."""

import os
from collections.abc import Iterable
from pathlib import Path

from thinkslow.plural import plural
from thinkslow.registry import either
from thinkslow.storage.headers import RESULTS
from thinkslow.storage.store import WEIGHTS, is_own

SUFFIXES = frozenset({".json", ".jsonl", ".safetensors", ".html", ".txt", ".bin", ".csv"})
"""Endings of files that thinkslow writes; no project's checkpoint has one of them."""
DEEP = 3
"""Levels of folders in a training run."""


def is_run(folder: Path) -> bool:
    """Whether a folder is a training run of thinkslow."""
    return (folder / "config.json").is_file() and (folder / "agents").is_dir()


def is_file_of_ours(path: Path) -> bool:
    """Whether a file cannot be a checkpoint of another project, by its name."""
    return path.is_file() and (path.suffix in SUFFIXES or path.parent.name == "saves")


def above(path: Path) -> str | None:
    """What a path that is not an agent belongs to, and what to give; None if it is not ours.

    The files and folders of an agent, a training run and a result are recognised.
    """
    here = Path(os.path.abspath(path))
    near = [here, *here.parents]
    for place in near[:2]:
        if _is_agent(place):
            return f"{path} belongs to the agent {place}. Give that folder."
        for file, command in RESULTS.items():
            if (place / file).is_file():
                what = "is" if place == here else f"belongs to {place},"
                return (
                    f"{path} {what} a result of `thinkslow {command}`, which holds no agent. Give "
                    "the folder of an agent."
                )
    for place in near[: DEEP + 1]:
        if is_run(place):
            what = "is" if place == here else f"belongs to {place}, which is"
            return f"{path} {what} a training run; its agents are in agents/: {_newest(place)}."
    return None


def below(path: Path, folders: Iterable[Path]) -> str | None:
    """Which agents there are among the folders below a path; None if there are none."""
    found = sorted(filter(_is_agent, folders), key=_order)
    if not found:
        return None
    few = either([*map(str, found[:3]), *(["another"] if len(found) > 3 else [])])
    return f"{path} is not an agent; {plural(len(found), 'agent')} below it. Give {few}."


def _is_agent(folder: Path) -> bool:
    kept = folder.parent.name == "saves"  # the state of a run
    return not kept and is_own(folder) and any(folder.glob(f"{Path(WEIGHTS).stem}*.safetensors"))


def _newest(run: Path) -> str:
    kept = sorted(filter(is_own, (run / "agents").iterdir()), key=_order)
    return f"the newest is {kept[-1]}" if kept else "there is none yet"


def _order(folder: Path) -> tuple[str, bool, str]:
    return str(folder.parent), folder.name.isdecimal(), folder.name.zfill(20)
