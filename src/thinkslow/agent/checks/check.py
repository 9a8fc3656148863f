"""Checks of a frame before it is used.

Surprise alone does not distinguish new information from noise. A check measures how well the
posterior explains the frame that it was computed from. A frame that no latent explains does not
come from the world that the agent knows. A frame that some latent explains is used, even if it is
very surprising.
"""

import abc
import dataclasses
import enum
from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from thinkslow.agent.checks.clean import Clean, capped, errors_of
from thinkslow.distributions import Belief
from thinkslow.needs import DECODES_NUMBERS, Need
from thinkslow.trees import put, where
from thinkslow.worldmodel import Memory, Moment, Observation, State, WorldModel

RECENT = 20
"""Number of frames over which the level of errors is measured."""
TENTH = 10
"""The level of errors is that of the best tenth of the recent frames."""


class Verdict(enum.IntEnum):
    """What happened to a frame.

    Attributes:
        BELIEVED: 0, used unchanged.
        MENDED: 1, repaired: the posterior is that of the frame with its implausible patches
            replaced.
        REJECTED: 2, the prior replaces the posterior.
        RESTARTED: 3, used, after the memory was reset.
        SHIFTED: 4, used unchanged although no latent explains it: even the best of the recent
            frames are explained as badly, so the environment has changed, and no better frame
            will come. `Check.judged` gives this verdict; your `judge` returns BELIEVED.
    """

    BELIEVED = 0
    MENDED = 1
    REJECTED = 2
    RESTARTED = 3
    SHIFTED = 4


class Judgement(NamedTuple):
    """The result of `Check.judge`: the agent continues with these instead of the frame's own.

    Attributes:
        memory: the memory to continue with; `frame.moment.memory`, unless it is reset.
        prior: the prior at this memory.
        posterior: the belief to act on.
        verdict: a `Verdict`. After REJECTED the frame counts as not seen.
    """

    memory: Memory
    prior: Belief
    posterior: Belief
    verdict: Int[Array, ""] | int


