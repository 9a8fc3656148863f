"""Revisit error: is what comes into view again predicted?

At regular moments the agent turns away and back, so that each frame comes again in reverse order.
At the turning point most of these views are out of sight, and a state can predict them only if it
remembers. The last one has been out of sight for longest. A frame is predicted without looking,
with the actions really taken and the mode of the imagined priors, as in `scoring`.

Arms are led through the same walk, so their numbers are paired frame by frame. Nothing here knows
what turning is: any two actions serve, and only situations count in which the frames really return.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.evaluation.images import psnr
from thinkslow.evaluation.scoring import EVERY
from thinkslow.evaluation.walks import Walk, led
from thinkslow.worldmodel import State

SAME_DB = 40.0
"""PSNR above which a frame counts as the one that was seen before."""
MEASURES = ("return", "way back", "next, turning back", "next", "now")
"""PSNR of: the last frame of the way back; the mean of all its frames, both predicted at the
turning point; the next frame, predicted again at each step of the way back; the next frame at other
moments, while the agent plays; and the present frame there."""


@dataclasses.dataclass(frozen=True)
class Turns:
    """When the agent turns away and back.

    **Errors:** `ValueError` if `every` leaves no time to play between two situations.
    """

    there: np.ndarray
    """The action vector that turns away."""
    back: np.ndarray
    """The action vector that turns back."""
    away: int = 4
    """How often it turns away, and then back."""
    every: int = 30
    """Decisions from one situation to the next; the first begins after as many."""

    def __post_init__(self) -> None:
        if self.away < 1 or self.every <= 2 * self.away:
            raise ValueError(
                "`away` must be 1 or more, and `every` above 2 * away; got "
                f"{self.away} and {self.every}."
            )

    def script(self, decision: int) -> np.ndarray | None:
        """The action at a decision; None: the agent's own.

        Args:
            decision: its number, from 0.
        """
        phase = decision % self.every
        if decision < self.every or phase >= 2 * self.away:
            return None
        return self.there if phase < self.away else self.back

    def points(self, decisions: int) -> list[int]:
        """The decisions at the turning points whose way back was seen to its end.

        Args:
            decisions: number of decisions of the walk.
        """
        begins = range(self.every, decisions, self.every)
        return [at + self.away for at in begins if at + 2 * self.away < decisions]


def returned(walk: Walk, turns: Turns, image: str) -> np.ndarray:
    """Which situations count, `[situations, episodes]`: all frames of the way back equal those of
    the way there, up to rounding (`SAME_DB`), and the episode went on until then.

    Args:
        walk: a walk with these turns.
        turns: when the agent turned.
        image: name of the image.
    """
    shown, out = walk.observations[image], []
    for point in turns.points(len(walk)):
        ways = [(point - by, point + by) for by in range(1, turns.away + 1)]
        same = [psnr(shown[one], shown[other]) >= SAME_DB for one, other in ways]
        out.append(np.all(same, 0) & walk.going[point + turns.away])
    return np.array(out, bool).reshape(-1, len(walk.environment_seeds))


def revisits(
    agent: AbstractAgent,
    walk: Walk,
    turns: Turns,
    image: str,
    *,
    changed: Callable[[Any, int], Any] | None = None,
    forgets: bool = False,
) -> dict[str, np.ndarray]:
    """The mean PSNR in dB of each episode, by the name of the measure.

    NaN for an episode without a situation that counts, and for a prediction that is non-finite.

    Args:
        agent: an arm, calibrated.
        walk: a walk with these turns.
        turns: when the agent turned.
        image: name of the image.
        changed: as `led` takes it.
        forgets: whether the memory is blank at each turning point, for a prediction without any.

    **Cost:** one decision for each frame, and `away` steps of the core and decodings for each
    situation.
    """
    shown, points = walk.observations[image], turns.points(len(walk))
    counts = returned(walk, turns, image)
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {measure: [] for measure in MEASURES}

    def predicted(state: State, decision: int, steps: int) -> np.ndarray:
        """PSNR `[episodes, steps]` of the frames after a decision."""
        actions = np.moveaxis(walk.actions[decision : decision + steps], 0, 1)
        frames = np.moveaxis(shown[decision + 1 : decision + 1 + steps], 0, 1)
        return psnr(np.asarray(imagined(agent.model, state, actions, image)), frames)

    for decision, before, thought in led(agent, walk, changed=changed):
        state = thought.state
        if decision in points:
            where = points.index(decision)
            if forgets:
                first = np.ones(len(walk.environment_seeds), bool)
                seen, keys = walk.seen(decision), walk.keys(decision)
                state = agent.act(before, seen, first, keys=keys)[2].state
            ahead = predicted(state, decision, turns.away)
            found["return"].append((ahead[:, -1], counts[where]))
            found["way back"].append((ahead.mean(1), counts[where]))
        for point, there in zip(points, counts, strict=True):
            if point <= decision < point + turns.away:
                after = predicted(state, decision, 1)[:, 0]
                found["next, turning back"].append((after, there))
        plays = turns.script(decision) is None and decision + 1 < len(walk)
        if plays and decision % EVERY == 0:
            there = walk.going[decision + 1]
            now = psnr(np.asarray(pictured(agent.model, state, image)), shown[decision])
            found["next"].append((predicted(state, decision, 1)[:, 0], there))
            found["now"].append((now, there))
    return {measure: _means(rows, len(walk.environment_seeds)) for measure, rows in found.items()}


@eqx.filter_jit
def imagined(model: Any, state: State, actions: Array | np.ndarray, image: str) -> Array:
    """Images `[episodes, steps, H, W, C]` predicted without looking.

    Args:
        model: the model, for one example.
        state: the states of all episodes.
        actions: `[episodes, steps, action]`.
        image: name of the image.
    """

    def one(state: State, actions: Array) -> Array:
        def step(state: State, action: Array) -> tuple[State, Array]:
            memory, prior = model.predict(state, action, jnp.zeros((), bool))
            state = State(memory, prior.mode().astype(state.latent.dtype))
            return state, model.decode(state)[image].mode()

        return jax.lax.scan(step, state, actions)[1]

    return jax.vmap(one)(state, jnp.asarray(actions))


@eqx.filter_jit
def pictured(model: Any, state: State, image: str) -> Array:
    """Images `[episodes, H, W, C]` decoded from the states of all episodes.

    Args:
        model: the model, for one example.
        state: the states.
        image: name of the image.
    """
    return jax.vmap(lambda state: model.decode(state)[image].mode())(state)


def _means(rows: list[tuple[np.ndarray, np.ndarray]], episodes: int) -> np.ndarray:
    """Means of each episode over the rows that count there; NaN without any."""
    values = np.array([value for value, _ in rows], np.float64).reshape(-1, episodes)
    counts = np.array([count for _, count in rows], bool).reshape(-1, episodes)
    total, number = np.where(counts, values, 0.0).sum(0), counts.sum(0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
