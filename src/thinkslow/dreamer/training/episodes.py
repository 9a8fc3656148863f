"""Statistics of the episodes of a run, including counts of non-finite values."""

import dataclasses
from collections import deque
from typing import Any

import numpy as np

from thinkslow.envs import Step

RECENT = 20
"""Number of last episodes whose mean score a run shows."""


class Episodes:
    """Score, length and non-finite values of the present episode of every environment.

    A non-finite reward or observation would make every later loss non-finite. `VectorEnv` detects
    and reports it on entry. Learning uses 0 instead, and the episode records the count.
    """

    def __init__(self, environments: int):
        self.score = np.zeros(environments)
        self.length = np.zeros(environments, np.int64)
        self.nonfinite = np.zeros(environments, np.int64)
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.ended = 0
        """Number of episodes that ended since this process began or resumed the run."""
        self.failed = 0
        """Number of those that ended because the environment failed."""
        self.last_failure = ""
        """Why the last of those did, in one line."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The state that a save needs, besides `recent`."""
        return {name: getattr(self, name) for name in ("score", "length", "nonfinite")}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            getattr(self, name)[:] = array

    @property
    def mean(self) -> float | None:
        """Score of the last finished episodes; None before the first."""
        return float(np.mean(self.recent)) if self.recent else None

    def see(self, step: Step, decision: int) -> tuple[Step, list[dict[str, Any]]]:
        """Count one step. Returns the step to learn from, and a record of each episode that it
        ends.

        An episode with a non-finite reward has a non-finite score. An episode that ended because
        its environment failed is marked, and no mean includes it.
        """
        for counted in (self.score, self.length, self.nonfinite):
            counted[step.is_first] = 0
        self.length += ~step.is_first
        self.score += step.reward
        for found in step.nonfinite:
            self.nonfinite[found.environment] += 1
        records = []
        for index in np.flatnonzero(step.is_last):
            score = float(self.score[index])
            record = {
                "step": decision,
                "score": score,
                "length": int(self.length[index]),
                "crashed": bool(step.crashed[index]),
            }
            self.ended += 1
            if (failure := step.errors[index]) is not None:
                record["error"] = failure.line
                self.failed += 1
                self.last_failure = failure.line
            if self.nonfinite[index]:
                record["nonfinite"] = int(self.nonfinite[index])
            records.append(record)
            if np.isfinite(score) and not step.crashed[index]:
                self.recent.append(score)
        reward = np.where(np.isfinite(step.reward), step.reward, 0).astype(step.reward.dtype)
        return step._replace(reward=reward), records


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress that a run reports."""

    steps: int
    updates: int
    score: float | None
    """Mean of the last 20 episodes; None before the first."""
