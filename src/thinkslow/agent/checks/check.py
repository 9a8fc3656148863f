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
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from thinkslow.agent.checks.clean import Clean, capped, errors_of, unpatched
from thinkslow.distributions import Belief
from thinkslow.needs import DECODES_IMAGES, DECODES_NUMBERS, TRAINED_BETA, Need
from thinkslow.trees import only_if, put, where
from thinkslow.worldmodel import Memory, Moment, Observation, State, WorldModel, target

FREEDOM = 4.0
"""Degrees of freedom of Student's t, which weights the errors."""
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
        """The memory after a verdict."""
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


Scalar = Float[Array, ""] | float


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


class Robust(Check):
    """Frames that no latent explains are repaired, or replaced by the prior.

    It acts where the distance is above the threshold of clean episodes. Four beliefs compete: the
    posterior, two repairs of it, and the prior. A repair begins at the posterior or at the prior.
    Up to `rounds` times, the patches that the belief does not explain are replaced by the belief's
    own prediction, and the result is encoded again. The belief with the best evidence is used. If
    it explains too little of the frame, the frame is rejected and the prior is used: such a frame
    is no evidence, while a frame that is explained in part is better than none. A frame that is
    explained only without any history starts a new memory; after eight rejections in a row, a frame
    that is explained in part without history does, too.

    **Cost:** one decoding; for a suspicious frame also one step of the core, `2 * rounds + 1`
    encodings and `2 * rounds + 6` decodings, for the whole batch.
    """

    rounds: int = 3
    """Number of repair rounds; with 0 a frame is believed or rejected."""
    cut: Scalar = 0.2
    """A patch with a weight below this value is replaced completely, together with its
    neighbours.
    """
    least: Scalar = 0.15
    """Mean weight of the patches below which a frame is rejected."""
    patience: int = 8
    """Number of rejections in a row after which the memory, and not the frames, counts as wrong."""
    beta: Scalar | None = None
    """Weight of KL(belief || prior) relative to the errors; None: as the model was trained."""

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODES_NUMBERS, TRAINED_BETA) if self.beta is None else (DECODES_NUMBERS,)

    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        verdict = jnp.asarray(int(Verdict.BELIEVED), jnp.int32)
        believed = frame.judgement(frame.moment.posterior, verdict)
        return only_if(suspicious, lambda: self._judged(frame), believed)

    def ratios(self, frame: Frame, state: State) -> dict[str, Array]:
        """Errors of a state's reconstruction in units of the usual ones; covered patches have
        none."""
        ratios = frame.clean.ratios(frame.errors(state))
        return ratios | {
            name: jnp.where(covered, 0, ratios[name]) for name, covered in frame.covered.items()
        }

    def weights(self, frame: Frame, ratios: dict[str, Array]) -> dict[str, Array]:
        """Weight of each patch, from its error in units of the usual error, or 0 for covered
        patches and 1 for all others."""
        weights = {name: 1 / (1 + ratio / FREEDOM) for name, ratio in ratios.items()}
        weights = {name: jnp.where(each < self.cut, 0, each) for name, each in weights.items()}
        return weights | {
            name: (~covered).astype(weights[name].dtype) for name, covered in frame.covered.items()
        }

    def _judged(self, frame: Frame) -> Judgement:
        moment, threshold = frame.moment, frame.clean.threshold
        beliefs = _stacked(moment.posterior, *self._repaired(frame), moment.prior)
        found = jax.vmap(lambda q: self.ratios(frame, frame.at(q.soft())))(beliefs)
        costs = jax.vmap(partial(self._cost, frame))(beliefs, found)
        best = jnp.argmin(costs)
        belief, ratios = jax.tree.map(lambda x: x[best], (beliefs, found))
        rejects = (best == len(costs) - 1) | ~self._explains(frame, ratios)

        alone = frame.alone()
        told, untold = (self.ratios(frame, frame.drawn(each)) for each in (moment, alone))
        restarts = (capped(untold) <= threshold) & (threshold < capped(told))
        late = rejects & (frame.guard.run >= self.patience)
        whole = dataclasses.replace(frame, covered={})
        restarts |= late & self._explains(whole, self.ratios(whole, frame.drawn(alone)))
        verdict = jnp.where(best == 0, int(Verdict.BELIEVED), int(Verdict.MENDED))
        verdict = jnp.where(rejects, int(Verdict.REJECTED), verdict)
        verdict = jnp.where(restarts, int(Verdict.RESTARTED), verdict).astype(jnp.int32)
        used = (moment.memory, moment.prior, where(rejects, moment.prior, belief))
        return Judgement(*where(restarts, _parts(alone), used), verdict)

    def _explains(self, frame: Frame, ratios: dict[str, Array]) -> Bool[Array, ""]:
        """Whether enough of the frame is explained for it to be evidence."""
        weights = [each.ravel() for each in self.weights(frame, ratios).values()]
        return jnp.mean(jnp.concatenate(weights)) >= self.least

    def _cost(self, frame: Frame, belief: Belief, ratios: dict[str, Array]) -> Float[Array, ""]:
        """Negative log evidence of a belief, up to a constant."""
        beta = frame.model.trained_beta if self.beta is None else self.beta
        assert beta is not None  # as `needs` says
        unlikely = [jnp.sum(jnp.log1p(ratio / FREEDOM)) for ratio in ratios.values()]
        return (FREEDOM + 1) / 2 * sum(unlikely) + beta * belief.kl(frame.moment.prior)

    def _repaired(self, frame: Frame) -> list[Belief]:
        """The beliefs after the repairs that begin at the posterior and at the prior."""
        if not self.rounds:
            return []

        def again(belief: Belief, _: None) -> tuple[Belief, None]:
            state = frame.at(belief.soft())
            heads, mended = frame.model.decode(state), dict(frame.observation)
            for name, weight in self.weights(frame, self.ratios(frame, state)).items():
                shown = target(heads[name], frame.observation[name])
                each = unpatched(_widened(weight), shown)
                mended[name] = each * shown + (1 - each) * heads[name].mode()
            return frame.model.infer(frame.moment.memory, mended), None

        starts = _stacked(frame.moment.posterior, frame.moment.prior)
        ends = jax.vmap(lambda q: jax.lax.scan(again, q, None, self.rounds)[0])(starts)
        return [jax.tree.map(lambda x, at=at: x[at], ends) for at in range(2)]


