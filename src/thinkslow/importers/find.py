"""Finding the newest checkpoint of a log folder, and whose it is.

Whose it is shows in what the file holds, not in its name. A log folder, a checkpoint folder or
the file itself may be given.
"""

import dataclasses
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thinkslow.importers.foreign import Found
from thinkslow.importers.formats import pickles, torchfile
from thinkslow.storage.store import Damaged, Missing

DEEPEST = 6
"""Folders below the given one that are searched; sheeprl's logs are five deep."""
MOST_FOLDERS = 10_000
"""Folders that are looked into."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A project whose agents are read."""

    title: str
    module: str
    """Of this package; it has `read`."""
    config: tuple[str, ...]
    """Where its configuration may lie, seen from the checkpoint's folder."""


SOURCES = {
    "dreamerv3": Source(
        "danijar/dreamerv3 since December 2024", "danijar", ("../../config.yaml", "config.yaml")
    ),
    "dreamerv3-v1": Source(
        "danijar/dreamerv3 of 2023, PyPI 1.5.0", "danijar_v1", ("config.yaml",)
    ),
    "dreamerv3-torch": Source("NM512/dreamerv3-torch", "torch_v1", ()),
    "r2dreamer": Source("NM512/r2dreamer", "r2dreamer", (".hydra/config.yaml",)),
    "sheeprl": Source("sheeprl dreamer_v3", "sheeprl_v1", ("../config.yaml", "config.yaml")),
    "sheeprl-3.5": Source(
        "sheeprl dreamer_v3_5", "sheeprl_main", ("../config.yaml", "config.yaml")
    ),
}  # fmt: skip
"""Every project whose agents are read, by the name that `--format` takes."""


def find(path: Path, *, source: str = "auto") -> Found:
    """The newest checkpoint at a path: a log folder, a checkpoint folder, or a file.

    `source` names one of `SOURCES`, or `auto`.

    **Errors:** `Missing` if there is no checkpoint, `ValueError` if there are several runs or
    another source's; `Damaged`, `pickles.Refused` from reading.
    """
    if source != "auto" and source not in SOURCES:
        raise ValueError(f"`--format` must be auto or one of {', '.join(SOURCES)}; got {source!r}.")
    file = newest(path)
    content = torchfile.load(file) if zipfile.is_zipfile(file) else pickles.load(file)
    named = whose(content, file)
    if source not in ("auto", named):
        raise ValueError(
            f"{file} was written by {SOURCES[named].title}, not by {SOURCES[source].title}. Leave "
            "--format out, or check the path."
        )
    return Found(named, file, _config(file, SOURCES[named].config), content)


