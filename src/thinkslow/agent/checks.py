"""Checks of a frame before it is used, and the controls of such checks.

Surprise alone does not distinguish new information from noise. A check measures how well the
posterior explains the frame that it was computed from. A frame that no latent explains does not
come from the world that the agent knows. A frame that some latent explains is used, even if it is
very surprising.
"""

import abc
import enum
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from thinkslow.agent.clean import Clean, errors_of, images, mean_error, patched, unpatched
from thinkslow.distributions import Belief
from thinkslow.needs import DECODES_IMAGES, DECODES_NUMBERS, TRAINED_BETA, Need
from thinkslow.trees import only_if, where
from thinkslow.worldmodel import Memory, Moment, Observation, State, WorldModel, target

FREEDOM = 4.0
"""Degrees of freedom of Student's t, which weights the errors."""
MEMORY = 50.0
"""Frames over which the share of rejections runs."""


class Verdict(enum.IntEnum):
    """What happened to a frame."""

    BELIEVED = 0
    """Used unchanged."""
    MENDED = 1
    """Repaired: the posterior is that of the frame with its implausible patches replaced."""
    REJECTED = 2
    """Rejected: the prior replaces the posterior."""
    RESTARTED = 3
    """Used, after the memory was reset."""
    SHIFTED = 4
    """Used because too many frames were rejected: the environment has changed permanently, and a
    check cannot help."""


class Guard(eqx.Module):
    """The memory of a check between decisions."""

    run: Int[Array, "*batch"]
    """Rejections in a row."""
    share: Float[Array, "*batch"]
    """Running share of frames that would be rejected."""
    suspicious: Float[Array, "*batch"]
    """Suspicious frames so far."""
    frames: Float[Array, "*batch"]

    @classmethod
    def new(cls) -> "Guard":
        """The memory before the first frame."""
        zero = jnp.zeros(())
        return cls(jnp.zeros((), jnp.int32), zero, zero, zero)

    def after(self, rejects: Array, verdict: Array, suspicious: Array) -> "Guard":
        """The memory after one more frame."""
        kind = self.share.dtype
        share = self.share + (rejects.astype(kind) - self.share) / MEMORY
        run = jnp.where(verdict == Verdict.REJECTED, self.run + 1, 0)
        return Guard(run, share, self.suspicious + suspicious.astype(kind), self.frames + 1)


class Checked(eqx.Module):
    """The result of a check; leading axis: the batch."""

    distance: Float[Array, "*batch"]
    """The error of the posterior's own reconstruction: `Clean.distance`."""
    suspicious: Bool[Array, "*batch"]
    verdict: Int[Array, "*batch"]
    """A `Verdict`."""


class Frame(eqx.Module):
    """One frame to be checked, with the quantities that a check may need."""

    model: WorldModel
    clean: Clean
    moment: Moment
    observation: Observation
    guard: Guard
    action: Array
    latent_key: PRNGKeyArray
    """PRNG key of the latent that the base agent would draw."""
    key: PRNGKeyArray
    """PRNG key of everything else."""

    def errors(self, state: State, observation: Observation | None = None) -> dict[str, Array]:
        """The errors of a state's reconstruction."""
        return errors_of(self.model.decode(state), observation or self.observation)

    def at(self, latent: Array) -> State:
        """The state of a latent at the present memory."""
        return State(self.moment.memory, latent.astype(self.model.initial().latent.dtype))

    def alone(self) -> Moment:
        """Prior and posterior of the frame without any history."""
        memory, prior = self.model.predict(
            self.model.initial(), jnp.zeros_like(self.action), jnp.ones((), bool)
        )
        told = self.model.infer(memory, self.observation)
        return Moment(memory, prior, told, jnp.ones((), bool))

    @property
    def distance(self) -> Float[Array, ""]:
        latent = self.moment.posterior.sample(key=self.latent_key)
        return self.clean.distance(self.errors(self.at(latent)))


Scalar = Float[Array, ""] | float
Judgement = tuple[Memory, Belief, Belief, Int[Array, ""], Bool[Array, ""]]
"""Memory, prior and posterior to continue with, the verdict, and whether it would be rejected."""


