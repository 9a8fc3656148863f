"""A block of episodes: one in each environment, in parallel, with given seeds.

Only sums and the frames that still have to be scored are kept, so memory does not grow with the
length of an episode (except for 8 bytes per decision, its milliseconds).
"""

import dataclasses
import logging
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from thinkslow import memory
from thinkslow.agent.abstract import AbstractAgent
from thinkslow.envs import Step, VectorEnv
from thinkslow.envs.steps import hash_of
from thinkslow.evaluation.subjects import told
from thinkslow.trees import put

REPEATED = 500
"""Steps of an episode that are played again, to see whether the environment repeats them."""

log = logging.getLogger("thinkslow")


@runtime_checkable
class Watcher(Protocol):
    """An observer of every decision of a block."""

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        """Receive the first observations."""

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        """Receive one decision of the playing environments, and the step that it led to."""


@dataclasses.dataclass
class Played:
    """One episode, while it runs and after its end."""

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
    """Milliseconds of each decision of the whole batch during the episode."""
    taken: list[tuple[Any, float]] = dataclasses.field(default_factory=list)
    """The first actions of the whole batch, `REPEATED` at most, and the first environment's reward
    for each; kept with its first episode.
    """
    led_to: str = ""
    """A hash of what the first environment showed after them."""


def play(
    agent: AbstractAgent,
    envs: VectorEnv,
    seeds: Sequence[int],
    seed: int,
    *,
    max_decisions: int | None = None,
    late: int = 0,
    watchers: Sequence[Watcher] = (),
    tick: Callable[[int, int], None] = lambda *_: None,
) -> list[Played]:
    """One episode in each environment, under its environment seed.

    Args:
        agent: the agent. It plays all episodes in one batch with a fixed shape.
        envs: one environment for each seed.
        seeds: environment seeds.
        seed: seed of the noise of latents and actions, together with environment seed and decision.
        max_decisions: an episode is cut after this number of decisions.
        late: number of steps of the environment while the agent thinks. Meanwhile the previous
            action continues. The environment waits for the first action of an episode.
        watchers: called with every decision.
        tick: called with the number of decisions made and of episodes finished.

    **Errors:** those of the environments.
    """
    # Equinox goes through all arrays of an object each time one of its methods is looked up.
    act, split = agent.act, agent.model.split
    step = envs.reset(seeds)
    carry = agent.start(envs.count)
    playing = np.ones(envs.count, bool)
    played = [Played(one, first) for one, first in zip(seeds, envs.first_seen, strict=True)]
    _note_nonfinite(played, playing, step)
    own = put(seeds, np.uint32)
    for watcher in watchers:
        watcher.began(step.observation)
    tell = Telling(agent, step.observation)
    _compile(agent, carry, step, tell(step.observation), decision_keys(seed, own, 0))
    decision, before, odd = 0, np.empty(0), False
    while playing.any():
        keys = jax.block_until_ready(decision_keys(seed, own, decision))
        waiting = late if decision else 0
        known = tell(step.observation, waiting)
        if waiting and tell.waited is not None:
            carry = tell.waited(carry, waiting)
        begun = time.perf_counter()
        carry, action, thought = jax.block_until_ready(
            act(carry, step.observation, step.is_first, keys=keys, **known)
        )
        latency_ms = 1e3 * (time.perf_counter() - begun)
        decision += 1
        odd = odd or _replaced(thought, decision)
        count_decision(played, playing, thought, latency_ms)
        acts = taken_by(split, action)
        for taken in [before] * waiting + [acts]:
            if not playing.any():
                break
            kept = playing[0] and len(played[0].taken) < REPEATED
            step = envs.step(taken, playing=playing)
            if kept:
                played[0].taken.append((taken, float(step.reward[0])))
                played[0].led_to = hash_of(step.observation, 0)
            count_step(played, playing, step)
            if taken is acts:
                for watcher in watchers:
                    watcher.decided(playing, thought, action, step)
            playing &= ~step.is_last
        before = acts
        if max_decisions is not None and decision >= max_decisions:
            for index in np.flatnonzero(playing):
                played[index].cut = True
            playing[:] = False
        tick(decision, int(np.count_nonzero(~playing)))
    return played


class Again(NamedTuple):
    """The beginning of an episode, compared with the same seed and actions later."""

    begins: bool
    """Whether it began with the same observation; if not, it was not played."""
    before: float
    """The sum of its rewards."""
    now: float
    leads: bool
    """Whether it led to the same observation, in as many steps."""

    def same(self, size: float) -> bool:
        """Whether it was the same episode.

        Args:
            size: the sum of the absolute rewards, which rounding is relative to.
        """
        return self.begins and self.leads and abs(self.now - self.before) <= 1e-6 * size


