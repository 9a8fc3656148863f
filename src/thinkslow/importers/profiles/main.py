"""Derive the sizes and spaces of an agent of profile `main` from the names and shapes of its
weights.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from thinkslow.dreamer.config import MLPConfig, ModelConfig
from thinkslow.dreamer.match_spaces import JOINED
from thinkslow.dreamer.vision import images, vectors, width
from thinkslow.plural import plural
from thinkslow.spaces import Space
from thinkslow.storage.store import Misfit

_VECTOR = re.compile(r"dec/vec/(.+)/(pred|logits)/bias")
_ACTION = re.compile(r"pol/head/(.+)/(mean|logits)/bias")


def observed(
    weights: Mapping[str, np.ndarray],
    *,
    image: str = "image",
    names: Sequence[str] = (),
    size: Sequence[int] = (),
) -> dict[str, Space]:
    """The observations of the encoder.

    Vectors have the names that the decoder uses; `names` are the vectors that it does not decode.
    `size` is the (height, width) of images from the configuration, needed if they are not square.

    **Errors:** `Misfit` for weights that are missing or contradict each other.
    """
    shape = _Shapes(weights)
    out: dict[str, Space] = {}
    units = 0
    if "enc/mlp0/kernel" in weights:
        inputs, _ = shape("enc/mlp0/kernel", 2)
        last = shape.count(r"enc/mlp(\d+)/kernel") - 1
        units = shape(f"enc/mlp{last}/kernel", 2)[1]
        for name in weights:
            if match := _VECTOR.fullmatch(name):
                classes = shape(name, 1)[0] if match[2] == "logits" else None
                sides = () if classes or shape(name, 1)[0] == 1 else shape(name, 1)
                out[match[1]] = Space(sides, "int32" if classes else "float32", classes)
        rest = inputs - sum(map(width, out.values()))
        unseen = [name for name in names if name not in out]
        if rest and unseen:
            out[JOINED.join(unseen)] = (
                Space((rest,), "float32") if rest > 1 else Space((), "float32")
            )
        elif rest:
            raise Misfit(
                f"enc/mlp0/kernel has {plural(inputs, 'input')}, expected "
                f"{inputs - rest}, those of "
                f"{', '.join(out) or 'no vector'}."
            )
    if "enc/cnn0/kernel" in weights:
        layers = shape.count(r"enc/cnn(\d+)/kernel")
        first = "dyn/obs0/kernel" if "dyn/obs0/kernel" in weights else "dyn/obslogit/kernel"
        tokens = shape(first, 2)[0] - shape("dyn/dynin0/kernel", 2)[0] - units
        cells, rest = divmod(tokens, shape(f"enc/cnn{layers - 1}/kernel", 4)[-1])
        rows = math.isqrt(max(cells, 0))
        columns = rows
        if len(size) == 2 and size[0] * size[1] == cells * 4**layers:
            rows, columns = (side // 2**layers for side in size)
        if rest or cells < 1 or rows * columns != cells:
            raise Misfit(
                f"{first} has {plural(tokens, 'input')} for the image, which is no "
                "image of "
                f"{plural(layers, 'halving')}."
            )
        channels = shape("enc/cnn0/kernel", 4)[2]
        out[image] = Space((rows * 2**layers, columns * 2**layers, channels), "uint8")
    if not out:
        raise Misfit("The checkpoint does not hold a whole agent: its encoder sees nothing.")
    return out


def acted(weights: Mapping[str, np.ndarray]) -> dict[str, Space]:
    """The actions of the actor.

    **Errors:** `Misfit` if there is no actor.
    """
    out = {}
    for name, array in weights.items():
        if match := _ACTION.fullmatch(name):
            discrete = match[2] == "logits"
            out[match[1]] = (
                Space((), "int32", array.size) if discrete else Space((array.size,), "float32")
            )
    if not out:
        raise Misfit("The checkpoint does not hold a whole agent: it has no actor (pol/head).")
    return out


def sizes(
    weights: Mapping[str, np.ndarray],
    observations: Mapping[str, Space],
    *,
    classes: int,
    unimix: float,
    free_nats: float,
    rep_scale: float,
    actor_unimix: float = 0.0,
    mixed_logits: bool = False,
    discount: float = 1.0,
) -> ModelConfig:
    """Every size, from the weights. What they do not determine is passed in.

    **Errors:** `Misfit` for weights that are missing or contradict each other.
    """
    shape = _Shapes(weights)

    def head(name: str) -> MLPConfig:
        layers = shape.count(rf"{name}/mlp/linear(\d+)/kernel")
        return MLPConfig(layers, shape(f"{name}/mlp/linear0/kernel", 2)[1])

    deter, hidden = shape("dyn/dynin0/kernel", 2)
    (latent,) = shape("dyn/priorlogit/bias", 1)
    if classes < 1 or latent % classes:
        raise Misfit(
            f"dyn/priorlogit/bias is ({latent},), expected a multiple of {classes}, the "
            "classes of the latent."
        )
    count = shape.count(r"enc/cnn(\d+)/kernel")
    channels = [shape(f"enc/cnn{index}/kernel", 4)[-1] for index in range(count)]
    depth = math.gcd(*channels) or 1
    blocks = shape("dyn/dyngru/kernel", 3)[0]
    spaces = tuple(observations.items())
    pictures = "dec/imgout/bias" in weights
    seen = {match[1] for name in weights if (match := _VECTOR.fullmatch(name))}
    decoded = {name for name, _ in vectors(spaces) if name in seen}
    decoded |= {name for name, _ in images(spaces)} if pictures else set()
    decoder = MLPConfig(0, shape("dec/sp1/bias", 1)[0] // 2) if pictures else MLPConfig(0, 1)
    return ModelConfig(
        deter=deter,
        hidden=hidden,
        stoch=latent // classes,
        classes=classes,
        blocks=blocks,
        encoder=MLPConfig(shape.count(r"enc/mlp(\d+)/kernel"), shape("enc/mlp0/kernel", 2)[1])
        if vectors(spaces)
        else MLPConfig(0, 1),
        decoder=head("dec") if seen else decoder,
        reward=head("rew"),
        continuation=head("con"),
        policy=head("pol"),
        value=head("val"),
        depth=depth,
        mults=tuple(width // depth for width in channels),
        kernel=shape("enc/cnn0/kernel", 4)[0] if channels else 5,
        decoder_blocks=shape("dec/sp0/kernel", 3)[0] if pictures else blocks,
        core_layers=shape.count(r"dyn/dynhid(\d+)/kernel"),
        prior_layers=shape.count(r"dyn/prior(\d+)/kernel"),
        posterior_layers=shape.count(r"dyn/obs(\d+)/kernel"),
        prior_hidden=_other(shape("dyn/priorlogit/kernel", 2)[0], hidden),
        posterior_hidden=_other(shape("dyn/obslogit/kernel", 2)[0], hidden),
        reward_bins=shape("rew/head/logits/bias", 1)[0],
        value_bins=shape("val/head/logits/bias", 1)[0],
        unimix=unimix,
        free_nats=free_nats,
        rep_scale=rep_scale,
        actor_unimix=actor_unimix,
        mixed_logits=mixed_logits,
        discount=discount,
        decoded=None if decoded == set(observations) else tuple(sorted(decoded)),
    )


class _Shapes:
    """The shapes of the weights, by name."""

    def __init__(self, weights: Mapping[str, np.ndarray]):
        self.shapes = {name: array.shape for name, array in weights.items()}

    def __call__(self, name: str, axes: int) -> tuple[int, ...]:
        found = self.shapes.get(name)
        if found is None:
            raise Misfit(f"The checkpoint does not hold a whole agent: {name} is missing.")
        if len(found) != axes or 0 in found:
            raise Misfit(
                f"{name} is {found}, expected {plural(axes, 'axis', 'axes')}, none of them empty."
            )
        return found

    def count(self, pattern: str) -> int:
        return len({match[1] for name in self.shapes if (match := re.fullmatch(pattern, name))})


def _other(size: int, usual: int) -> int | None:
    return None if size == usual else size
