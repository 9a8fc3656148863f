"""Reference scores of random and scripted players, for comparison with agents.

They exist only for the project's own tasks and come from `benchmarks/players.py`.
"""

from collections.abc import Mapping
from typing import Any

KNOWN: Mapping[tuple[str, int], Mapping[str, float]] = {
    ("thinkslow/CollectGoodObjects-v0", 250): {"random": 0.72, "scripted": 22.8},
    ("thinkslow/CollectGoodObjects-v0", 60): {"random": 0.16, "scripted": 5.6},
}
"""Mean score of random play, and of a scripted player that sees the whole world, by environment
and decisions of an episode."""
CHANGES = ("wrappers", "shift", "image")
"""Parts of an environment's description that can change the task, besides its options."""
LENGTH = 250
"""Number of decisions of an episode by default."""


def known_scores(summary: Mapping[str, Any]) -> Mapping[str, float]:
    """The scores by player; empty for a changed task, or if episodes were cut.

    >>> known_scores({"environment": {"id": "CartPole-v1"}, "protocol": {}})
    {}
    """
    environment = summary["environment"]
    options = dict(environment.get("options") or {})
    length = options.pop("decisions", LENGTH)
    changed = any(environment.get(name) for name in CHANGES) or environment.get("repeat", 1) != 1
    if options or changed or summary["protocol"].get("max_decisions") is not None:
        return {}
    return dict(KNOWN.get((environment.get("id", ""), length), {}))
