"""Shadow refinement: the beliefs of every arm on the frames of the base agent.

Arms act differently and see different frames, so their images cannot be compared. A `Recorder`
therefore keeps moments of the base agent's first episode, and `decoded` lets any arm think there.
The arm starts from the base agent's carried state, sees the same frame, uses the same random
numbers, and decodes. Then it imagines the next frames with the actions of the base agent. An arm
with several frames or particles first plays the previous decisions; a check of frames begins
without memory of earlier ones. This costs a few decisions of a
batch for each arm, and compiles nothing new.
"""

import dataclasses
import io
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.inputs import Carry
from thinkslow.agent.past.particles import Cloud
from thinkslow.envs import Step
from thinkslow.evaluation.images import as_bytes, psnr
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.play import Telling, decision_keys
from thinkslow.evaluation.records import BASE, strip_file
from thinkslow.evaluation.scoring import CHUNK, EVERY, Frames, predicted
from thinkslow.storage import atomic
from thinkslow.worldmodel import State

MOMENTS = 8
"""Moments of an episode that are kept."""
PARTICLE_STEPS = 8
"""Number of decisions that particles play before a moment."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """The inputs of a decision of the base agent, besides its weights."""

    number: int
    state: Any
    """The carry from the previous decision."""
    action: Any
    observation: Mapping[str, np.ndarray]


@dataclasses.dataclass
class Recorded:
    """A decision with the decisions before it and the frames after it."""

    decisions: list[Decision]
    """The last one belongs to the moment itself."""
    actions: list[np.ndarray]
    came: dict[int, Frames]

    @property
    def step(self) -> int:
        return self.decisions[-1].number


class Recorder:
    """Watches the first environment of a block, played by the base agent.

    Args:
        agent: the base agent.
        count: number of environments in parallel.
        images: names of the images to decode.
        before: number of decisions before each moment that an arm may need.
    """

    def __init__(self, agent: AbstractAgent, count: int, images: Sequence[str], *, before: int):
        self.images = tuple(images)
        carry = agent.start(count)
        self._carried = (carry.state, carry.action) if isinstance(carry, Carry) else None
        self._recent: deque[Decision] = deque(maxlen=before + 1)
        self._moments: list[Recorded] = []
        self._number, self._stride = 0, 1
        self._now: dict[str, np.ndarray] = {}

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        self._now = {name: np.array(part[0]) for name, part in observation.items()}

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        """Keep the decision, and the frame that it led to."""
        if not self.images or not playing[0] or self._carried is None:
            return
        self._recent.append(Decision(self._number, *self._carried, self._now))
        if self._number % (EVERY * self._stride) == 0:
            now = {name: self._now[name] for name in self.images}
            self._moments.append(Recorded([_alone(one) for one in self._recent], [], {0: now}))
        self._carried = (thought.state, action)
        self._number += 1
        self.began(step.observation)
        for moment in self._moments:
            later = self._number - moment.step
            if later <= max(AHEAD):
                moment.actions.append(np.asarray(action)[0])
            if later in AHEAD:
                moment.came[later] = {name: self._now[name] for name in self.images}
        if len(self._moments) > 2 * MOMENTS + max(AHEAD) // EVERY:  # the last ones are not complete
            self._stride *= 2
            self._moments = [one for one in self._moments if one.step % (EVERY * self._stride) == 0]

    @property
    def kept(self) -> int:
        """Moments that are held in memory."""
        return len(self._moments)

    @property
    def watched(self) -> bool:
        """Whether there is nothing to show."""
        return self._number > 0 or not self.images or self._carried is None

    def moments(self) -> list[Recorded]:
        """Up to `MOMENTS` moments, spread over the episode, with all their later frames."""
        whole = [one for one in self._moments if set(one.came) == {0, *AHEAD}]
        count = len(whole)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MOMENTS)).astype(int))
        return [whole[index] for index in chosen] if count else []


class Pictures:
    """Images of the arms of one agent on the frames of its base agent's first episode.

    Args:
        folder: folder of the evaluation.
        images: names of the images to decode.
        arms: all arms of the agent, by name.
        places: number of each arm in the header.
        count: number of environments in parallel.
        seed: seed of the evaluation.
        environment_seed: environment seed of the first episode.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[str],
        arms: Mapping[str, AbstractAgent],
        places: Mapping[str, int],
        *,
        count: int,
        seed: int,
        environment_seed: int,
    ):
        self.folder, self.images, self.arms, self.places = folder, images, arms, places
        self._played = {"count": count, "seed": seed, "environment_seed": environment_seed}
        before = decisions_before(list(arms.values()))
        self.recorder = Recorder(arms[BASE], count, images, before=before)
        """The watcher of the block with the base agent's first episode."""

    def take(self, arm: str, agent: AbstractAgent) -> None:
        """Write the images that a calibrated arm decodes and imagines there."""
        moments = self.recorder.moments()
        found = decoded(agent, moments, self.images, **self._played)
        if found is not None:
            write(self.folder, self.places[arm], moments, found, frames=arm == BASE)