class Covered(Robust):
    """Covered patches are replaced by the prediction, and the rest of the frame is used.

    Patches count as covered in blocks of 2x2 or 3x3 in which the posterior's own error is unusual
    everywhere, relative to what 1% of the errors of the same patch exceed on clean frames; 1% of
    clean frames have such a block. Beliefs compete as in `Robust`, but covered
    patches speak neither for nor against any of them, and no patch is replaced except covered ones
    and their neighbours. If more than half of the patches are covered, the frame is rejected: what
    is left, such as the dark parts of a lost frame that is shown as black, is no evidence either.
    After eight rejections in a row, a frame of which half is explained without history starts a new
    memory.

    **Cost:** as `Robust`; a frame is suspicious if any of its patches counts as covered.
    """

    least: Scalar = 0.5
    """Share of the patches that are not covered below which a frame is rejected."""

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODES_IMAGES, *super().needs)

    def covered(self, frame: Frame) -> dict[str, Bool[Array, "rows columns"]]:
        """Which patches of each image are covered.

        Args:
            frame: the frame, with the usual errors of clean frames.
        """
        return frame.clean.covered(frame.errors(frame.drawn(frame.moment)))

    def suspects(self, frame: Frame, distance: Float[Array, ""]) -> Bool[Array, ""]:
        return jnp.any(jnp.stack([jnp.any(each) for each in self.covered(frame).values()]))

    def _judged(self, frame: Frame) -> Judgement:
        return super()._judged(dataclasses.replace(frame, covered=self.covered(frame)))


def _stacked(*beliefs: Belief) -> Belief:
    return jax.tree.map(lambda *x: jnp.stack(x), *beliefs)


def _parts(moment: Moment) -> tuple[Memory, Belief, Belief]:
    return moment.memory, moment.prior, moment.posterior


def _widened(weights: Array) -> Array:
    """The weights, with 0 also for the neighbours of the patches of an image that have 0."""
    if weights.ndim != 2:
        return weights
    low, (rows, columns) = jnp.pad(weights == 0, 1), weights.shape
    around = [low[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return jnp.where(jnp.any(jnp.stack(around), 0), 0.0, weights)