class Check(eqx.Module):
    """How a frame is checked before it is used. Subclass it for your own check."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs from a model."""
        return (DECODES_NUMBERS,)

    @abc.abstractmethod
    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        """The moment that replaces the frame's own."""

    def suspects(self, frame: Frame, distance: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether to look at the frame at all."""
        return distance > frame.clean.threshold

    def judged(self, frame: Frame) -> tuple[Moment, Checked, Guard]:
        """The moment to continue with, the result of the check, and its new memory.

        A missing frame, or one that the encoder could not use, is not judged.
        """
        moment, guard = frame.moment, frame.guard
        distance = frame.distance
        suspicious = self.suspects(frame, distance) & moment.seen
        memory, prior, posterior, verdict, rejects = self.judge(frame, suspicious)
        believed = verdict != Verdict.REJECTED
        new = Moment(memory, prior, posterior, moment.seen & believed, moment.absent)
        after = where(moment.seen, guard.after(rejects, verdict, suspicious), guard)
        return new, Checked(distance, suspicious, verdict), after


class Robust(Check):
    """Frames that no latent explains are repaired, or replaced by the prior.

    It acts where `distance` is above the threshold of clean episodes. Two attempts start from the
    posterior and from the prior. Up to `rounds` times, the patches that the belief does not explain
    are replaced by the belief's own prediction, and the result is encoded again. The attempt with
    the better evidence is used. The prior is used instead if too little is left of the frame, or if
    the prior explains it as well. A frame that is explained without any history, or the ninth
    suspicious frame in a row, starts a new memory.

    **Cost:** one decoding; for a suspicious frame also one step of the core, `2 * rounds + 2`
    encodings and `2 * rounds + 4` decodings, for the whole batch.
    """

    rounds: int = 3
    """Number of repair rounds; with 0 a frame is only rejected."""
    cut: Scalar = 0.2
    """A patch with a weight below this value is replaced completely, together with its
    neighbours.
    """
    least: Scalar = 0.15
    """Share of the frame that must remain."""
    patience: int = 8
    """Number of rejections in a row after which the memory, and not the frames, counts as wrong."""
    most: Scalar = 0.8
    """Share of rejections above which the environment counts as permanently changed; frames are
    then used unchanged.
    """
    beta: Scalar | None = None
    """Weight of KL(belief || prior) relative to the errors; None: as the model was trained."""

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODES_NUMBERS, TRAINED_BETA) if self.beta is None else (DECODES_NUMBERS,)

    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        moment = frame.moment
        no = jnp.zeros((), bool)
        believed = (*_parts(moment), jnp.asarray(int(Verdict.BELIEVED), jnp.int32), no)
        return only_if(suspicious, lambda: self._mended(frame), believed)

    def weights(self, frame: Frame, ratios: dict[str, Array]) -> dict[str, Array]:
        """Weight of each patch, from its error in units of the usual error."""
        weights = {name: 1 / (1 + ratio / FREEDOM) for name, ratio in ratios.items()}
        return {name: _cut(weight, self.cut) for name, weight in weights.items()}

    def _mended(self, frame: Frame) -> Judgement:
        model, moment, clean = frame.model, frame.moment, frame.clean
        beta = model.trained_beta if self.beta is None else self.beta
        assert beta is not None  # as `needs` says

        def ratios(belief: Belief) -> dict[str, Array]:
            return clean.ratios(frame.errors(frame.at(belief.soft())))

        def cost(belief: Belief, found: dict[str, Array]) -> Float[Array, ""]:
            unlikely = [jnp.sum(jnp.log1p(ratio / FREEDOM)) for ratio in found.values()]
            return (FREEDOM + 1) / 2 * sum(unlikely) + beta * belief.kl(moment.prior)

        def again(belief: Belief, _: None) -> tuple[Belief, None]:
            weights = self.weights(frame, ratios(belief))
            heads = model.decode(frame.at(belief.soft()))
            mended = dict(frame.observation)
            for name, weight in weights.items():
                shown = target(heads[name], frame.observation[name])
                each = unpatched(weight, shown)
                mended[name] = each * shown + (1 - each) * heads[name].mode()
            return model.infer(moment.memory, mended), None

        starts = jax.tree.map(lambda *x: jnp.stack(x), moment.posterior, moment.prior)
        if self.rounds:
            starts = jax.vmap(lambda q: jax.lax.scan(again, q, None, self.rounds)[0])(starts)
        found = jax.vmap(ratios)(starts)
        costs = jax.vmap(cost)(starts, found)
        best = jnp.argmin(costs)
        belief, left = jax.tree.map(lambda x: x[best], (starts, found))
        kept = jnp.mean(jnp.concatenate([w.ravel() for w in self.weights(frame, left).values()]))
        better = costs[best] < cost(moment.prior, ratios(moment.prior))
        good = better & (kept >= self.least) & bool(self.rounds)

        alone = frame.alone()
        latent = alone.posterior.sample(key=frame.latent_key)
        explained = clean.distance(
            frame.errors(State(alone.memory, latent.astype(model.initial().latent.dtype)))
        )
        restart = (explained <= clean.threshold) | (~good & (frame.guard.run >= self.patience))
        rejects = ~good & ~restart
        shifted = frame.guard.share > self.most
        verdict = jnp.where(
            shifted,
            Verdict.SHIFTED,
            jnp.where(
                restart, Verdict.RESTARTED, jnp.where(good, Verdict.MENDED, Verdict.REJECTED)
            ),
        ).astype(jnp.int32)
        mended = (moment.memory, moment.prior, where(good, belief, moment.prior))
        out = where(restart, _parts(alone), mended)
        return (*where(shifted, _parts(moment), out), verdict, rejects)


class Masked(Robust):
    """A control: exactly black pixels count as covered and are replaced in the same way.

    An oracle if a shift covers part of the frame with black, such as `occlusion`: other arms do
    not know which pixels are covered.
    """

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODES_IMAGES, *super().needs)

    def suspects(self, frame: Frame, distance: Float[Array, ""]) -> Bool[Array, ""]:
        return jnp.any(jnp.stack([jnp.any(black > 0) for black in _black(frame).values()]))

    def weights(self, frame: Frame, ratios: dict[str, Array]) -> dict[str, Array]:
        black = _black(frame)
        return {
            name: (black[name] == 0).astype(ratio.dtype) if name in black else jnp.ones_like(ratio)
            for name, ratio in ratios.items()
        }


class RandomRejection(Check):
    """A control: frames are rejected at random, as often as they were suspicious so far.

    **Cost:** one decoding.
    """

    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        guard = frame.guard
        share = (guard.suspicious + suspicious.astype(jnp.float32)) / (guard.frames + 1)
        return _rejected(frame, jr.uniform(frame.key) < share)


class Wiser(Check):
    """A control, a published rule: a frame is used if it is reconstructed well without history.

    Its error is that of the history-free posterior, below a fixed threshold: the .995 quantile of
    clean episodes.

    **References:** WISER, arXiv 2512.01119.

    **Cost:** one step of the core, one encoding and two decodings.
    """

    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        alone = frame.alone()
        latent = alone.posterior.sample(key=frame.latent_key)
        state = State(alone.memory, latent.astype(frame.model.initial().latent.dtype))
        return _rejected(frame, mean_error(frame.errors(state)) > frame.clean.alone)


class Median(Check):
    """A control: a 3x3 median filter of every image. **Cost:** one encoding and one decoding."""

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODES_IMAGES,)

    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        return _filtered(frame, lambda name, image: _median(image))


class Moments(Check):
    """A control: each channel is scaled to the mean and deviation of clean frames.

    **Cost:** one encoding and one decoding.
    """

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DECODES_IMAGES,)

    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        clean = frame.clean

        def matched(name: str, image: Array) -> Array:
            unit = (image - jnp.mean(image, (0, 1))) / (jnp.std(image, (0, 1)) + 1e-6)
            return jnp.clip(unit * clean.deviations[name] + clean.means[name], 0, 1)

        return _filtered(frame, matched)


def _parts(moment: Moment) -> tuple[Memory, Belief, Belief]:
    return moment.memory, moment.prior, moment.posterior


def _rejected(frame: Frame, rejects: Bool[Array, ""]) -> Judgement:
    """The prior where the frame is rejected."""
    moment = frame.moment
    posterior = where(rejects, moment.prior, moment.posterior)
    verdict = jnp.where(rejects, Verdict.REJECTED, Verdict.BELIEVED).astype(jnp.int32)
    return moment.memory, moment.prior, posterior, verdict, rejects


def _filtered(frame: Frame, change: Callable[[str, Array], Array]) -> Judgement:
    """The posterior of a frame whose images are changed."""
    moment, out = frame.moment, dict(frame.observation)
    heads = frame.model.decode(frame.at(moment.posterior.soft()))
    for name in images(heads):
        out[name] = change(name, target(heads[name], frame.observation[name]))
    told = frame.model.infer(moment.memory, out)
    posterior = where(moment.seen, told, moment.posterior)
    verdict = jnp.asarray(int(Verdict.MENDED), jnp.int32)
    return moment.memory, moment.prior, posterior, verdict, jnp.zeros((), bool)


def _cut(weights: Array, least: Float[Array, ""] | float) -> Array:
    """The weights, with 0 for those below `least`; in an image also for the neighbouring
    patches.
    """
    low = weights < least
    if weights.ndim == 2:
        wide = jnp.pad(low, 1)
        rows, columns = low.shape
        low = jnp.any(
            jnp.stack([wide[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]), 0
        )
    return jnp.where(low, 0.0, weights)


def _median(image: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
    wide = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows, columns, _ = image.shape
    around = [wide[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return jnp.median(jnp.stack(around), 0)


def _black(frame: Frame) -> dict[str, Array]:
    """The share of each patch of every image that is exactly black."""
    heads = frame.model.decode(frame.at(frame.moment.posterior.soft()))
    shown = {name: jnp.asarray(frame.observation[name]) for name in images(heads)}
    return {
        name: patched(jnp.all(image == 0, -1, keepdims=True).astype(jnp.float32))
        for name, image in shown.items()
    }