def newest(path: Path) -> Path:
    """The checkpoint that `find` reads.

    **Errors:** `Missing`, `ValueError`.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise Missing(f"An agent is a folder or a file; {path} does not exist. Check the path.")
    here = list(_checkpoints(path))
    if not here:
        below = [(folder, found) for folder in _below(path) for found in [*_checkpoints(folder)]]
        runs = {_run(folder) for folder, _ in below}
        if len(runs) > 1:
            shown = ", ".join(str(run) for run in sorted(runs)[:3])
            raise ValueError(
                f"{path} holds {len(runs)} runs ({shown}{', ...' * (len(runs) > 3)}). Give one of "
                "them."
            )
        here = [found for _, found in below]
    if not here:
        raise Missing(
            f"{path} holds no agent: neither manifest.json, as thinkslow writes, nor ckpt/latest, "
            "checkpoint.pkl, checkpoint.ckpt, latest.pt or ckpt_STEP_RANK.ckpt, as others do. "
            "Check the path."
        )
    return max(here)[1]


def whose(content: Any, file: Path) -> str:
    """The name in `SOURCES` of the project that wrote this.

    **Errors:** `Damaged` if none did, or a version in between that is not read.
    """
    if isinstance(content, Mapping):
        agent = _mapping(content.get("agent", content))
        names = {name for name in _mapping(agent.get("params", agent)) if isinstance(name, str)}
        if any(name.startswith("agent/enc/conv0") or "dyn/dyncore" in name for name in names):
            raise Damaged(
                f"{file} is of danijar/dreamerv3 between April and July 2024, whose agents are "
                "neither those of 2023 nor those since December 2024 and are not read. Train it "
                "again with another version."
            )
        if isinstance(agent.get("params"), Mapping):
            return "dreamerv3"
        if any(name.startswith("agent/wm/") for name in names):
            return "dreamerv3-v1"
        state = content.get("agent_state_dict")
        if isinstance(state, Mapping):
            torch_names = " ".join(name for name in state if isinstance(name, str))
            if "_wm." in torch_names:
                return "dreamerv3-torch"
            if "rssm._deter_net." in torch_names:
                return "r2dreamer"
        world = content.get("world_model")
        if isinstance(world, Mapping) and "actor" in content:
            torch_names = " ".join(name for name in world if isinstance(name, str))
            if "recurrent_model.recurrent_projection." in torch_names:
                return "sheeprl-3.5"
            if "recurrent_model.rnn." in torch_names:
                return "sheeprl"
    raise Damaged(
        f"{file} holds no agent of a known project: {', '.join(s.title for s in SOURCES.values())}."
    )


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _checkpoints(folder: Path) -> Iterator[tuple[tuple, Path]]:
    """Checkpoints right at a folder, as each project lays them out, with what orders them."""
    for logs in (folder / "ckpt", folder):
        found = _latest(logs)
        if found is not None:
            yield (1,), found
    if (folder / "agent.pkl").is_file():
        yield (2,), folder / "agent.pkl"
    for name in ("checkpoint.pkl", "checkpoint.ckpt", "latest.pt"):
        if (folder / name).is_file():
            yield (0,), folder / name
    for inside in (folder, folder / "checkpoint", *folder.glob("version_*/checkpoint")):
        version = re.fullmatch(r"version_(\d+)", inside.parent.name)
        for file in inside.glob("ckpt_*_*.ckpt"):
            if match := re.fullmatch(r"ckpt_(\d+)_(\d+)\.ckpt", file.name):
                order = int(version[1]) if version else 0, int(match[1]), -int(match[2])
                yield (0, *order), file


def _latest(logs: Path) -> Path | None:
    """The checkpoint that the file `latest` names; without it, the newest that is complete."""
    if (logs / "latest").is_file() and (logs / "latest").stat().st_size < 256:
        name = (logs / "latest").read_text(errors="replace").strip()
        if name and name == Path(name).name and (logs / name / "agent.pkl").is_file():
            return logs / name / "agent.pkl"
    elif logs.name != "ckpt":
        return None
    done = [done.parent / "agent.pkl" for done in logs.glob("*/done")]
    return max((file for file in done if file.is_file()), default=None)


def _below(path: Path) -> Iterator[Path]:
    """Folders below a path, not too deep and not too many."""
    level, seen = [path], 0
    for _ in range(DEEPEST):
        level = sorted(
            child for folder in level for child in folder.iterdir()
            if child.is_dir() and not child.is_symlink()
        )  # fmt: skip
        seen += len(level)
        if seen > MOST_FOLDERS:
            raise ValueError(f"{path} holds over {MOST_FOLDERS:,} folders. Give the log folder.")
        yield from level


def _run(folder: Path) -> Path:
    """The folder of a run, from that of its checkpoint."""
    for part in ("checkpoint", "ckpt"):
        folder = folder.parent if folder.name == part else folder
    return folder.parent if re.fullmatch(r"version_\d+", folder.name) else folder


def _config(file: Path, places: tuple[str, ...]) -> Path | None:
    return next(
        (path for place in places if (path := (file.parent / place).resolve()).is_file()), None
    )
