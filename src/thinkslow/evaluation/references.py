"""Reference scores of random and scripted players, for comparison with agents.

They exist only for the project's own tasks and come from `benchmarks/players.py`.
"""

from collections.abc import Mapping
from typing import Any

KNOWN: Mapping[str, Mapping[str, float]] = {
    "thinkslow/CollectGoodObjects-v0": {"random": 0.72, "scripted": 22.8},
}
"""Mean score of random play, and of a scripted player that sees the whole world, by environment."""
CHANGES = ("options", "wrappers", "shift", "image")
"""Of an environment's description: what may make it another task."""


def known_scores(summary: Mapping[str, Any]) -> Mapping[str, float]:
    """The scores by player; empty for a changed task, or if episodes were cut.

    >>> known_scores({"environment": {"id": "CartPole-v1"}, "protocol": {}})
    {}
    """
    environment = summary["environment"]
    changed = any(environment.get(name) for name in CHANGES) or environment.get("repeat", 1) != 1
    if changed or summary["protocol"].get("max_decisions") is not None:
        return {}
    return dict(KNOWN.get(environment.get("id", ""), {}))