class Guard(eqx.Module):
    """The memory of a check between decisions.

    Attributes:
        run: number of rejections in a row.
        recent: median error of each of the last 20 frames, in units of the usual one; the largest
            float32 before the first frame.
        suspicious: number of suspicious frames so far.
        frames: number of frames so far.
    """

    run: Int[Array, "*batch"]
    recent: Float[Array, "*batch recent"]
    suspicious: Float[Array, "*batch"]
    frames: Float[Array, "*batch"]

    @classmethod
    def new(cls) -> "Guard":
        """The memory before the first frame."""
        zero, unknown = put(np.float32(0)), np.full(RECENT, UNKNOWN, np.float32)
        return cls(put(np.int32(0)), put(unknown), zero, zero)

    def seeing(self, ratios: Mapping[str, Array]) -> "Guard":
        """The memory with one more frame, whose errors are given in units of the usual ones."""
        median = jnp.median(jnp.concatenate([ratio.ravel() for ratio in ratios.values()]))
        return dataclasses.replace(self, recent=jnp.append(self.recent[1:], median))

    @property
    def level(self) -> Float[Array, ""]:
        """How many times larger than usual the errors of even the best recent frames are; at
        least 1."""
        known = jnp.sum(self.recent < UNKNOWN, dtype=jnp.int32)
        return jnp.maximum(1.0, jnp.sort(self.recent)[(known - 1) // TENTH])

    def after(self, verdict: Array, suspicious: Array) -> "Guard":
        """The memory after a verdict.

        Args:
            verdict: a `Verdict`.
            suspicious: what `Check.suspects` returned.
        """
        run = jnp.where(verdict == Verdict.REJECTED, self.run + 1, 0)
        count = self.suspicious + suspicious.astype(self.suspicious.dtype)
        return Guard(run, self.recent, count, self.frames + 1)


UNKNOWN = float(np.finfo(np.float32).max)
"""Stands for frames before the first; finite, so that a memory with it counts as sound."""


class Checked(eqx.Module):
    """The result of a check, in `Thought.checked`; leading axis: the batch.

    Attributes:
        distance: the error of the posterior's own reconstruction: see `Check.suspects`.
        level: how many times larger than usual the errors of even the best recent frames are; at
            least 1.
        suspicious: what `Check.suspects` returned; False for a frame that was not seen.
        verdict: a `Verdict`.
    """

    distance: Float[Array, "*batch"]
    level: Float[Array, "*batch"]
    suspicious: Bool[Array, "*batch"]
    verdict: Int[Array, "*batch"]


class Frame(eqx.Module):
    """One frame to be checked, without a batch axis, with the quantities that a check may need.

    Attributes:
        model: the world model.
        clean: the usual errors on clean frames, at the level of the recent frames.
        moment: memory, prior and posterior of the frame.
        observation: the frame, by name: images uint8.
        guard: the check's memory of earlier frames.
        action: the action that led here, as one vector.
        latent_key: PRNG key of the latent that the base agent would draw.
        key: PRNG key of everything else.
        covered: by name, which patches of an image count as covered; images without an entry are
            judged as a whole.
    """

    model: WorldModel
    clean: Clean
    moment: Moment
    observation: Observation
    guard: Guard
    action: Array
    latent_key: PRNGKeyArray
    key: PRNGKeyArray
    covered: Mapping[str, Bool[Array, "rows columns"]] = dataclasses.field(default_factory=dict)

    def rejected(self, rejects: Bool[Array, ""]) -> Judgement:
        """The judgement that replaces the posterior by the prior, or leaves the frame alone.

        Args:
            rejects: whether the frame is rejected.
        """
        verdict = jnp.where(rejects, int(Verdict.REJECTED), int(Verdict.BELIEVED))
        return self.judgement(where(rejects, self.moment.prior, self.moment.posterior), verdict)

    def judgement(self, posterior: Belief, verdict: Int[Array, ""] | int) -> Judgement:
        """The judgement with another posterior, at the frame's own memory and prior.

        Args:
            posterior: the belief to act on.
            verdict: a `Verdict`.
        """
        return Judgement(self.moment.memory, self.moment.prior, posterior, verdict)

    def errors(self, state: State, observation: Observation | None = None) -> dict[str, Array]:
        """The errors of a state's reconstruction: see `agent.clean.Errors`.

        Args:
            state: the state that is decoded.
            observation: what it is compared with; None: the frame.
        """
        return errors_of(self.model.decode(state), observation or self.observation)

    def at(self, latent: Array) -> State:
        """The state of a latent at the present memory.

        Args:
            latent: shaped as a draw of the belief.
        """
        return State(self.moment.memory, latent.astype(self.model.initial().latent.dtype))

    def alone(self) -> Moment:
        """Prior and posterior of the frame without any history."""
        memory, prior = self.model.predict(
            self.model.initial(), jnp.zeros_like(self.action), jnp.ones((), bool)
        )
        posterior = self.model.infer(memory, self.observation)
        return Moment(memory, prior, posterior, jnp.ones((), bool))

    def drawn(self, moment: Moment) -> State:
        """The state of a moment with the latent that the base agent would draw.

        Args:
            moment: the frame's own, or another.
        """
        latent = moment.posterior.sample(key=self.latent_key)
        return State(moment.memory, latent.astype(self.model.initial().latent.dtype))


class Check(eqx.Module):
    """How a frame is checked before it is used. Subclass it for your own check.

    For each frame, `suspects` says whether it looks wrong, and `judge` what to continue with.
    Both are traced; choose by `jnp.where`, not by `if`. A missing frame, or one that the encoder
    could not use, is not judged: `judge` is still traced for it, with `suspicious` False.
    `thinkslow.calibrated` and evaluations measure the usual errors, `frame.clean`.
    """

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs from a model; always a decoder of images or vectors, for `distance`."""
        return (DECODES_NUMBERS,)

    @abc.abstractmethod
    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        """What the agent continues with. `frame.rejected(suspicious)` is the simplest judgement.

        Args:
            frame: the frame, with the usual errors of clean frames.
            suspicious: what `suspects` returned; False for a frame that was not seen.
        """

    def suspects(self, frame: Frame, distance: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether the frame looks wrong; by default, whether `distance` exceeds the threshold of
        clean episodes.

        Args:
            frame: the frame, with the usual errors of clean frames.
            distance: the error of the posterior's own reconstruction, without unit. Images are cut
                into patches of 8x8 pixels, vectors into their numbers; discrete parts are left
                out. The squared error of each patch and number is divided by its usual one on
                clean frames and by the level of the recent frames. The distance is the mean over
                all of them, each counted as at most 9. So it is about 1 for a usual frame, and an
                image weighs more than a short vector.
        """
        return distance > frame.clean.threshold

    def judged(self, frame: Frame) -> tuple[Moment, Checked, Guard]:
        """The moment to continue with, the result of the check, and its new memory. Agents call
        it; a check need not replace it.

        Args:
            frame: the frame, with the usual errors of clean frames.
        """
        moment, clean, guard = frame.moment, frame.clean, frame.guard
        ratios = clean.ratios(frame.errors(frame.drawn(moment)))
        seen = guard.seeing(ratios)
        frame = dataclasses.replace(frame, clean=clean.times(seen.level))
        distance = capped(ratios, seen.level)
        suspicious = self.suspects(frame, distance) & moment.seen
        found = self.judge(frame, suspicious)
        if not isinstance(found, Judgement):
            raise TypeError(
                f"`judge` of {type(self).__name__} must return a `Judgement`, such as "
                f"`frame.rejected(suspicious)`; it returned a {type(found).__name__}."
            )
        memory, prior, posterior, verdict = found
        verdict = jnp.asarray(verdict, jnp.int32)
        shifted = ~suspicious & (verdict == Verdict.BELIEVED) & (distance <= clean.threshold)
        shifted &= capped(ratios) > clean.threshold
        verdict = jnp.where(shifted & moment.seen, int(Verdict.SHIFTED), verdict)
        believed = verdict != Verdict.REJECTED
        new = Moment(memory, prior, posterior, moment.seen & believed, moment.absent)
        after = where(moment.seen, seen.after(verdict, suspicious), guard)
        return new, Checked(distance, seen.level, suspicious, verdict), after
