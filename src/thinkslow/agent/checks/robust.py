"""Checks by robust evidence: errors weighted by Student's t, for whole frames and for patches."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from thinkslow.agent.checks.check import Check, Frame, Judgement, Verdict
from thinkslow.agent.checks.clean import capped, unpatched
from thinkslow.distributions import Belief
from thinkslow.needs import DECODES_IMAGES, DECODES_NUMBERS, TRAINED_BETA, Need
from thinkslow.trees import only_if, where
from thinkslow.worldmodel import Memory, Moment, State, target

Scalar = Float[Array, ""] | float

FREEDOM = 4.0
"""Degrees of freedom of Student's t, which weights the errors."""


class Robust(Check):
    """Frames that no latent explains are repaired, or replaced by the prior.

    It acts where the distance is above the threshold of clean episodes. Four beliefs compete: the
    posterior, two repairs of it, and the prior. A repair begins at the posterior or at the prior.
    Up to `rounds` times, the patches that the belief does not explain are replaced by the belief's
    own prediction, and the result is encoded again. The belief with the best evidence is used. If
    it explains the frame no better than it would explain one of another episode, the frame is
    rejected and the prior is used: such a frame is no evidence, while a frame that is explained in
    part is better than none. A frame that is explained only without any history starts a new
    memory; after eight rejections in a row, a frame that is explained in part without history does,
    too.

    **Cost:** one decoding; for a suspicious frame also one step of the core, `2 * rounds + 1`
    encodings and `2 * rounds + 6` decodings, for the whole batch.
    """

    rounds: int = 3
    """Number of repair rounds; with 0 a frame is believed or rejected."""
    cut: Scalar = 0.2
    """A patch with a weight below this value is replaced completely, together with its
    neighbours.
    """
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
        none.

        Args:
            frame: the frame, with the usual errors of clean frames.
            state: the state that is decoded.
        """
        ratios = frame.clean.ratios(frame.errors(state))
        return ratios | {
            name: jnp.where(covered, 0, ratios[name]) for name, covered in frame.covered.items()
        }

    def weights(self, frame: Frame, ratios: dict[str, Array]) -> dict[str, Array]:
        """Weight of each patch, from its error in units of the usual error, or 0 for covered
        patches and 1 for all others.

        Args:
            frame: the frame, with its covered patches.
            ratios: errors in units of the usual ones, by name.
        """
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
        """Whether a frame with these errors is evidence: explained better than an unrelated one."""
        return capped(ratios) < frame.clean.unrelated

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
    clean frames have such a block. Beliefs compete as in `Robust`, but covered patches speak
    neither for nor against any of them, and no patch is replaced except covered ones and their
    neighbours. If more than half of the patches are covered, the frame is rejected: what is left,
    such as the dark parts of a lost frame that is shown as black, is no evidence either. After
    eight rejections in a row, a frame of which half is explained without history starts a new
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

    def _explains(self, frame: Frame, ratios: dict[str, Array]) -> Bool[Array, ""]:
        """Whether enough of the frame is not covered, or, judged as a whole, explained."""
        weights = [each.ravel() for each in self.weights(frame, ratios).values()]
        return jnp.mean(jnp.concatenate(weights)) >= self.least


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
