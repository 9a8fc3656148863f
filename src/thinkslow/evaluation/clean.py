"""Measure the usual errors of an agent on clean frames by playing, for its check."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array
from numpy.lib.stride_tricks import sliding_window_view

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.agent import Agent
from thinkslow.agent.checks import Clean
from thinkslow.agent.checks.clean import BLOCKS, LEAST, MOST, errors_of, images, mean_error
from thinkslow.agent.thinking import Thinking
from thinkslow.envs import Step, VectorEnv, arguments
from thinkslow.evaluation.play import play
from thinkslow.evaluation.seeds import CALIBRATION, episode_seed
from thinkslow.worldmodel import State, target

FALSE_ALARMS = 0.005
"""Share of clean frames that lie above each threshold."""
FALSE_PATCHES = 0.01
"""Share of the errors of each patch on clean frames that lie above `Clean.largest`."""
FALSE_COVERS = 0.01
"""Share of clean frames with a patch that counts as covered."""


def wants_clean(agent: AbstractAgent) -> bool:
    """Whether the agent checks frames and has no usual errors yet."""
    inner = agent.inner
    return inner is not None and inner.settings.check is not None and inner.clean is None


def with_clean(agent: AbstractAgent, clean: Clean) -> AbstractAgent:
    """The same agent with its usual errors."""
    assert isinstance(agent, Agent)  # an agent with a check has neither gate nor deadline
    return dataclasses.replace(agent, clean=clean)


def measured_clean(
    agent: AbstractAgent,
    environment: Mapping[str, Any],
    seed: int,
    count: int,
    *,
    max_decisions: int | None = None,
) -> Clean:
    """The usual errors in `count` episodes of the environment without its shift.

    Args:
        agent: an agent that fits the environment.
        environment: as in `thinkslow.envs.make`; a `shift` is left out.
        seed: environment seeds follow from it; no evaluation uses them.
        count: number of episodes, played in parallel; at least 2 are, because frames are compared
            with those of another episode.
        max_decisions: an episode is cut after this number of decisions.

    **Cost:** the episodes, with three decodings, two encodings and two steps of the
    core for each decision.
    """
    assert agent.inner is not None
    plain = agent.inner.having(Thinking())
    unshifted = {k: v for k, v in arguments(environment).items() if k != "shift"}
    seeds = [episode_seed(seed, index, purpose=CALIBRATION) for index in range(max(2, count))]
    frames = _Frames(plain.model)
    with VectorEnv(**unshifted, count=len(seeds)) as envs:
        play(plain, envs, seeds, seed, max_decisions=max_decisions, watchers=[frames])
    return clean_of(frames.found)


class _Frames:
    """The errors of every decision of the running episodes."""

    def __init__(self, model: Any):
        self.model = model
        self._now: Mapping[str, np.ndarray] = {}
        self.found: list[tuple] = []

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        self._now = {name: array.copy() for name, array in observation.items()}

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        found = _measured(self.model, thought.base, self._now, action, jr.key(len(self.found)))
        self.found.append(jax.tree.map(lambda x: np.asarray(x)[playing], found))
        self.began(step.observation)


def clean_of(found: Sequence[tuple]) -> Clean:
    """The usual errors, from those of every decision.

    Args:
        found: for several decisions each, the errors by patch, those of the frame of another
            episode, the mean errors without history, and the means and mean squares by channel;
            leading axis: the decisions.
    """
    errors, others, alone, means, squares = jax.tree.map(lambda *x: np.concatenate(x), *found)
    usual = {k: np.maximum(np.median(v, 0), LEAST) for k, v in errors.items()}
    own, unrelated = (_distances(each, usual) for each in (errors, others))
    pictures = {k: v for k, v in errors.items() if v.ndim == 3}
    largest = {
        k: np.maximum(np.quantile(v, 1 - FALSE_PATCHES, 0), LEAST) for k, v in pictures.items()
    }
    mean = {k: v.mean(0) for k, v in means.items()}
    return Clean(
        errors={k: jnp.asarray(v, jnp.float32) for k, v in usual.items()},
        threshold=float(np.quantile(own, 1 - FALSE_ALARMS)),
        unrelated=float(np.median(unrelated)),
        alone=float(np.quantile(alone, 1 - FALSE_ALARMS)),
        largest={k: jnp.asarray(v, jnp.float32) for k, v in largest.items()},
        blocks=jnp.asarray(
            [limit([v / largest[k] for k, v in pictures.items()], side) for side in BLOCKS],
            jnp.float32,
        ),
        means={k: jnp.asarray(v, jnp.float32) for k, v in mean.items()},
        deviations={
            k: jnp.asarray(np.sqrt(np.maximum(v.mean(0) - mean[k] ** 2, 0)), jnp.float32)
            for k, v in squares.items()
        },
    )


def _distances(errors: Mapping[str, np.ndarray], usual: Mapping[str, np.ndarray]) -> np.ndarray:
    """The distance of each decision: see `Clean.distance`."""
    capped = [np.minimum(v / usual[k], MOST).reshape(len(v), -1) for k, v in errors.items()]
    return np.concatenate(capped, 1).mean(1)


def limit(ratios: list[np.ndarray], side: int) -> float:
    """The threshold of blocks of `side` x `side`; infinite where no image holds one.

    Args:
        ratios: of each image, errors in units of the largest, `[frames, rows, columns]`.
    """
    found = [
        sliding_window_view(each, (side, side), (1, 2)).min((3, 4)).max((1, 2))
        for each in ratios
        if min(each.shape[1:]) >= side
    ]
    if not found:
        return float("inf")
    return float(np.quantile(np.max(found, 0), 1 - FALSE_COVERS / len(BLOCKS)))


@eqx.filter_jit
def _measured(model: Any, states: State, observation: Any, actions: Array, key: Array) -> Any:
    """Errors by patch, those of the next episode's frame, the mean error without history, means and
    mean squares by channel."""
    spaces = dict(model.observation_spaces)
    seen = {k: v for k, v in observation.items() if k in spaces} if spaces else observation

    def one(state: State, seen: Any, other: Any, action: Array, key: Array) -> Any:
        heads = model.decode(state)
        memory, _ = model.predict(model.initial(), jnp.zeros_like(action), jnp.ones((), bool))
        latent = model.infer(memory, seen).sample(key=key).astype(state.latent.dtype)
        alone = mean_error(errors_of(model.decode(State(memory, latent)), seen))
        shown = {k: target(heads[k], seen[k]) for k in images(heads)}
        means = {k: jnp.mean(x, (0, 1)) for k, x in shown.items()}
        squares = {k: jnp.mean(x**2, (0, 1)) for k, x in shown.items()}
        return errors_of(heads, seen), errors_of(heads, other), alone, means, squares

    others = jax.tree.map(lambda x: jnp.roll(x, 1, 0), seen)
    return jax.vmap(one)(states, seen, others, actions, jr.split(key, len(actions)))
