"""Derive the sizes of an agent of profile `v1` from the shapes of its weights.

The three projects of this profile differ in names and layouts. Each reader converts its weights to
the names and layouts of danijar's code of 2023, and passes on what no shape determines.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thinkslow.dreamer.v1.config import ConvConfig, V1Config, Widths
from thinkslow.dreamer.v1.vision import shrunk
from thinkslow.importers.renaming import Taken
from thinkslow.plural import plural
from thinkslow.spaces import Space
from thinkslow.storage.store import Misfit

Weights = Mapping[str, np.ndarray]
EXTRAS = ("task_behavior/critic/slow/", "task_behavior/ac/retnorm_extr/")
"""Arrays that the projects store besides the agent: the slow critic, the range of returns."""


@dataclasses.dataclass(frozen=True)
class Told:
    """What the shapes do not determine."""

    classes: int
    """Classes of each factor of the latent."""
    images: tuple[str, ...]
    """Names of the image observations, in order."""
    vectors: tuple[str, ...] | None
    """Names of the vector observations, in order; None: unknown."""
    decoded_images: tuple[str, ...]
    """Names of the images that the decoder reconstructs."""
    habits: Mapping[str, Any]
    """Fields of `V1Config` that are not sizes."""
    actions: Mapping[str, int] | None = None
    """Discrete actions with their numbers of choices; None: one action that has all outputs."""
    strides: tuple[int, ...] | None = None
    """Strides of the encoder's convolutions; the decoder uses them in reverse order. None: all
    2.
    """


def sized(
    weights: Weights, told: Told
) -> tuple[V1Config, dict[str, Space], dict[str, Space], dict[str, str]]:
    """Configuration, observations and actions for weights under danijar's names, and what such an
    agent cannot do.

    **Errors:** `Misfit` if the shapes contradict each other or an array is missing.
    """
    latent = array(weights, "wm/rssm/img_stats/bias").size
    if told.classes < 1 or latent % told.classes:
        raise Misfit(
            f"The latent has {plural(latent, 'number')}, which are not factors of "
            f"{plural(told.classes, 'class', 'classes')}. "
            "The configuration is of another agent."
        )
    deter = array(weights, "wm/rssm/gru/kernel", 2).shape[1] // 3
    encoder = widths(weights, "wm/enc/mlp")
    tokens = array(weights, "wm/rssm/obs_out/kernel", 2).shape[0] - deter
    strides = told.strides or (2,) * count(weights, "wm/enc/cnn/s{}res/kernel")
    observations: dict[str, Space] = {}
    down = _convolutions(weights, "wm/enc/cnn", strides, outputs=3)
    up = _convolutions(weights, "wm/dec/cnn", strides[::-1], outputs=2)
    decoded: list[str] = []
    seed = 0
    if down:
        side = _side(tokens - (encoder[-1] if encoder else 0), down)
        channels = _channels(weights["wm/enc/cnn/s0res/kernel"].shape[2], told.images)
        observations |= {
            name: Space((side, side, each), "uint8") for name, each in channels.items()
        }
        if up:
            decoded += told.decoded_images
            seed = array(weights, "wm/dec/cnn/s0res/kernel", 4).shape[3]
            _check_decoder(weights, observations, decoded, side, seed, up)
    vectors = _vectors(weights, told.vectors)
    observations |= {name: Space((size,), "float32") for name, size in vectors.items()}
    decoded += [name for name in vectors if f"wm/dec/mlp/dist_{name}/out/bias" in weights]
    config = V1Config(
        deter=deter,
        stoch=latent // told.classes,
        classes=told.classes,
        recurrent=array(weights, "wm/rssm/img_in/kernel", 2).shape[1],
        prior=array(weights, "wm/rssm/img_out/kernel", 2).shape[1],
        posterior=array(weights, "wm/rssm/obs_out/kernel", 2).shape[1],
        reward=widths(weights, "wm/rew"),
        continuation=widths(weights, "wm/cont"),
        policy=widths(weights, "task_behavior/ac/actor"),
        value=widths(weights, "task_behavior/critic/net"),
        encoder=encoder,
        decoder=widths(weights, "wm/dec/mlp"),
        encoder_convs=down,
        decoder_convs=up,
        decoder_seed=seed,
        decoded=tuple(decoded),
        reward_bins=array(weights, "wm/rew/dist_out/out/bias").size,
        value_bins=array(weights, "task_behavior/critic/net/dist_out/out/bias").size,
        **told.habits,
    )
    actions = _actions(weights, told.actions)
    return config, observations, actions, _cannot(observations, decoded)


def sorted_out(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The agent's own weights, and the other stored arrays."""
    extras = {name: array for name, array in arrays.items() if name.startswith(EXTRAS)}
    return {name: array for name, array in arrays.items() if name not in extras}, extras