def played_again(envs: VectorEnv, first: Played) -> Again | None:
    """Play the beginning of a block's first episode again; None if it failed."""
    if first.crashed or first.nonfinite:
        return None
    before, now, led_to = sum(reward for _, reward in first.taken), 0.0, ""
    envs.reset([first.environment_seed] * envs.count)
    if envs.first_seen[0] != first.first_observation:
        return Again(False, before, now, False)
    alone = np.arange(envs.count) == 0
    for number, (taken, _) in enumerate(first.taken, start=1):
        step = envs.step(taken, playing=alone)
        if step.crashed[0]:
            return None
        now += float(step.reward[0])
        if number == len(first.taken):
            led_to = hash_of(step.observation, 0)
        elif step.is_last[0]:
            break
    return Again(True, before, now, led_to == first.led_to)


def _compile(
    agent: AbstractAgent, carry: Any, step: Step, known: Mapping[str, Any], keys: Array
) -> None:
    """Make a decision and drop it: the first one compiles, and its time must not be counted."""
    if known:
        jax.block_until_ready(agent.act(carry, step.observation, step.is_first, keys=keys, **known))
    else:
        agent.warm(carry, step.observation, step.is_first, keys=keys)
    memory.give_back()


def _replaced(thought: Any, decision: int) -> bool:
    """Whether something else was used than what the arm returned, with a warning."""
    replaced = getattr(thought, "replaced", None)
    if replaced is None or not np.any(replaced):
        return False
    log.warning(
        "The readout or the choice of this arm returned NaN, infinity or no action at "
        "decision %d; there and wherever it happens again, a sample of the encoder's "
        "belief or the policy's action is used. `thought.replaced` shows where.",
        decision,
    )
    return True


def count_decision(
    played: Sequence[Played], playing: np.ndarray, thought: Any, latency_ms: float
) -> None:
    """Add one decision of any agent to the episodes that it was made in."""
    thinks, moved = np.asarray(thought.thinks), np.asarray(thought.moved)
    for index in map(int, np.flatnonzero(playing)):
        one = played[index]
        one.latency_ms.append(latency_ms)
        one.length += 1
        one.thoughts += bool(thinks[index])
        one.moved += float(moved[index])


def count_step(played: Sequence[Played], playing: np.ndarray, step: Step) -> None:
    """Add one step of the environments to their episodes."""
    _note_nonfinite(played, playing, step)
    for index in map(int, np.flatnonzero(playing)):
        one = played[index]
        one.score += float(step.reward[index])
        one.rewards_size += abs(float(step.reward[index]))
        if step.crashed[index]:
            failure = step.errors[index]
            one.crashed, one.error = True, failure.line if failure else None


class Telling:
    """The flags that an agent receives: which observations are missing, and how old they will be
    once its action takes effect. Empty for an agent that receives no flags.
    """

    def __init__(self, agent: AbstractAgent, observation: Mapping[str, Any]):
        own = [name for name, _ in agent.observation_spaces]
        kinds = {"missing": bool, "age": np.int32} if told(agent) else {}
        self.kinds = {k: v for k, v in kinds.items() if k in observation and k not in own}
        inner = agent.inner
        late = inner is not None and inner.settings.delay > 0
        self.aged = told(agent) and late
        self.waited = inner.waited if inner is not None and self.aged else None

    def __call__(self, observation: Mapping[str, Any], waiting: int = 0) -> dict[str, Any]:
        out = {name: np.asarray(observation[name], kind) for name, kind in self.kinds.items()}
        if self.aged:
            count = len(next(iter(observation.values())))
            out["age"] = out.get("age", np.zeros(count, np.int32)) + np.int32(waiting)
        return out


def lateness_of(
    agent: AbstractAgent, envs: VectorEnv, seed: int, step_ms: float, *, repeats: int = 30
) -> int:
    """How many environment steps of `step_ms` milliseconds a decision takes, from its median time,
    alone and after compiling.

    Args:
        agent: the agent that plays.
        envs: environments that fit the agent; one episode is begun.
        seed: seed of that episode.
        step_ms: milliseconds of one step.
        repeats: number of decisions for the median.
    """
    step = envs.reset([seed] * envs.count)
    seen = {name: array[:1] for name, array in step.observation.items()}
    carry, keys = agent.start(1), jr.split(jr.key(0), 1)
    times = []
    for index in range(repeats + 2):
        begun = time.perf_counter()
        first = np.array([index == 0])
        carry, _, _ = jax.block_until_ready(agent.act(carry, seen, first, keys=keys))
        times.append(1e3 * (time.perf_counter() - begun))
    return int(np.median(times[2:]) // step_ms)


def taken_by(split: Callable[[Any], Mapping[str, Any]], action: Any) -> Any:
    """Actions in the form of the environments: an array, or several by name."""
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
