"""Walks: recorded episodes through which every arm is led with the same frames and actions.

Arms act differently and then see different frames. Here the base agent plays once, and a script may
replace some of its actions. Every arm is then led through the record: it sees each frame and
thinks, and the recorded action replaces its own. So arms differ only by their beliefs.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.envs import VectorEnv
from thinkslow.evaluation.play import decision_keys, taken_by

Script = Callable[[int], np.ndarray | None]
"""The action vector at a decision; None: the agent's own action."""


@dataclasses.dataclass(frozen=True)
class Walk:
    """Episodes of one batch. Leading axes: decisions, episodes."""

    seed: int
    """Seed of the noise of latents and actions."""
    environment_seeds: tuple[int, ...]
    observations: dict[str, np.ndarray]
    actions: np.ndarray
    """The action vectors that were taken after each frame."""
    going: np.ndarray
    """Whether the frame belongs to the episode. After its end, the last frame is repeated."""

    def __len__(self) -> int:
        return len(self.actions)

    def seen(self, decision: int) -> dict[str, np.ndarray]:
        """The observations before a decision, by name.

        Args:
            decision: its number, from 0.
        """
        return {name: array[decision] for name, array in self.observations.items()}

    def keys(self, decision: int) -> Any:
        """The keys of a decision: those of the base agent that was recorded.

        Args:
            decision: its number, from 0.
        """
        return decision_keys(self.seed, jnp.array(self.environment_seeds, jnp.uint32), decision)


def walked(
    agent: AbstractAgent,
    envs: VectorEnv,
    environment_seeds: Sequence[int],
    seed: int,
    *,
    script: Script = lambda _: None,
    decisions: int | None = None,
) -> Walk:
    """Record one episode in each environment.

    Args:
        agent: the base agent.
        envs: one environment for each environment seed.
        environment_seeds: seeds of the episodes.
        seed: seed of the noise of latents and actions.
        script: which action replaces the agent's own, if any.
        decisions: an episode is cut after this number of decisions.

    **Cost:** memory for every frame: 12 kB for an image of 64x64, 3 MB for 250 decisions.

    **Errors:** those of the environments.
    """
    step, carry = envs.reset(environment_seeds), agent.start(envs.count)
    walk = Walk(seed, tuple(environment_seeds), {}, np.empty(0), np.empty(0))
    playing, frames, actions, going = np.ones(envs.count, bool), [], [], []
    while playing.any() and (decisions is None or len(frames) < decisions):
        number = len(frames)
        frames.append(step.observation)
        going.append(playing)
        carry, action, _ = agent.act(carry, step.observation, step.is_first, keys=walk.keys(number))
        forced = script(number)
        if forced is not None:
            action = jnp.broadcast_to(jnp.asarray(forced, action.dtype), action.shape)
            carry = dataclasses.replace(carry, action=action)
        actions.append(np.asarray(action))
        step = envs.step(taken_by(agent.model.split, action), playing=playing)
        playing = playing & ~step.is_last
    names = frames[0].keys()
    return dataclasses.replace(
        walk,
        observations={name: np.stack([one[name] for one in frames]) for name in names},
        actions=np.stack(actions),
        going=np.stack(going),
    )


def led(
    agent: AbstractAgent, walk: Walk, *, changed: Callable[[Any, int], Any] | None = None
) -> Iterator[tuple[int, Any, Any]]:
    """Lead an agent through a walk; yields decision, carry before it, and thought.

    Args:
        agent: an arm, calibrated. It is told neither of missing frames nor of their age.
        walk: the record.
        changed: a change of the carry before a decision, such as a control makes.
    """
    carry = agent.start(len(walk.environment_seeds))
    for decision in range(len(walk)):
        if changed is not None:
            carry = changed(carry, decision)
        before = carry
        first = np.full(len(walk.environment_seeds), decision == 0)
        carry, _, thought = agent.act(carry, walk.seen(decision), first, keys=walk.keys(decision))
        yield decision, before, thought
        carry = dataclasses.replace(carry, action=jnp.asarray(walk.actions[decision]))
