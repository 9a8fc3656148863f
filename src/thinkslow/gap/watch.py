"""Record moments of play: the carried state, the observation, and what followed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from thinkslow.agent.inputs import Carry
from thinkslow.envs import Step

Frames = dict[str, np.ndarray]


@dataclasses.dataclass
class Seen:
    """One decision of the base agent, and what followed."""

    decision: int
    state: Any
    """The carry from the previous decision."""
    action: np.ndarray
    """The action that led here."""
    observation: Frames
    actions: list[np.ndarray] = dataclasses.field(default_factory=list)
    """The actions from here on."""
    later: list[Frames] = dataclasses.field(default_factory=list)
    """The observations after these actions."""


class Recorder:
    """Watches a block of episodes that the base agent plays. `moments` returns them after the
    block.

    A moment is complete after `lag` more frames. For each episode it keeps up to about twice the
    wanted number of moments, with larger distances the longer the episode is.

    Args:
        carry: the agent's carry at the start, for the whole batch.
        lag: number of frames that must follow a moment.
        moments: wanted number of moments of each episode.
    """

    def __init__(self, carry: Carry, *, lag: int, moments: int):
        count = len(jax.tree.leaves(carry.action)[0])
        self.lag, self.wanted = lag, moments
        self._carried = (carry.state, carry.action)
        self._now: Frames = {}
        self._kept: list[list[Seen]] = [[] for _ in range(count)]
        self._stride = [1] * count
        self._number = np.zeros(count, int)

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        self._now = {name: np.array(part) for name, part in observation.items()}

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        """Record a moment, and add the new frame to earlier ones."""
        taken, carried = np.asarray(action), jax.tree.map(np.asarray, self._carried)
        for index in map(int, np.flatnonzero(playing)):
            kept, number = self._kept[index], int(self._number[index])
            if number % self._stride[index] == 0:
                state, before = jax.tree.map(lambda x, i=index: x[i], carried)
                kept.append(Seen(number, state, before, _row(self._now, index)))
            for moment in kept:
                if len(moment.later) < self.lag:
                    moment.actions.append(taken[index])
                    moment.later.append(_row(step.observation, index))
            if step.crashed[index]:  # its last observation does not belong to the episode
                kept[:] = [one for one in kept if number - one.decision >= self.lag]
            self._number[index] += 1
            if len(kept) > 2 * self.wanted + self.lag:
                self._stride[index] *= 2
                kept[:] = [one for one in kept if one.decision % self._stride[index] == 0]
        self._carried = (thought.state, action)
        self.began(step.observation)

    def moments(self, index: int) -> list[Seen]:
        """Moments of one environment's episode, evenly spread, at most the wanted number."""
        whole = [one for one in self._kept[index] if len(one.later) == self.lag]
        count = min(len(whole), self.wanted)
        chosen = np.unique(np.linspace(0, len(whole) - 1, count).astype(int)) if count else ()
        return [whole[at] for at in chosen]


def _row(observation: Mapping[str, np.ndarray], index: int) -> Frames:
    return {name: np.array(part[index]) for name, part in observation.items()}
