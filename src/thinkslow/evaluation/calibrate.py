"""The threshold of a gate, from episodes of its own: as often as it was told, and no oftener."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from thinkslow.agent.agent import Agent
from thinkslow.agent.gates import Gated, Score, calibrate
from thinkslow.envs import Step, VectorEnv
from thinkslow.evaluation.play import Playable, play
from thinkslow.evaluation.seeds import CALIBRATION, episode_seed


@dataclasses.dataclass(frozen=True)
class Uncalibrated:
    """An agent behind a gate whose threshold is not known yet, but in how large a share of the
    decisions it should open."""

    agent: Agent
    score: Score
    share: float
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> Any:
        return self.agent.model

    def start(self, batch: int) -> Any:
        return self.agent.start(batch)

    def act(self, carry: Any, observation: Any, is_first: Any, *, keys: Any) -> Any:
        raise RuntimeError("This gate has no threshold. Play what `calibrated` returns.")


def calibrated(
    agent: Playable, envs: VectorEnv, seed: int, *, max_decisions: int | None = None
) -> Playable:
    """The agent behind its gate, whose threshold opens it in the share that was asked for.

    The threshold is a quantile of the doubts of one episode in each environment, played without
    thinking, under seeds that no evaluation uses. Any other agent is returned as it is.

    **Errors:** those of the environments; `ValueError` if no doubt was a number.
    """
    if not isinstance(agent, Uncalibrated):
        return agent
    closed = Gated(agent.agent, agent.score, np.inf)
    seeds = [episode_seed(seed, index, purpose=CALIBRATION) for index in range(envs.count)]
    doubts = _Doubts()
    play(closed, envs, seeds, seed, max_decisions=max_decisions, watchers=[doubts])
    return Gated(agent.agent, agent.score, calibrate(doubts.found, agent.share))


class _Doubts:
    """The doubts of every decision of the episodes that go on."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        pass

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        self.found += np.asarray(thought.doubt)[playing].tolist()
