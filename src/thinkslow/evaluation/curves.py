"""The learning curves behind evaluated agents, from the metrics of their runs."""

import json
from pathlib import Path
from typing import Any

POINTS = 200
"""Number of points of a curve; each is the mean of an equal share of the episodes."""


def read_curve(metrics: Path) -> dict[str, list[float]] | None:
    """Score by decision, averaged in up to `POINTS` groups; None without finished episodes.

    Lines that are not JSON are left out: an evaluation must not fail because of a damaged log.
    """
    if not metrics.is_file():
        return None
    found = map(_episode, metrics.read_text(errors="replace").splitlines())
    episodes = [one for one in found if one is not None]
    if not episodes:
        return None
    size = -(-len(episodes) // POINTS)
    groups = [episodes[start : start + size] for start in range(0, len(episodes), size)]
    return {
        name: [sum(episode[name] for episode in group) / len(group) for group in groups]
        for name in ("step", "score")
    }


def _episode(text: str) -> dict[str, Any] | None:
    """The episode of a line of a log; None for other lines, and if it has no score to count.

    An episode with a non-finite reward has no score, and a crash cut an episode short.
    """
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    episode = line.get("episode") if isinstance(line, dict) else None
    if not isinstance(episode, dict) or episode.get("crashed") or "step" not in episode:
        return None
    return None if episode.get("score") is None else episode
