"""The threshold of a gate, from episodes of its own: as often as it was told, and no oftener."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from thinkslow.agent.agent import AbstractAgent
from thinkslow.agent.gates import Gated, threshold_of
from thinkslow.envs import Step, VectorEnv
from thinkslow.evaluation.play import play
from thinkslow.evaluation.seeds import CALIBRATION, episode_seed
from thinkslow.evaluation.subjects import described_environment, fitted, refuse_modules


def calibrated(
    agent: AbstractAgent, environment: str | Mapping[str, Any], *, seed: int = 0, batch: int = 8
) -> AbstractAgent:
    """The agent behind its gate, whose threshold opens it in the share that was asked for.

    Args:
        agent: any; one without a gate, or whose gate has a threshold, comes back as it is.
        environment: its id, or a mapping with `id` and, if wanted, `size` and `repeat`.
        seed: environment seeds follow from it; no evaluation uses them.
        batch: episodes to calibrate by, side by side.

    **Cost:** `batch` episodes without refinement.

    **Errors:** those of the environment; `ValueError` if every doubt was NaN.
    """
    if not _waits(agent):
        return agent
    refuse_modules(environment, [agent])
    with VectorEnv(**described_environment(environment), count=batch) as envs:
        return calibrated_in(fitted(agent, envs, name="the agent"), envs, seed)


def calibrated_in(
    agent: AbstractAgent, envs: VectorEnv, seed: int, *, max_decisions: int | None = None
) -> AbstractAgent:
    """The same in environments that are there already."""
    if not _waits(agent):
        return agent
    assert isinstance(agent, Gated)
    assert agent.share is not None
    seeds = [episode_seed(seed, index, purpose=CALIBRATION) for index in range(envs.count)]
    doubts = _Doubts()
    closed = agent.opening_above(np.inf)
    play(closed, envs, seeds, seed, max_decisions=max_decisions, watchers=[doubts])
    return agent.opening_above(threshold_of(doubts.found, agent.share))


def _waits(agent: AbstractAgent) -> bool:
    return isinstance(agent, Gated) and agent.threshold is None


class _Doubts:
    """The doubts of every decision of the episodes that go on."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        pass

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        self.found += np.asarray(thought.doubt)[playing].tolist()
