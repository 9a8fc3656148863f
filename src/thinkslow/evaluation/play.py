"""A block of episodes: one in each environment, side by side, under given seeds.

Nothing of an episode is kept but sums and what the scorer of its images still needs, so that
memory does not grow with its length (but for 8 bytes a decision: its milliseconds).
"""

import dataclasses
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from thinkslow.agent.agent import AbstractAgent
from thinkslow.envs import Step, VectorEnv


@runtime_checkable
class Watcher(Protocol):
    """Who sees every decision of a block."""

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        """The first observations."""

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        """One decision of the environments that play, and the step that it led to."""


@dataclasses.dataclass
class Played:
    """One episode, as it goes on and when it is over."""

    environment_seed: int
    first_observation: str
    score: float = 0.0
    rewards_size: float = 0.0
    length: int = 0
    crashed: bool = False
    error: str | None = None
    cut: bool = False
    nonfinite: int = 0
    nonfinite_first: str | None = None
    thoughts: int = 0
    moved: float = 0.0
    latency_ms: array = dataclasses.field(default_factory=lambda: array("d"))
    """Of each decision of the whole batch while this episode went on."""


def play(
    agent: AbstractAgent, envs: VectorEnv, seeds: Sequence[int], seed: int, *,
    max_decisions: int | None = None, watchers: Sequence[Watcher] = (),
    tick: Callable[[int, int], None] = lambda *_: None,
) -> list[Played]:  # fmt: skip
    """One episode in each environment, under its environment seed.

    Args:
        agent: Who plays; all episodes in one batch, whose shape never changes.
        envs: As many environments as there are seeds.
        seeds: Environment seeds.
        seed: Of the noise of latents and actions, with environment seed and decision.
        max_decisions: An episode that has made so many is cut.
        watchers: Told of every decision.
        tick: Told how many decisions were made, and how many episodes are over.

    **Errors:** those of the environments.
    """
    # Equinox goes through all arrays of an object whenever one of its methods is looked up.
    act, split = agent.act, agent.model.split
    step = envs.reset(seeds)
    carry = agent.start(envs.count)
    playing = np.ones(envs.count, bool)
    played = [Played(one, first) for one, first in zip(seeds, envs.first_seen, strict=True)]
    _note_nonfinite(played, playing, step)
    own = jnp.array(seeds, jnp.uint32)
    for watcher in watchers:
        watcher.began(step.observation)
    # The first call compiles; its time is not the decision's.
    keys = decision_keys(seed, own, 0)
    agent.warm(carry, step.observation, step.is_first, keys=keys)
    decision = 0
    while playing.any():
        keys = jax.block_until_ready(decision_keys(seed, own, decision))
        begun = time.perf_counter()
        carry, action, thought = jax.block_until_ready(
            act(carry, step.observation, step.is_first, keys=keys)
        )
        latency_ms = 1e3 * (time.perf_counter() - begun)
        step = envs.step(_actions(split, action), playing=playing)
        decision += 1
        _note_nonfinite(played, playing, step)
        thinks, moved = np.asarray(thought.thinks), np.asarray(thought.moved)
        for index in map(int, np.flatnonzero(playing)):
            one = played[index]
            one.latency_ms.append(latency_ms)
            one.length += 1
            one.score += float(step.reward[index])
            one.rewards_size += abs(float(step.reward[index]))
            one.thoughts += bool(thinks[index])
            one.moved += float(moved[index])
            if step.crashed[index]:
                failure = step.errors[index]
                one.crashed, one.error = True, failure.line if failure else None
        for watcher in watchers:
            watcher.decided(playing, thought, action, step)
        playing &= ~step.is_last
        if max_decisions is not None and decision >= max_decisions:
            for index in np.flatnonzero(playing):
                played[index].cut = True
            playing[:] = False
        tick(decision, int(np.count_nonzero(~playing)))
    return played


def _actions(split: Callable[[Any], Mapping[str, Any]], action: Any) -> Any:
    """What the environments take: an array, or several by name."""
    parts = split(np.asarray(action))
    return next(iter(parts.values())) if len(parts) == 1 else parts


def _note_nonfinite(played: Sequence[Played], playing: np.ndarray, step: Step) -> None:
    for found in step.nonfinite:
        if playing[found.environment]:
            one = played[found.environment]
            one.nonfinite += 1
            one.nonfinite_first = one.nonfinite_first or f"{found.key} at step {found.step}"


@jax.jit
def decision_keys(seed: int | Array, seeds: Array, decision: int | Array) -> Array:
    """One key per environment: a function of protocol seed, environment seed and decision."""
    key = jr.key(seed)
    decisions = jnp.broadcast_to(decision, seeds.shape)
    return jax.vmap(lambda s, d: jr.fold_in(jr.fold_in(key, s), d))(seeds, decisions)
