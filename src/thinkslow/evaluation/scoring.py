"""Score how well a state predicts the present and later frames, while the episode runs.

Every fifth decision of an episode is scored: the present frame, decoded from the state that acted
and from the state without thinking, and open-loop predictions with the actions really taken and the
mode of the imagined priors, against the real frames. A moment, two states and four frames, waits
until its last frame is there. Complete moments are scored in chunks of one size, so nothing
compiles again and memory does not grow with the length of an episode.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from thinkslow.envs import Step
from thinkslow.evaluation.images import compared
from thinkslow.evaluation.metrics import AHEAD, IMAGE, ahead, gain
from thinkslow.needs import modes_of
from thinkslow.spaces import Space
from thinkslow.trees import put
from thinkslow.worldmodel import State

EVERY = 5
"""Decisions between two frames that are scored."""
CHUNK = 16
"""Moments that are scored together."""
Frames = dict[str, np.ndarray]
"""Arrays by the name of the image."""


@dataclasses.dataclass
class Waiting:
    """A decision that is scored, while it waits for later frames."""

    index: int
    """Index of the environment."""
    at: int
    """Number of decisions before it in the episode."""
    states: State
    """The state that acted and the state without thinking, stacked."""
    actions: list[np.ndarray]
    """The actions from this decision on."""
    came: dict[int, Frames]
    """Frames by the number of steps after this decision; 0 is the present frame."""


class Scorer:
    """Watches a block of episodes and scores their images. `scores` returns them after the
    block.
    """

    def __init__(self, model: Any, images: Sequence[str], count: int):
        self.model, self.images = model, tuple(images)
        self._waiting: list[list[Waiting]] = [[] for _ in range(count)]
        self._lengths = np.zeros(count, int)
        self._whole: list[Waiting] = []
        self._sums: list[dict[str, tuple[float, int]]] = [{} for _ in range(count)]
        self._now: Frames = {}
        self._current: np.ndarray | None = None

    @property
    def kept(self) -> int:
        """Number of moments in memory."""
        return len(self._whole) + sum(map(len, self._waiting))

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        self._now = {name: observation[name] for name in self.images}
        self._current = current(observation)

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        """Record a moment, add frames to waiting moments, and score complete ones."""
        if not self.images:
            return
        actions = np.asarray(action)
        states, now = None, current(step.observation)
        for index in np.flatnonzero(playing):
            at = int(self._lengths[index])
            if at % EVERY == 0 and self._shows(index):
                if states is None:
                    states = jax.tree.map(np.asarray, (thought.state, thought.base))
                both = jax.tree.map(lambda x, y, i=index: np.stack([x[i], y[i]]), *states)
                frames = {name: image[index] for name, image in self._now.items()}
                self._waiting[index].append(Waiting(int(index), at, both, [], {0: frames}))
            self._lengths[index] += 1
            for moment in self._waiting[index]:
                later = int(self._lengths[index]) - moment.at
                if later <= max(AHEAD):
                    moment.actions.append(actions[index])
                if later in AHEAD and (now is None or now[index]):
                    came = {name: step.observation[name][index] for name in self.images}
                    moment.came[later] = came
            over = bool(step.is_last[index])
            self._settle(int(index), over)
        self.began(step.observation)
        while len(self._whole) >= CHUNK:
            self._score(self._whole[:CHUNK])
            del self._whole[:CHUNK]

    def scores(self) -> list[dict[str, float | None]]:
        """Mean of every column over the scored decisions of each episode; NaN if a prediction was
        non-finite. None for an episode without scored images.
        """
        for index in range(len(self._waiting)):
            self._settle(index, over=True)
        for start in range(0, len(self._whole), CHUNK):
            self._score(self._whole[start : start + CHUNK])
        self._whole.clear()
        return [_columns(sums, self.images) for sums in self._sums]

    def _shows(self, index: Any) -> bool:
        """Whether an environment shows the present frame."""
        return self._current is None or bool(self._current[index])

    def _settle(self, index: int, over: bool) -> None:
        """Pass on the complete moments of an episode.

        A moment counts if the episode continues beyond its last later frame. The first moment
        always counts, with the frames that exist.
        """
        length = int(self._lengths[index])
        waiting = self._waiting[index]
        while waiting and length - waiting[0].at > max(AHEAD):
            self._whole.append(waiting.pop(0))
        if over:
            self._whole += [moment for moment in waiting if moment.at == 0]
            waiting.clear()

    def _score(self, moments: Sequence[Waiting]) -> None:
        padded = [*moments, *[moments[-1]] * (CHUNK - len(moments))]
        states = jax.tree.map(lambda *xs: np.stack(xs, 1), *[one.states for one in padded])
        # after the end of an episode there is nothing to compare with, so any action is valid
        actions = np.stack(
            [one.actions + one.actions[-1:] * (max(AHEAD) - len(one.actions)) for one in padded]
        )
        alike = all(np.array_equal(*both) for both in jax.tree.leaves(states))
        found = predicted(self.model, states, put(actions), self.images)
        for name, (now, later) in jax.tree.map(np.asarray, found).items():
            for steps, shown in zip((0, *AHEAD), (now, *np.moveaxis(later, 2, 0)), strict=True):
                rows = [row for row, one in enumerate(moments) if steps in one.came]
                if not rows:
                    continue
                truth = np.stack([moments[row].came[steps][name] for row in rows])
                after = compared(shown[0, rows], truth)
                before = after if alike else compared(shown[1, rows], truth)
                for measure in after:
                    column = ahead(measure, steps) if steps else measure
                    for row, one, other in zip(rows, after[measure], before[measure], strict=True):
                        sums = self._sums[moments[row].index]
                        _add(sums, f"{name}/{column}", float(one))
                        _add(sums, f"{name}/{gain(measure, steps)}", float(one - other))


def current(observation: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Which frames show the present, by the flags `missing` and `age` of an environment; None:
    all.
    """
    off = [observation[name] > 0 for name in ("missing", "age") if name in observation]
    return ~np.any(off, 0) if off else None


