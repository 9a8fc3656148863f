"""Compute what a model predicts in a played episode: images, futures, policies, values.

Everything is computed in chunks of one size, so it compiles once for every length of the episode.
Images are passed on chunk by chunk.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.agent import greedy_policy, own_policy
from thinkslow.distributions import Categorical, Gaussian
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.scoring import CHUNK, current, predicted
from thinkslow.evaluation.watching.episode import Episode, Told
from thinkslow.heads import BoundedNormal, expected
from thinkslow.needs import ACTOR, CRITIC, modes_of, unmet
from thinkslow.spaces import Space


class Parts(NamedTuple):
    """The parts of an observation to show, by name."""

    images: dict[str, Space]
    numbers: dict[str, Space]
    """Names of vectors and discrete parts."""
    decoded: tuple[str, ...]
    """Names of the parts that the model decodes in the same shape."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """The images of the arms at one decision: the present, then each of `AHEAD` steps."""

    number: int
    now: dict[str, dict[str, np.ndarray]]
    """The present, by arm and part."""
    later: dict[str, dict[str, np.ndarray]]
    """The imagined steps, by arm and part, with a leading axis of `AHEAD`, under the played
    actions.
    """


def parts_of(model: Any, observations: Mapping[str, Space]) -> Parts:
    """The parts of an observation, and which of them the model decodes.

    Args:
        model: a model of any kind.
        observations: the spaces of the environment; its flags of late frames are left out.
    """
    shown = {name: space for name, space in observations.items() if name not in TOLD}
    images = {name: space for name, space in shown.items() if space.is_image}
    numbers = {name: space for name, space in shown.items() if name not in images}
    if not hasattr(model, "decode"):
        return Parts(images, numbers, ())
    drawn = modes_of(model)
    fits = tuple(n for n, s in shown.items() if n in drawn and drawn[n].shape in _shapes(s))
    return Parts(images, numbers, fits)


TOLD = ("missing", "age")
"""Names of the flags of missing and late frames."""


def _shapes(space: Space) -> tuple[tuple[int, ...], ...]:
    """The shapes of a part, and of its probabilities if it is discrete."""
    whole = () if space.classes is None else ((*space.shape, space.classes),)
    return (space.shape, *whole)


def believed(agent: AbstractAgent, told: Sequence[Told]) -> dict[str, np.ndarray]:
    """Numbers about the beliefs of one arm, one entry for each decision.

    Args:
        agent: the arm.
        told: its results at each decision.

    Returns `surprise`, `entropy_before` and `entropy_after` in nats; `value`, `[decisions, 2]`, if
    the model has a critic; and `policy NAME` for each action, `[decisions, 2, …]`: before and after
    thinking, the probabilities, or mean and deviation along a last axis of two. Empty for an agent
    of another kind.
    """
    if any(one.beliefs is None for one in told):
        return {}
    model, inner = agent.model, agent.inner
    acts = inner is not None and inner.policy in (own_policy, greedy_policy)
    has = {
        "value": unmet(model, (CRITIC,)) is None,
        "policy": acts and unmet(model, (ACTOR,)) is None,
    }
    found: list[dict[str, np.ndarray]] = []
    for first in range(0, len(told), CHUNK):
        some = told[first : first + CHUNK]
        padded = [*some, *[some[-1]] * (CHUNK - len(some))]
        beliefs, states = jax.tree.map(
            lambda *xs: np.stack(xs), *[(one.beliefs, one.states) for one in padded]
        )
        each = _numbers(model, beliefs, states, has["value"], has["policy"])
        found.append({name: np.asarray(value)[: len(some)] for name, value in each.items()})
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


@eqx.filter_jit
def _numbers(model: Any, beliefs: Any, states: Any, value: bool, policy: bool) -> dict[str, Any]:
    def one(beliefs: Any, states: Any) -> dict[str, Any]:
        prior, before, after = beliefs
        out = {
            "surprise": before.kl(prior),
            "entropy_before": before.entropy(),
            "entropy_after": after.entropy(),
        }
        if value:
            out["value"] = jnp.stack([expected(model.value(state)) for state in states])
        if policy:
            heads = [model.actor(state) for state in states]
            for name in heads[0]:
                out[f"policy {name}"] = jnp.stack([_said(each[name]) for each in heads])
        return out

    return jax.vmap(one)(beliefs, states)


def _said(head: Any) -> Any:
    """Probabilities of classes; for continuous actions, mean and deviation along a last axis."""
    if isinstance(head, Categorical):
        return head.probs()
    if isinstance(head, BoundedNormal):
        return jnp.stack([head.mean, head.scale], -1)
    if isinstance(head, Gaussian):
        return jnp.stack([head.mean, jnp.exp(head.log_scale)], -1)
    mode = head.mode()
    return jnp.stack([mode, jnp.full_like(mode, jnp.nan)], -1)


def decoded(model: Any, episode: Episode, names: Sequence[str]) -> Iterator[Shown]:
    """The images that every arm decodes and imagines at every decision, in order.

    Args:
        model: the model of the acting arm, which all arms share.
        episode: what was played.
        names: names of the parts to decode.
    """
    arms = list(episode.thoughts)
    actions = episode.actions
    last = len(actions) - 1
    reach = np.minimum(np.arange(len(actions))[:, None] + np.arange(max(AHEAD)), last)
    for first in range(0, episode.length if names else 0, CHUNK):
        places = np.arange(first, min(first + CHUNK, episode.length))
        padded = np.concatenate([places, np.repeat(places[-1:], CHUNK - len(places))])
        states = jax.tree.map(
            lambda *xs: np.stack(xs).reshape(len(arms), CHUNK, *xs[0].shape),
            *[episode.thoughts[arm][at].states[1] for arm in arms for at in padded],
        )
        found = jax.tree.map(
            np.asarray, predicted(model, states, jnp.asarray(actions[reach[padded]]), tuple(names))
        )
        for row, at in enumerate(places):
            yield Shown(
                int(at),
                {
                    arm: {n: now[a, row] for n, (now, _) in found.items()}
                    for a, arm in enumerate(arms)
                },
                {
                    arm: {n: later[a, row] for n, (_, later) in found.items()}
                    for a, arm in enumerate(arms)
                },
            )


def came(episode: Episode) -> list[bool]:
    """Whether each frame shows the present, by the flags of the environment."""
    out = []
    for frame in episode.frames:
        found = current({name: np.asarray(frame[name])[None] for name in TOLD if name in frame})
        out.append(found is None or bool(found[0]))
    return out
