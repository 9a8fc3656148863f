"""The learning curves behind evaluated agents, from the metrics of their runs."""

import json
from pathlib import Path

POINTS = 200
"""Number of points of a curve; each is the mean of an equal share of the episodes."""


def read_curve(metrics: Path) -> dict[str, list[float]] | None:
    """Score by decision, averaged in up to `POINTS` groups; None without finished episodes."""
    if not metrics.exists():
        return None
    # A running training may have written only half of its last line.
    whole = [text for text in metrics.read_text().splitlines(keepends=True) if text.endswith("\n")]
    episodes = [line["episode"] for text in whole if "episode" in (line := json.loads(text))]
    # An episode with a non-finite reward has no score, and a crash cut an episode short.
    episodes = [one for one in episodes if one["score"] is not None and not one.get("crashed")]
    if not episodes:
        return None
    size = -(-len(episodes) // POINTS)
    groups = [episodes[start : start + size] for start in range(0, len(episodes), size)]
    return {
        name: [sum(episode[name] for episode in group) / len(group) for group in groups]
        for name in ("step", "score")
    }
