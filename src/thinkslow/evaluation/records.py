"""What an evaluation left on disk, read and checked, and small questions about it.

A summary is the plain dictionary of `summary.json`. An arm is the `base` (named "none"), a
`control` (named "control-…") or a `refinement`. A number that could not be had, such as an
interval of a single pair, is null or NaN on disk and None here.
"""

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

FORMAT = 1
BASE = "none"

Record = dict[str, Any]
Kind = Literal["base", "control", "refinement"]

_IMAGES = {"real": 4, "before": 4, "after": 4, "imagined": 5, "came": 5}


@dataclass(frozen=True)
class Evaluation:
    """The folder of one evaluation."""

    summary: Record
    episodes: list[Record]
    """One record an episode and arm; empty if the file is missing."""
    learning: Record | None
    """Learning curves with the evaluated agents marked, if they were recorded."""
    strips: dict[tuple[str, str], dict[str, np.ndarray]]
    """By agent and arm: frames real, before, after `[N, H, W, 3]`, imagined and came
    `[N, L, H, W, 3]`, all uint8; step `[N]`; ahead `[L]`, how many steps ahead each looks
    (1 to L where the file does not say)."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval, where there is one."""

    value: float
    interval: tuple[float, float] | None

    @property
    def above(self) -> bool:
        """Whether the interval lies wholly above zero."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def below(self) -> bool:
        """Whether the interval lies wholly below zero."""
        return self.interval is not None and self.interval[1] < 0


def read(folder: Path) -> Evaluation:
    """Read an evaluation folder.

    Only `summary.json` must be there. Raises FileNotFoundError if it is not, ValueError with
    the file's name if a file is there and cannot be understood.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, so {folder} is not a finished evaluation. "
            f"Run `thinkslow evaluate AGENT --out {folder}` first."
        )
    summary = _summary(path)
    return Evaluation(
        summary=summary,
        episodes=_episodes(folder / "episodes.jsonl"),
        learning=_learning(folder / "learning.json"),
        strips={
            (arm["agent"], arm["arm"]): _strip(path)
            for arm in summary["arms"]
            if (path := folder / "strips" / f"{arm['agent']}--{arm['arm']}.npz").is_file()
        },
    )


def kind(arm: str) -> Kind:
    """Whether an arm is the base, a control or a refinement, by its name.

    >>> kind("none"), kind("control-mode"), kind("sig")
    ('base', 'control', 'refinement')
    """
    if arm == BASE:
        return "base"
    return "control" if arm.startswith("control-") else "refinement"


def agents(summary: Record) -> list[str]:
    """Names of all agents that arms or comparisons speak of, in the order of the records."""
    records = [*summary["arms"], *summary["comparisons"]]
    return list(dict.fromkeys(record["agent"] for record in records))


def arms(summary: Record, agent: str) -> list[Record]:
    """The arms of one agent, in the order of the records."""
    return [arm for arm in summary["arms"] if arm["agent"] == agent]


def comparisons(
    summary: Record, agent: str, metric: str, baseline: str = BASE
) -> dict[str, Record]:
    """Paired comparisons of one agent's arms with a baseline, by arm."""
    wanted = {"agent": agent, "metric": metric, "baseline": baseline}
    return {
        record["arm"]: record
        for record in summary["comparisons"]
        if all(record.get(key, BASE) == value for key, value in wanted.items())
    }


def estimate(record: Record | None, key: str = "mean") -> Estimate | None:
    """The number under `key` with the record's interval; None where there is no number."""
    if record is None or (value := finite(record.get(key))) is None:
        return None
    low, high = record.get("interval") or (None, None)
    low, high = finite(low), finite(high)
    return Estimate(value, None if low is None or high is None else (low, high))


def finite(value: object) -> float | None:
    """The number as a float, or None for null, NaN and infinity."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _summary(path: Path) -> Record:
    summary = _json(path)
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        found = summary.get("format") if isinstance(summary, dict) else type(summary).__name__
        raise ValueError(
            f"{path} must be a summary of format {FORMAT}; got {found!r}. "
            "Evaluate again with this version of thinkslow."
        )
    needed: dict[str, type] = {
        "agents": list,
        "environment": dict,
        "protocol": dict,
        "arms": list,
        "comparisons": list,
    }
    for key, shape in needed.items():
        if not isinstance(summary.get(key), shape):
            raise ValueError(f"{path}: `{key}` must be a {shape.__name__}; it is missing or not.")
    _have(summary["agents"], ("name",), f"{path}: `agents`")
    _have(summary["arms"], ("agent", "arm", "score"), f"{path}: `arms`")
    _have(
        summary["comparisons"], ("agent", "arm", "metric", "difference"), f"{path}: `comparisons`"
    )
    return summary


def _episodes(path: Path) -> list[Record]:
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is not JSON ({error}). Was the evaluation cut off? "
                "Remove the line or evaluate again."
            ) from None
    _have(records, ("agent", "arm", "training_seed", "environment_seed"), str(path))
    return records


def _learning(path: Path) -> Record | None:
    if not path.is_file():
        return None
    learning = _json(path)
    if not isinstance(learning, dict) or not isinstance(learning.get("runs"), list):
        raise ValueError(f"{path}: `runs` must be a list; it is missing or not.")
    _have(learning["runs"], ("seed", "step", "score"), f"{path}: `runs`")
    return learning


def _strip(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            strip = {name: file[name] for name in (*_IMAGES, "step")}
            horizon = strip["imagined"].shape[1] if strip["imagined"].ndim > 1 else 0
            strip["ahead"] = file["ahead"] if "ahead" in file else np.arange(1, horizon + 1)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable strip of frames: {error}.") from None
    count = len(strip["step"])
    for name, rank in _IMAGES.items():
        images = strip[name]
        if images.dtype != np.uint8 or images.ndim != rank or images.shape[-1] != 3:
            raise ValueError(
                f"{path}: `{name}` must be uint8 RGB frames with {rank} axes; "
                f"got {images.dtype} {images.shape}."
            )
        if len(images) != count:
            raise ValueError(f"{path}: `{name}` has {len(images)} entries, `step` has {count}.")
    for name in ("imagined", "came"):
        if strip[name].shape[1] != len(strip["ahead"]):
            raise ValueError(
                f"{path}: `{name}` has {strip[name].shape[1]} frames a step, "
                f"`ahead` names {len(strip['ahead'])}."
            )
    return strip


def _have(records: list[Any], keys: tuple[str, ...], where: str) -> None:
    for number, record in enumerate(records, start=1):
        absent = [key for key in keys if not isinstance(record, dict) or key not in record]
        if absent:
            raise ValueError(f"{where}: entry {number} lacks {', '.join(absent)}.")


def _json(path: Path) -> Any:
    text = _text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Evaluate again to rewrite it.") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error}). Evaluate again to rewrite it.") from None
