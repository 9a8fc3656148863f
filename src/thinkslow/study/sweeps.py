"""Find arms that differ in one number only, such as the length of the rollout: series of a
figure.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from thinkslow.evaluation.reading import Record, kind
from thinkslow.evaluation.records import BASE

WORDS = {
    "horizon": "imagined steps (length of the rollout)",
    "steps": "refinement steps",
    "max_kl": "bound of the move, nats",
    "update.step_size": "step size",
    "rollouts": "rollouts",
    "particles": "particles",
    "share": "share of decisions with thinking",
    "lag": "frames encoded again",
}
"""Labels of settings on the page; other settings keep their own names."""
NUMBERS = re.compile(r"(\w+)=([-+.\deE]+)(?=[,)])")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Arms along one setting."""

    setting: str
    """The name of the setting, such as `horizon` or `update.step_size`."""
    arms: Mapping[str, float]
    """The value of each arm, in increasing order."""

    @property
    def words(self) -> str:
        return WORDS.get(self.setting, self.setting.rpartition(".")[2].replace("_", " "))

    @property
    def name(self) -> str:
        """The common part of the names of its arms.

        >>> Sweep(setting="horizon", arms={"sig-1": 1.0, "sig-16": 16.0}).name
        'sig'
        """
        first, *others = self.arms
        shared = first
        for other in others:
            while not other.startswith(shared):
                shared = shared[:-1]
        return shared.rstrip(" -.0123456789") or first


def sweeps(arms: Sequence[Record]) -> list[Sweep]:
    """Every series of two or more arms of one kind that differ in one number only.

    Args:
        arms: the arms of one agent, from a summary.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for arm in arms:
        settings = _settings(arm) if arm["arm"] != BASE else {}
        for place, value in settings.items():
            if isinstance(value, float):
                rest = repr(sorted((k, str(v)) for k, v in settings.items() if k != place))
                found.setdefault((place, kind(arm["arm"]) + rest), {})[arm["arm"]] = value
    return [
        Sweep(setting=place, arms=dict(sorted(each.items(), key=lambda one: one[1])))
        for (place, _), each in found.items()
        if 1 < len(each) == len(set(each.values()))
    ]


def _settings(arm: Record) -> dict[str, Any]:
    """The settings of an arm by name, with the numbers of objects as separate entries; empty for an
    arm of another kind of agent.
    """
    if not arm.get("thinking"):
        return {}
    of_arm = {name: arm.get(name) for name in ("gate", "share", "deadline_ms")}
    out: dict[str, Any] = {}
    for name, value in (arm["thinking"] | of_arm).items():
        if isinstance(value, str):
            numbers = {f"{name}.{key}": float(each) for key, each in NUMBERS.findall(value)}
            out |= {name: NUMBERS.sub(r"\1", value), **numbers}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            out[name] = float(value)
        else:
            out[name] = value
    return out
