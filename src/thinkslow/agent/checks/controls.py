"""Controls of checks of a frame: a known mask, chance, a published rule, and filters."""

from collections.abc import Callable

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float

from thinkslow.agent.checks.check import Check, Frame, Judgement, Verdict
from thinkslow.agent.checks.clean import images, mean_error, patched
from thinkslow.agent.checks.robust import Covered
from thinkslow.needs import DECODES_IMAGES, Need
from thinkslow.trees import where
from thinkslow.worldmodel import target


class Masked(Covered):
    """A control: exactly black pixels count as covered and are replaced in the same way.

    An oracle if a shift covers part of the frame with black, such as `occlusion`: other arms do
    not know which pixels are covered.
    """

    def covered(self, frame: Frame) -> dict[str, Bool[Array, "rows columns"]]:
        heads = frame.model.decode(frame.at(frame.moment.posterior.soft()))
        shown = {name: jnp.asarray(frame.observation[name]) for name in images(heads)}
        black = {name: jnp.all(image == 0, -1, keepdims=True) for name, image in shown.items()}
        return {name: patched(each.astype(jnp.float32)) > 0 for name, each in black.items()}


class Misplaced(Covered):
    """A control: as many patches count as covered as in `Covered`, in the same form, elsewhere."""

    def covered(self, frame: Frame) -> dict[str, Bool[Array, "rows columns"]]:
        def moved(mask: Array) -> Array:
            for axis, size in enumerate(mask.shape):
                places = jr.randint(jr.fold_in(frame.key, axis), (), 0, size)
                mask = jnp.roll(mask, places, axis)
            return mask

        return {name: moved(mask) for name, mask in super().covered(frame).items()}


class RandomRejection(Check):
    """A control: frames are rejected at random, as often as they were suspicious so far.

    **Cost:** one decoding.
    """

    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        guard = frame.guard
        share = (guard.suspicious + suspicious.astype(jnp.float32)) / (guard.frames + 1)
        return frame.rejected(jr.uniform(frame.key) < share)


class Wiser(Check):
    """A control, a published rule: a frame is used if it is reconstructed well without history.

    Its error is that of the history-free posterior, below a fixed threshold: the .995 quantile of
    clean episodes.

    **References:** WISER, arXiv 2512.01119.

    **Cost:** one step of the core, one encoding and two decodings.
    """

    def judge(self, frame: Frame, suspicious: Bool[Array, ""]) -> Judgement:
        alone = frame.alone()
        return frame.rejected(mean_error(frame.errors(frame.drawn(alone))) > frame.clean.alone)


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


def _filtered(frame: Frame, change: Callable[[str, Array], Array]) -> Judgement:
    """The posterior of a frame whose images are changed."""
    moment, out = frame.moment, dict(frame.observation)
    heads = frame.model.decode(frame.at(moment.posterior.soft()))
    for name in images(heads):
        out[name] = change(name, target(heads[name], frame.observation[name]))
    posterior = frame.model.infer(moment.memory, out)
    posterior = where(moment.seen, posterior, moment.posterior)
    return frame.judgement(posterior, Verdict.MENDED)


def _median(image: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
    wide = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows, columns, _ = image.shape
    around = [wide[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return jnp.median(jnp.stack(around), 0)
