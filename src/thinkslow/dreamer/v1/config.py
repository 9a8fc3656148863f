"""Sizes and settings of an agent of profile `v1`. Widths are given layer by layer."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from thinkslow.dreamer import ranges
from thinkslow.spaces import Space
from thinkslow.storage.faults import shown
from thinkslow.storage.typed import built

if TYPE_CHECKING:
    from thinkslow.dreamer.v1.model import V1Dreamer

Widths = tuple[int, ...]
"""Numbers of units of the dense layers, in order."""


@dataclasses.dataclass(frozen=True)
class ConvConfig:
    """One convolution."""

    channels: int
    """Number of output channels."""
    kernel: int = 4
    """Width and height of the kernel."""
    stride: int = 2
    """Factor by which it shrinks an image; in a decoder, the factor of growth."""

    def __post_init__(self) -> None:
        ranges.whole(self, ["channels"])
        ranges.whole(self, ["kernel"], most=64)
        ranges.whole(self, ["stride"], most=16)


@dataclasses.dataclass(frozen=True)
class V1Config:
    """Sizes and settings of an agent of profile `v1`."""

    deter: int
    """Width of the recurrent memory h."""
    stoch: int
    """Factors of the stochastic latent z."""
    classes: int
    """Classes of each factor."""
    recurrent: int
    """Width of the layer before the recurrent core (`img_in`)."""
    prior: int
    """Width of the prior's layer (`img_out`)."""
    posterior: int
    """Width of the posterior's layer (`obs_out`)."""
    reward: Widths
    """Reward head."""
    continuation: Widths
    """Head of the probability that the episode continues."""
    policy: Widths
    """Actor."""
    value: Widths
    """Critic."""
    encoder: Widths = ()
    """Dense layers over vector observations."""
    decoder: Widths = ()
    """Dense layers before vector reconstructions."""
    encoder_convs: tuple[ConvConfig, ...] = ()
    """Convolutions over images."""
    decoder_convs: tuple[ConvConfig, ...] = ()
    """Transposed convolutions to images; the last one's channels are those of the images."""
    decoder_seed: int = 0
    """Channels of the feature map that the decoder starts from."""
    decoded: tuple[str, ...] | None = None
    """Observations that are reconstructed; None: all."""
    symlog_inputs: bool = True
    """Whether vector observations are encoded in symlog space."""
    reward_bins: int = 255
    """Bins of the two-hot reward."""
    value_bins: int = 255
    """Bins of the two-hot value."""
    unimix: float = 0.01
    """Share of uniform in the latent categoricals."""
    mixed_logits: bool = True
    """Whether a belief holds its logits after the uniform mix, as in danijar's code and sheeprl."""
    actor_unimix: float = 0.01
    """Share of uniform in discrete actions."""
    min_std: float = 0.1
    """Smallest standard deviation of continuous actions."""
    max_std: float = 1.0
    """Largest standard deviation of continuous actions."""
    going_on: Literal["mode", "mean"] = "mode"
    """Whether imagination uses the mode of the continue head (yes or no) or its mean (a
    probability).
    """
    discount: float = 1 - 1 / 333
    """Discount of each imagined step that continues."""
    free_nats: float = 1.0
    """KL, in nats, below which the training losses of prior and posterior are constant."""
    dyn_scale: float = 0.5
    """Weight of the prior's KL in training."""
    rep_scale: float = 0.1
    """Weight of the posterior's KL in training: the `beta` that the encoder was trained with."""

    def __post_init__(self) -> None:
        if self.going_on not in ("mode", "mean"):
            raise ValueError(f"`going_on` must be 'mode' or 'mean'; got {shown(self.going_on)}.")
        ranges.whole(
            self,
            (
                "deter",
                "stoch",
                "classes",
                "recurrent",
                "prior",
                "posterior",
                "reward_bins",
                "value_bins",
            ),
        )
        ranges.whole(self, ["decoder_seed"], least=0)
        ranges.number(self, ("unimix", "actor_unimix"), below=1.0)
        ranges.number(self, ["discount"], most=1.0)
        ranges.number(self, ("free_nats", "dyn_scale", "rep_scale"))
        ranges.number(self, ["min_std"], least=1e-6)
        ranges.number(self, ["max_std"], least=self.min_std)
        ranges.flags(self, ("symlog_inputs", "mixed_logits"))
        ranges.decoded(self)
        for name in ("reward", "continuation", "policy", "value", "encoder", "decoder"):
            widths = getattr(self, name)
            if (
                not isinstance(widths, tuple)
                or len(widths) > ranges.DEEPEST
                or not all(type(one) is int and 1 <= one <= ranges.WIDEST for one in widths)
            ):
                raise ValueError(
                    f"`{name}` must be at most {ranges.DEEPEST} widths of 1 to {ranges.WIDEST}; "
                    f"got {shown(widths)}."
                )
        if max(len(self.encoder_convs), len(self.decoder_convs)) > 16:
            raise ValueError("`encoder_convs` and `decoder_convs` must be 16 or fewer.")

    @property
    def growth(self) -> int:
        """How many times larger an image is than the feature map that its decoder starts from."""
        return math.prod(conv.stride for conv in self.decoder_convs)

    def build(
        self, observations: Mapping[str, Space], actions: Mapping[str, Space], *, key: Any
    ) -> "V1Dreamer":
        """A model of these sizes, with random weights."""
        from thinkslow.dreamer.v1.model import V1Dreamer

        return V1Dreamer(observations, actions, self, key=key)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "V1Config":
        """Rebuild from `dataclasses.asdict` after a trip through JSON.

        **Errors:** those of `thinkslow.storage.typed.built`.
        """
        return built(cls, data)


def official(deter: int, units: int, depth: int, layers: int) -> V1Config:
    """The sizes of 2023, for images of 64x64x3."""
    depths = [depth * 2**index for index in range(4)]
    same = (units,) * layers
    return V1Config(
        deter=deter,
        stoch=32,
        classes=32,
        recurrent=units,
        prior=units,
        posterior=units,
        reward=same,
        continuation=same,
        policy=same,
        value=same,
        encoder=same,
        decoder=same,
        encoder_convs=tuple(ConvConfig(width) for width in depths),
        decoder_convs=tuple(ConvConfig(width) for width in (*depths[-2::-1], 3)),
        decoder_seed=depths[-1],
    )


PRESETS: dict[str, V1Config] = {
    "small": official(512, 512, 32, 2),
    "medium": official(1024, 640, 48, 3),
    "large": official(2048, 768, 64, 4),
    "xlarge": official(4096, 1024, 96, 5),
}
"""The sizes of 2023, by name."""
