"""The learning curves behind evaluated agents, from the metrics of their runs."""

import json
from collections.abc import Sequence
from pathlib import Path

from thinkslow.dreamer.saved import Saved
from thinkslow.storage import atomic

POINTS = 200
"""Points kept of a curve, each the mean of its share of the episodes."""


def write_curves(path: Path, saved: Sequence[Saved], metrics: Sequence[Path | None]) -> None:
    """Write the curves of the runs that exist, and where the agents stand on them.

    A run's `metrics.jsonl` is read; a bundled agent keeps its curve in its manifest. Writes
    nothing if no curve is known.
    """
    runs: dict[int, dict] = {}
    for one, file in zip(saved, metrics, strict=True):
        seed = one.manifest["training"]["seed"]
        curve = one.manifest["training"].get("curve") or (read_curve(file) if file else None)
        if curve and (seed not in runs or len(curve["step"]) > len(runs[seed]["step"])):
            runs[seed] = {"seed": seed, **curve}
    if not runs:
        return
    agents = [
        {"seed": one.manifest["training"]["seed"], "step": one.manifest["training"]["steps"],
         "name": one.name}
        for one in saved
    ]  # fmt: skip
    atomic.write_text(path, json.dumps({"runs": list(runs.values()), "agents": agents}))


def read_curve(metrics: Path) -> dict[str, list[float]] | None:
    """Score by decision, averaged in up to `POINTS` groups; None without finished episodes."""
    if not metrics.exists():
        return None
    # A run that is going on may be half-way through its last line.
    whole = [text for text in metrics.read_text().splitlines(keepends=True) if text.endswith("\n")]
    episodes = [line["episode"] for text in whole if "episode" in (line := json.loads(text))]
    # A reward that was not finite left the episode without a score.
    episodes = [episode for episode in episodes if episode["score"] is not None]
    if not episodes:
        return None
    size = -(-len(episodes) // POINTS)
    groups = [episodes[start : start + size] for start in range(0, len(episodes), size)]
    return {
        name: [sum(episode[name] for episode in group) / len(group) for group in groups]
        for name in ("step", "score")
    }
