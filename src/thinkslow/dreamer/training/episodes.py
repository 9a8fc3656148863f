"""What is counted of the episodes that a run plays, and values in them that are not finite."""

import dataclasses
from collections import deque
from typing import Any

import numpy as np

from thinkslow.dreamer.training.logs import log
from thinkslow.envs import Step

RECENT = 20
"""Episodes of which a run shows the mean score."""


class Episodes:
    """Score, length and faults of the present episode of every environment.

    A reward or an observation that is not finite would make every later loss so. It is found
    here, where it enters: learning takes 0 in its place, the episode is marked with how many
    there were, and each environment is named once.
    """

    def __init__(self, environments: int):
        self.number = np.zeros(environments, np.int64)
        """Episodes begun."""
        self.score = np.zeros(environments)
        self.length = np.zeros(environments, np.int64)
        self.nonfinite = np.zeros(environments, np.int64)
        self.recent: deque[float] = deque(maxlen=RECENT)
        self._said: set[int] = set()

    def arrays(self) -> dict[str, np.ndarray]:
        """What a save needs, besides `recent`."""
        names = ("number", "score", "length", "nonfinite")
        return {name: getattr(self, name) for name in names}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            getattr(self, name)[:] = array

    @property
    def mean(self) -> float | None:
        """Score of the last finished episodes; None before the first."""
        return float(np.mean(self.recent)) if self.recent else None

    def see(self, step: Step, decision: int) -> tuple[Step, list[dict[str, Any]]]:
        """Count one step: the step to learn from, and a record of each episode that it ends.

        The score of an episode with a reward that is not finite is not finite either.
        """
        self.number += step.is_first
        for counted in (self.score, self.length, self.nonfinite):
            counted[step.is_first] = 0
        self.length += ~step.is_first
        self.score += step.reward
        clean = self._cleaned(step, decision)
        records = []
        for index in np.flatnonzero(step.is_last):
            score = float(self.score[index])
            record = {
                "step": decision, "score": score, "length": int(self.length[index]),
                "crashed": bool(step.crashed[index]),
            }  # fmt: skip
            if self.nonfinite[index]:
                record["nonfinite"] = int(self.nonfinite[index])
            records.append(record)
            if np.isfinite(score):
                self.recent.append(score)
        return clean, records

    def _cleaned(self, step: Step, decision: int) -> Step:
        values = {f"`{name}`": array for name, array in step.observation.items()}
        values["reward"] = step.reward
        bad = {
            name: ~np.isfinite(array) for name, array in values.items() if array.dtype.kind == "f"
        }
        bad = {name: where for name, where in bad.items() if where.any()}
        if not bad:
            return step
        for name, where in bad.items():
            count = where.reshape(len(where), -1).sum(1)
            self.nonfinite += count
            for index in np.flatnonzero(count):
                self._say(int(index), name, int(count[index]), decision)
            values[name] = np.where(where, 0, values[name]).astype(values[name].dtype)
        seen = {name: values[f"`{name}`"] for name in step.observation}
        return step._replace(observation=seen, reward=values["reward"])

    def _say(self, index: int, name: str, count: int, decision: int) -> None:
        if index in self._said:
            return
        self._said.add(index)
        log.warning(
            "Environment %d gave a value that is not finite: %d of its %s at step %d of its "
            "episode %d (decision %d). Learning takes 0 in its place, and metrics.jsonl counts "
            "them as `nonfinite` of the episode. Mend the environment; this is said once for each.",
            index, count, name, self.length[index], self.number[index], decision,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a run shows while it goes on."""

    steps: int
    updates: int
    score: float | None
    """Mean of the last 20 episodes; None before the first."""