def visible(model: Any, observations: Mapping[str, Space]) -> list[str]:
    """The images of an environment that the model decodes, by name."""
    if not hasattr(model, "decode"):
        return []
    shown = {name: space.shape for name, space in observations.items() if space.is_image}
    drawn = modes_of(model)
    return [name for name, shape in shown.items() if name in drawn and drawn[name].shape == shape]


@eqx.filter_jit
def predicted(
    model: Any, states: State, actions: Array, images: tuple[str, ...]
) -> dict[str, tuple[Array, Array]]:
    """Images now `[2, N, H, W, C]` and after each of `AHEAD` steps `[2, N, ahead, H, W, C]`.

    `states` is `[2, N, ...]`: the state that acted and the one without thinking, both under the
    actions `[N, max(AHEAD), ...]`.
    """

    def one(state: State, actions: Array) -> dict[str, Array]:
        def step(state: State, action: Array) -> tuple[State, State]:
            memory, prior = model.predict(state, action, jnp.zeros((), bool))
            state = State(memory, prior.mode().astype(state.latent.dtype))
            return state, state

        later = jax.lax.scan(step, state, actions)[1]
        chosen = jnp.array(AHEAD) - 1
        shown = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest[chosen]]), state, later
        )
        decoded = jax.vmap(lambda state: {n: model.decode(state)[n].mode() for n in images})(shown)
        return decoded

    found = jax.vmap(jax.vmap(one), in_axes=(0, None))(states, actions)
    return {name: (image[:, :, 0], image[:, :, 1:]) for name, image in found.items()}


def _add(sums: dict[str, tuple[float, int]], column: str, value: float) -> None:
    total, count = sums.get(column, (0.0, 0))
    sums[column] = (total + value, count + 1)


def _columns(
    sums: Mapping[str, tuple[float, int]], images: Sequence[str]
) -> dict[str, float | None]:
    """Means over all images together, and of each image if there are several."""
    means = {column: total / count for column, (total, count) in sums.items()}
    out: dict[str, float | None] = {}
    for steps in (0, *AHEAD):
        for measure in IMAGE:
            for column in (ahead(measure, steps) if steps else measure, gain(measure, steps)):
                found = [means.get(f"{name}/{column}") for name in images]
                known = [value for value in found if value is not None]
                whole = bool(known) and len(known) == len(found)
                out[column] = float(np.mean(known)) if whole else None
                if len(images) > 1:
                    out |= {f"{n}/{column}": value for n, value in zip(images, found, strict=True)}
    return out
