"""Calibrate an agent before it plays, on separate episodes.

This sets the threshold of a gate, so that it opens for its share of the decisions; the range of the
agent's returns, for choices by value; and the usual errors on clean frames, for a check.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.gates import Gated, GateScore
from thinkslow.agent.gates.gated import threshold_of
from thinkslow.agent.thinking import Thinking
from thinkslow.envs import Step, VectorEnv
from thinkslow.envs.descriptions import described_environment
from thinkslow.evaluation.clean import measured_clean, wants_clean, with_clean
from thinkslow.evaluation.play import play
from thinkslow.evaluation.seeds import CALIBRATION, episode_seed
from thinkslow.evaluation.subjects import fitted
from thinkslow.heads import expected
from thinkslow.needs import CRITIC, DISCOUNT, unmet
from thinkslow.worldmodel import State


def calibrated(
    agent: AbstractAgent, environment: str | Mapping[str, Any], *, seed: int = 0, batch: int = 8
) -> AbstractAgent:
    """The agent with a calibrated gate, with the range of its returns if it chooses by value, and
    with its usual errors on clean frames if it checks frames.

    Args:
        agent: any agent; if it needs no calibration, it is returned unchanged.
        environment: its id, or a mapping with `id` and optionally `size` and `repeat`.
        seed: environment seeds follow from it; no evaluation uses them.
        batch: number of calibration episodes, played in parallel.

    **Cost:** `batch` episodes without thinking for each quantity.

    **Errors:** those of the environment; `ValueError` if every score was NaN.
    """
    if not needs_calibration(agent):
        return agent
    described = described_environment(environment)
    with VectorEnv(**described, count=batch) as envs:
        agent = fitted(agent, envs, name="the agent")
        if not wants_clean(agent):
            return calibrated_in(agent, envs, seed)
    agent = with_clean(agent, measured_clean(agent, described, seed, batch))
    return calibrated(agent, environment, seed=seed, batch=batch)


def needs_calibration(agent: AbstractAgent) -> bool:
    """Whether `calibrated` plays episodes for an agent."""
    return _waits(agent) or lacks_returns(agent) or wants_clean(agent)


def calibrated_in(
    agent: AbstractAgent, envs: VectorEnv, seed: int, *, max_decisions: int | None = None
) -> AbstractAgent:
    """`calibrated` in existing environments."""
    if lacks_returns(agent):
        agent = agent.having_returns(
            returns_in(agent, envs, seed, max_decisions=max_decisions).spread
        )
    if not _waits(agent):
        return agent
    assert isinstance(agent, Gated)
    assert agent.share is not None

    def threshold(score: GateScore, share: float) -> float:
        doubts, closed = _Doubts(), Gated(agent.inner, score, np.inf)
        play(closed, envs, _seeds(seed, envs), seed, max_decisions=max_decisions, watchers=[doubts])
        return threshold_of(doubts.found, share)

    score = agent.score.calibrated(threshold)
    return Gated(agent.inner, score, threshold(score, agent.share), share=agent.share)


class Returns(NamedTuple):
    """The range of the returns of an agent."""

    low: float
    """The 5% percentile of the returns."""
    high: float
    """The 95% percentile of the returns."""

    @property
    def spread(self) -> float:
        """The range that scales values; at least 1, as in training."""
        return max(1.0, self.high - self.low)


def returns_in(
    agent: AbstractAgent, envs: VectorEnv, seed: int, *, max_decisions: int | None = None
) -> Returns:
    """The 5% and 95% percentiles of the lambda-returns of an agent's own episodes.

    Args:
        agent: an agent whose model has a critic; it plays without thinking.
        envs: the environments; one episode is played in each.
        seed: environment seeds follow from it; no evaluation uses them.
        max_decisions: an episode is cut after this number of decisions.

    **Cost:** as many episodes as there are environments.

    **Errors:** `ValueError` for an agent without critic or discount.
    """
    inner = agent.inner
    reason = "it is not an `Agent`" if inner is None else unmet(inner.model, (CRITIC, DISCOUNT))
    if inner is None or reason is not None:
        raise ValueError(f"The returns of this agent cannot be measured: {reason}.")
    lived = _Lived(inner.model, envs.count)
    play(
        inner.having(Thinking()),
        envs,
        _seeds(seed, envs),
        seed,
        max_decisions=max_decisions,
        watchers=[lived],
    )
    low, high = np.percentile(lived.returns(), [5.0, 95.0])
    return Returns(float(low), float(high))


def _seeds(seed: int, envs: VectorEnv) -> list[int]:
    return [episode_seed(seed, index, purpose=CALIBRATION) for index in range(envs.count)]


def _waits(agent: AbstractAgent) -> bool:
    return isinstance(agent, Gated) and agent.threshold is None


def lacks_returns(agent: AbstractAgent) -> bool:
    """Whether an agent needs the range of its returns and does not have it."""
    return agent.inner is not None and agent.inner.lacks_returns


class _Doubts:
    """The scores of every decision of the running episodes."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        pass

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        self.found += np.asarray(thought.doubt)[playing].tolist()


class _Lived:
    """Values and rewards of every decision: three numbers each."""

    def __init__(self, model: Any, count: int):
        self.model = model
        self.steps: list[list[tuple[float, float, float]]] = [[] for _ in range(count)]

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        pass

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        values, discounts = (np.asarray(x) for x in _worth(self.model, thought.state))
        for index in np.flatnonzero(playing):
            reward = float(step.reward[index]) if np.isfinite(step.reward[index]) else 0.0
            self.steps[index].append((float(values[index]), float(discounts[index]), reward))

    def returns(self) -> list[float]:
        """Lambda-returns of every decision except the last of each episode, from which they
        bootstrap.
        """
        out = []
        for steps in self.steps:
            later = steps[-1][0]
            for (_, _, reward), (value, discount, _) in zip(
                steps[-2::-1], steps[:0:-1], strict=True
            ):
                later = reward + discount * ((1 - TRACE) * value + TRACE * later)
                out.append(later)
        return out or [steps[-1][0] for steps in self.steps]


TRACE = 0.95
"""Lambda of these returns, as in training."""


@jax.jit
def _worth(model: Any, states: State) -> tuple[Array, Array]:
    """Value and discount of each state."""

    def one(state: State) -> tuple[Array, Array]:
        return expected(model.value(state)), model.discount(state)

    return jax.vmap(one)(states)