def decisions_before(arms: Sequence[AbstractAgent]) -> int:
    """Largest number of decisions before a moment that any arm needs."""
    wanted = [0]
    for agent in arms:
        if agent.inner is not None:
            settings = agent.inner.settings
            frames = max(settings.lag, settings.delay)
            wanted.append(PARTICLE_STEPS if settings.particles > 1 else frames)
    return max(wanted)


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The images of an arm at the moments."""

    now: Frames
    """`[moments, H, W, C]`, floats."""
    imagined: Frames
    """`[moments, ahead, H, W, C]`."""


def decoded(
    agent: AbstractAgent,
    moments: Sequence[Recorded],
    images: Sequence[str],
    *,
    count: int,
    seed: int,
    environment_seed: int,
) -> Decoded | None:
    """Let an arm think at the moments of the base agent.

    Args:
        agent: the arm, calibrated.
        moments: moments of a `Recorder`.
        images: names of the images to decode.
        count: number of environments for which the arm is compiled.
        seed: seed of the evaluation: the arm gets the noise of the base agent.
        environment_seed: environment seed of the recorded episode.

    Returns None for an agent with another kind of memory than the base agent, such as your own.
    """
    start = agent.start(count)
    if not moments or not isinstance(start, Carry) or not _fits(start, moments[0].decisions[-1]):
        return None
    states = []
    for first in range(0, len(moments), count):
        some = moments[first : first + count]
        state = _led(agent, start, some, count, seed, environment_seed)
        states += [jax.tree.map(lambda x, i=i: x[i], state) for i in range(len(some))]
    padded = [*states, *[states[-1]] * (CHUNK - len(states))]
    acted = jax.tree.map(lambda *xs: np.stack(xs), *padded)
    actions = [moment.actions for moment in moments]
    actions += [actions[-1]] * (CHUNK - len(actions))
    both = jax.tree.map(lambda x: jnp.asarray(np.stack([x, x])), acted)
    shown = predicted(agent.model, both, jnp.asarray(np.stack(actions)), tuple(images))
    kept = len(moments)
    return Decoded(
        {name: np.asarray(now[0, :kept]) for name, (now, _) in shown.items()},
        {name: np.asarray(later[0, :kept]) for name, (_, later) in shown.items()},
    )


def write(
    folder: Path, arm: int, moments: Sequence[Recorded], found: Decoded, *, frames: bool
) -> None:
    """Write the images of an arm, one file for each image; with `frames` also the real ones."""
    (folder / "strips").mkdir(exist_ok=True)
    for number, image in enumerate(found.now):
        real = np.stack([moment.came[0][image] for moment in moments])
        came = np.stack([[moment.came[step][image] for step in AHEAD] for moment in moments])
        now, imagined = found.now[image], found.imagined[image]
        arrays: dict[str, Any] = {
            "now": as_bytes(now),
            "imagined": as_bytes(imagined),
            "psnr": np.concatenate([psnr(now, real)[:, None], psnr(imagined, came)], 1),
            "step": np.array([moment.step for moment in moments]),
            "ahead": np.array(AHEAD),
            "frames": np.array(zlib.crc32(real.tobytes())),
        }
        if frames:
            arrays |= {"real": real, "came": came}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        atomic.write_bytes(strip_file(folder, arm, number), [content.getvalue()])


def _led(
    agent: AbstractAgent,
    carry: Carry,
    moments: Sequence[Recorded],
    count: int,
    seed: int,
    environment_seed: int,
) -> State:
    """The states from which the arm would have acted, after the decisions before each moment."""
    before = max(len(moment.decisions) for moment in moments)
    # A moment with fewer decisions is near the beginning of an episode. The repeated first frame
    # resets the arm each time.
    ways = [
        [moment.decisions[0]] * (before - len(moment.decisions)) + moment.decisions
        for moment in moments
    ]
    ways += [ways[-1]] * (count - len(ways))
    seeds = jnp.full(count, environment_seed, jnp.uint32)
    thought, tell = None, Telling(agent, moments[0].decisions[0].observation)
    for at, now in enumerate(zip(*ways, strict=True)):
        state, action, seen = jax.tree.map(
            lambda *xs: jnp.stack(xs), *[(one.state, one.action, one.observation) for one in now]
        )
        carry = dataclasses.replace(carry, state=state, action=action)
        if at == 0 and isinstance(carry.past, Cloud):
            many = jax.tree.map(
                lambda old, new: jnp.broadcast_to(new[:, None], old.shape), carry.past.states, state
            )
            carry = dataclasses.replace(carry, past=dataclasses.replace(carry.past, states=many))
        numbers = np.array([one.number for one in now])
        keys = decision_keys(seed, seeds, numbers)
        carry, _, thought = agent.act(carry, seen, numbers == 0, keys=keys, **tell(seen))
    assert thought is not None
    return jax.tree.map(np.asarray, thought.state)


def _alone(decision: Decision) -> Decision:
    """The decision of the first environment, out of its batch."""
    state, action = jax.tree.map(lambda x: np.asarray(x)[0], (decision.state, decision.action))
    return dataclasses.replace(decision, state=state, action=action)


def _fits(carry: Carry, decision: Decision) -> bool:
    mine = jax.tree.map(lambda x: (x.shape[1:], x.dtype), (carry.state, carry.action))
    other = jax.tree.map(lambda x: (x.shape, x.dtype), (decision.state, decision.action))
    return jax.tree.structure(mine) == jax.tree.structure(other) and mine == other