def array(weights: Weights, name: str, axes: int = 1) -> np.ndarray:
    """**Errors:** `Misfit` if the array is missing, empty or has another number of axes."""
    if name not in weights:
        raise Misfit(f"The checkpoint has no {name}. It is incomplete, or of another version.")
    if weights[name].ndim != axes or not weights[name].size:
        raise Misfit(
            f"{name} is {weights[name].shape}, expected {plural(axes, 'axis', 'axes')} with "
            "something in them."
        )
    return weights[name]


def widths(weights: Weights, part: str) -> Widths:
    """Units of the dense layers `h0`, `h1`, ..."""
    return tuple(
        array(weights, f"{part}/h{index}/kernel", 2).shape[1]
        for index in range(count(weights, f"{part}/h{{}}/kernel"))
    )


def count(weights: Weights, pattern: str) -> int:
    """How many of the names `pattern` with 0, 1, ... exist without a gap."""
    found = 0
    while pattern.format(found) in weights:
        found += 1
    return found


def _convolutions(
    weights: Weights, part: str, strides: Sequence[int], *, outputs: int
) -> tuple[ConvConfig, ...]:
    kernels = [
        array(weights, f"{part}/s{index}res/kernel", 4)
        for index in range(count(weights, f"{part}/s{{}}res/kernel"))
    ]
    if kernels and len(kernels) != len(strides):
        raise Misfit(f"{part} has {plural(len(kernels), 'convolution')}, expected {len(strides)}.")
    return tuple(
        ConvConfig(kernel.shape[outputs], kernel.shape[0], stride)
        for kernel, stride in zip(kernels, strides, strict=False)
    )


def _side(numbers: int, convs: tuple[ConvConfig, ...]) -> int:
    """The side of the square image whose convolutions give this many numbers."""
    cells = numbers // convs[-1].channels
    side = math.isqrt(max(cells, 0)) * math.prod(conv.stride for conv in convs)
    if not side or math.prod(shrunk(side, side, 0, convs)) != numbers:
        raise Misfit(
            f"The posterior takes {plural(numbers, 'number')} of an image, which is no square "
            "map of "
            f"{plural(convs[-1].channels, 'channel')}. Only square images are read."
        )
    return side


def _channels(total: int, names: tuple[str, ...]) -> dict[str, int]:
    if not names or total % len(names):
        raise Misfit(
            f"The encoder sees {plural(total, 'channel')}; the configuration names the images "
            f"{', '.join(names) or 'none'}, which cannot share them equally."
        )
    return dict.fromkeys(names, total // len(names))


def _check_decoder(
    weights: Weights,
    observations: Mapping[str, Space],
    decoded: Sequence[str],
    side: int,
    seed: int,
    convs: tuple[ConvConfig, ...],
) -> None:
    """Check that the decoder's images have the size and channels of the encoder's."""
    unseen = [name for name in decoded if name not in observations]
    if unseen:
        raise Misfit(f"The agent reconstructs {unseen[0]}, which it does not see.")
    cells = array(weights, "wm/dec/cnn/in/bias").size / seed
    made = math.sqrt(cells) * math.prod(conv.stride for conv in convs)
    channels = sum(observations[name].shape[2] for name in decoded)
    if made != side or channels != convs[-1].channels:
        raise Misfit(
            f"The encoder sees images of {side}x{side}x{channels}; the decoder makes "
            f"{made:g}x{made:g}x{convs[-1].channels}."
        )


def _vectors(weights: Weights, order: tuple[str, ...] | None) -> dict[str, int]:
    """The sizes of the encoder's vectors, in order.

    The decoder gives the sizes of the vectors that it reconstructs. One further vector gets the
    remaining numbers.
    """
    known = {
        name.removeprefix("wm/dec/mlp/dist_").removesuffix("/out/bias"): int(bias.size)
        for name, bias in weights.items()
        if name.startswith("wm/dec/mlp/dist_") and name.endswith("/out/bias")
    }
    if "wm/enc/mlp/h0/kernel" not in weights:
        if known:
            raise Misfit(f"The agent reconstructs {min(known)}, which it does not see.")
        return {}
    total = array(weights, "wm/enc/mlp/h0/kernel", 2).shape[0]
    if order is None and len(known) == 1 and sum(known.values()) == total:
        return dict(known)
    if order is None:
        raise Misfit(
            f"The agent sees vectors of {plural(total, 'number')}; the checkpoint does not say "
            "in which "
            f"order ({', '.join(f'{name} has {size}' for name, size in sorted(known.items()))}). "
            "Name them all in the order of the project's observation space: `vectors=A,B,...`"
        )
    if missing := sorted(set(known) - set(order)):
        raise Misfit(f"The agent reconstructs {missing[0]}, which it does not see.")
    unknown = [name for name in order if name not in known]
    rest = int(total) - sum(known.values())
    if len(unknown) > 1 or (rest == 0) != (not unknown) or rest < 0:
        raise Misfit(
            f"The agent sees vectors of {plural(total, 'number')}; of "
            f"{', '.join(order) or 'none'}, "
            f"{len(unknown)} are not reconstructed, with {plural(rest, 'number')} for them."
        )
    return {name: known.get(name, rest) for name in order}


def _actions(weights: Weights, discrete: Mapping[str, int] | None) -> dict[str, Space]:
    size = array(weights, "task_behavior/ac/actor/dist_out/out/bias").size
    if "task_behavior/ac/actor/dist_out/std/bias" in weights:
        return {"action": Space((size,), "float32")}
    return {
        name: Space((), "int32", choices)
        for name, choices in (discrete or {"action": size}).items()
    }


def _cannot(observations: Mapping[str, Space], decoded: Sequence[str]) -> dict[str, str]:
    """What the agent cannot do because part of the decoder is missing."""
    blind = [name for name in observations if name not in decoded]
    if not blind:
        return {}
    arms = "sig and elbo" if decoded else "sig, elbo, evidence and best of N"
    return {
        "decode": f"it was trained without a decoder of {', '.join(blind)}, so there are no "
        f"metrics of that and no arms that need it: {arms}"
    }


class Torch(Taken):
    """Arrays of PyTorch modules, converted to danijar's names and layouts of 2023."""

    def normed(self, new: str, name: str, norm: str) -> None:
        """A dense layer without bias and the layer norm after it."""
        self.move(f"{new}/kernel", f"{name}.weight", 2, (1, 0))
        self.norm(new, norm)

    def norm(self, new: str, name: str) -> None:
        self.move(f"{new}/norm/scale", f"{name}.weight")
        self.move(f"{new}/norm/bias", f"{name}.bias")

    def down(self, part: str, norm: str = "") -> None:
        """Strided convolutions `{part}.0, .3, ...` and their norms `.1, .4, ...`."""
        for index in range(self.count_by(part + ".{}.weight", 3)):
            new = f"wm/enc/cnn/s{index}res"
            self.move(f"{new}/kernel", f"{part}.{3 * index}.weight", 4, (2, 3, 1, 0))
            self.norm(new, f"{part}.{3 * index + 1}{norm}")

    def up(self, part: str, norm: str = "") -> None:
        """Transposed convolutions (in, out, height, width), which PyTorch flips. The last has a
        bias instead of a norm.
        """
        count = self.count_by(part + ".{}.weight", 3)
        for index in range(count):
            new = f"wm/dec/cnn/s{index}res"
            self.move(f"{new}/kernel", f"{part}.{3 * index}.weight", 4, (2, 3, 1, 0))
            self.out[f"{new}/kernel"] = self.out[f"{new}/kernel"][::-1, ::-1].copy()
            if index == count - 1:
                self.move(f"{new}/bias", f"{part}.{3 * index}.bias")
            else:
                self.norm(new, f"{part}.{3 * index + 1}{norm}")

    def swap(self, name: str, deter: int, latent: int) -> None:
        """Reorder the rows of a layer with input [latent, memory] to [memory, latent]."""
        self.rows(name, [(latent, (deter,)), (0, (latent,))])

    def tokens(self, name: str, deter: int) -> None:
        """Reorder the rows of the posterior's layer: an image's tokens from (c, h, w) to (h, w,
        c).
        """
        rows = len(self.out[name])
        convs = count(self.out, "wm/enc/cnn/s{}res/kernel")
        if not convs:
            return
        channels = array(self.out, f"wm/enc/cnn/s{convs - 1}res/kernel", 4).shape[3]
        vectors = widths(self.out, "wm/enc/mlp")
        vector = vectors[-1] if vectors else 0
        side = math.isqrt(max(rows - deter - vector, 0) // channels)
        image = (channels, side, side)
        self.rows(name, [(0, (deter,)), (deter, image), (deter + math.prod(image), (vector,))])

    def units(self, new: str, first: str) -> None:
        """Reorder the outputs of a decoder's first layer from (c, h, w) to (h, w, c). The channels
        are the inputs of its first convolution.
        """
        channels = array(self.out, f"{first}/kernel", 4).shape[3]
        for part in ("kernel", "bias"):
            values = self.out[f"{new}/{part}"]
            side = math.isqrt(values.shape[-1] // channels)
            if not side or channels * side * side != values.shape[-1]:
                raise Misfit(
                    f"{self.file}: the image decoder begins with "
                    f"{plural(values.shape[-1], 'number')}, "
                    f"which are no square map of {plural(channels, 'channel')}."
                )
            grid = values.reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
            self.out[f"{new}/{part}"] = grid.reshape(values.shape).copy()

    def join(self, new: str, count: int) -> None:
        """Join the layers `{new}0`, `{new}1`, ..., which share one input, into one layer with all
        their outputs.
        """
        for part in ("kernel", "bias"):
            parts = [self.out.pop(f"{new}{index}/{part}") for index in range(count)]
            if parts:
                self.out[f"{new}/{part}"] = np.concatenate(parts, -1)

    def halve(self, new: str, second: str) -> None:
        """Split a layer into two, with the first and the second half of its outputs."""
        for part in ("kernel", "bias"):
            first, rest = np.split(self.out[f"{new}/{part}"], 2, -1)
            self.out[f"{new}/{part}"], self.out[f"{second}/{part}"] = first.copy(), rest.copy()
