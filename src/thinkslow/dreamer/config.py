"""Sizes and training settings of a DreamerV3 agent: frozen, checked, named."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from thinkslow import settings
from thinkslow.dreamer import ranges
from thinkslow.registry import nearest
from thinkslow.settings import setting
from thinkslow.spaces import Space
from thinkslow.storage.faults import shown
from thinkslow.storage.typed import built

if TYPE_CHECKING:
    from thinkslow.dreamer.model import Dreamer

OFFICIAL = "https://github.com/danijar/dreamerv3"


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """A stack of dense layers."""

    layers: int
    """Dense layers before the output."""
    units: int
    """Width of each layer."""

    def __post_init__(self) -> None:
        ranges.whole(self, ["layers"], least=0, most=ranges.DEEPEST)
        ranges.whole(self, ["units"])


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the world model, actor and critic. Everything else is fixed by the profile."""

    deter: int
    """Width of the recurrent memory h."""
    hidden: int
    """Width of the layers inside the recurrent core, the prior and the posterior."""
    classes: int | None
    """Classes of each factor of the stochastic latent z; None: a Gaussian latent."""
    encoder: MLPConfig
    """Dense layers over vector observations. With patch vision, its units are the tokens."""
    decoder: MLPConfig
    """Dense layers before vector reconstructions; its units also size the image decoder."""
    reward: MLPConfig
    """Reward head."""
    continuation: MLPConfig
    """Head of the probability that the episode continues."""
    policy: MLPConfig
    """Actor."""
    value: MLPConfig | None
    """Critic; None: there is no critic, so the agent can act but cannot be trained."""
    stoch: int = 32
    """Factors of the stochastic latent z, or its dimensions if it is Gaussian."""
    blocks: int = 8
    """Diagonal blocks of the recurrent core."""
    depth: int = 16
    """Channels of the image layers, times `mults`; with patch vision, channels of a patch."""
    mults: tuple[int, ...] = (2, 3, 4, 4)
    """Channel multiple of each convolution; each halves the image."""
    kernel: int = 5
    """Side of a convolution kernel."""
    decoder_blocks: int = 8
    """Diagonal blocks of the decoder's first layer (`bspace` of the official code)."""
    vision: Literal["conv", "patch"] = "conv"
    """`conv`: the official convolutions. `patch`: non-overlapping 8x8 patches and dense
    layers, for CPUs: 28 times faster there (benchmarks/update.py)."""
    core_layers: int = 1
    """Block-linear layers before the gates of the recurrent core."""
    prior_layers: int = 2
    """Dense layers of the prior."""
    posterior_layers: int = 1
    """Dense layers of the posterior."""
    prior_hidden: int | None = None
    """Width of the prior's layers; None: `hidden`."""
    posterior_hidden: int | None = None
    """Width of the posterior's layers; None: `hidden`."""
    reward_bins: int = 255
    """Bins of the two-hot reward."""
    value_bins: int = 255
    """Bins of the two-hot value."""
    unimix: float = 0.01
    """Share of uniform mixed into the latent categoricals."""
    mixed_logits: bool = False
    """Whether a belief holds its logits after the uniform mix, as in sheeprl."""
    actor_unimix: float = 0.0
    """Share of uniform in discrete actions; the official code has none."""
    decoded: tuple[str, ...] | None = None
    """Observations that are reconstructed; None: all."""
    discount: float = 1.0
    """Discount of each imagined step, in addition to that in the continue head. In the official
    code the continue head contains all of it.
    """
    free_nats: float = 1.0
    """KL, in nats, below which the training losses of prior and posterior are constant."""
    rep_scale: float = 0.1
    """Weight of the posterior's KL in training: the `beta` that the encoder was trained with."""

    def __post_init__(self) -> None:
        ranges.whole(
            self,
            (
                "deter",
                "hidden",
                "stoch",
                "blocks",
                "depth",
                "decoder_blocks",
                "reward_bins",
                "value_bins",
            ),
        )
        ranges.whole(
            self,
            (
                name
                for name in ("classes", "prior_hidden", "posterior_hidden")
                if getattr(self, name) is not None
            ),
        )
        ranges.whole(self, ["kernel"], most=64)
        ranges.whole(
            self, ("core_layers", "prior_layers", "posterior_layers"), least=0, most=ranges.DEEPEST
        )
        ranges.number(self, ("unimix", "actor_unimix"), below=1.0)
        ranges.number(self, ["discount"], most=1.0)
        ranges.number(self, ("free_nats", "rep_scale"))
        ranges.flags(self, ["mixed_logits"])
        ranges.decoded(self)
        if (
            not isinstance(self.mults, tuple)
            or len(self.mults) > 16
            or not all(type(mult) is int and 1 <= mult <= 4096 for mult in self.mults)
        ):
            raise ValueError(
                f"`mults` must be at most 16 whole numbers of 1 to 4096; got {shown(self.mults)}."
            )
        for name in ("encoder", "decoder", "reward", "continuation", "policy", "value"):
            if not isinstance(getattr(self, name), MLPConfig) and (name, self.value) != (
                "value",
                None,
            ):
                raise ValueError(f"`{name}` must say `layers` and `units`.")
        for name, blocks in (("blocks", self.blocks), ("decoder_blocks", self.decoder_blocks)):
            if self.deter % blocks:
                raise ValueError(
                    f"`deter` must be a multiple of `{name}`; got {self.deter} and {blocks}."
                )
        if self.vision not in ("conv", "patch"):
            raise ValueError(f"`vision` must be 'conv' or 'patch'; got {shown(self.vision)}.")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of z."""
        return (self.stoch,) if self.classes is None else (self.stoch, self.classes)

    def build(
        self, observations: Mapping[str, Space], actions: Mapping[str, Space], *, key: Any
    ) -> "Dreamer":
        """A model of these sizes, with random weights."""
        from thinkslow.dreamer.model import Dreamer

        return Dreamer(observations, actions, self, key=key)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ModelConfig":
        """Rebuild from `dataclasses.asdict` after a trip through JSON.

        **Errors:** those of `thinkslow.storage.typed.built`.
        """
        return built(cls, data)


def official(deter: int, hidden: int, classes: int, depth: int, units: int) -> ModelConfig:
    """The official family: three dense layers, one in the reward and continue heads."""
    three, one = MLPConfig(3, units), MLPConfig(1, units)
    return ModelConfig(
        deter=deter,
        hidden=hidden,
        classes=classes,
        depth=depth,
        encoder=three,
        decoder=three,
        reward=one,
        continuation=one,
        policy=three,
        value=three,
    )


_TINY = ModelConfig(
    deter=256,
    hidden=128,
    classes=16,
    stoch=16,
    blocks=4,
    depth=32,
    vision="patch",
    encoder=MLPConfig(2, 256),
    decoder=MLPConfig(2, 256),
    reward=MLPConfig(1, 128),
    continuation=MLPConfig(1, 128),
    policy=MLPConfig(2, 128),
    value=MLPConfig(2, 128),
)

PRESETS: dict[str, ModelConfig] = {
    "tiny": _TINY,
    "tiny-gaussian": dataclasses.replace(_TINY, classes=None, stoch=32),
    "size1m": official(512, 64, 4, 4, 64),
    "size12m": official(2048, 256, 16, 16, 256),
    "size25m": official(3072, 384, 24, 24, 384),
    "size50m": official(4096, 512, 32, 32, 512),
    "size100m": official(6144, 768, 48, 48, 768),
    "size200m": official(8192, 1024, 64, 64, 1024),
    "size400m": official(12288, 1536, 96, 96, 1536),
}
"""The official sizes, named by their parameters, and `tiny`, for a laptop's CPU, with the
official categorical latent or a Gaussian one."""


def model_preset(name: str) -> ModelConfig:
    """**Errors:** `ValueError` for an unknown name, with the nearest or all known ones."""
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the agent learns. The defaults are those of the preset."""

    batch_size: int = setting(16, least=1)
    """Sequences in a batch."""
    batch_length: int = setting(64, least=2)
    """Time steps in a sequence."""
    replay_ratio: float = setting(64.0, above=0)
    """Replayed time steps for each decision in the environment."""
    replay_capacity: int = setting(500_000, least=1)
    """Time steps that the replay buffer holds."""
    learning_rate: float = setting(4e-5, above=0)
    """Learning rate of the optimiser, LaProp."""
    warmup: int = setting(1000, least=0)
    """Updates over which the learning rate rises from zero."""
    clip: float = setting(0.3, above=0)
    """Adaptive gradient clipping: the largest update, as a share of the norm of the weights."""
    imagination: int = setting(15, least=1)
    """Imagined steps that train actor and critic."""
    imagination_starts: int = setting(0, least=0)
    """Imagine from this many last steps of a sequence; 0: all, as in the official code."""
    horizon: int = setting(333, least=2)
    """Horizon of the discount, which is 1 - 1/horizon; it is part of the continue head."""
    actor_entropy: float = setting(3e-4, least=0)
    """Weight of the actor's entropy."""
    trace: float = setting(0.95, least=0, most=1)
    """Lambda of the lambda-return."""
    slow_rate: float = setting(0.02, least=0, most=1)
    """Rate at which the slow copy of the critic follows the critic in each update."""
    return_rate: float = setting(0.01, least=0, most=1)
    """Rate of the running percentiles that normalise returns."""
    return_percentiles: tuple[float, float] = (5.0, 95.0)
    """Percentiles of the returns; returns are normalised by their distance."""
    replay_value_scale: float = 0.3
    """Weight of the critic's loss on replayed steps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; `auto` is bfloat16 on a GPU and float32 on a CPU."""

    def __post_init__(self) -> None:
        settings.check(self)
        if self.imagination_starts == 1:
            raise ValueError(
                "`imagination_starts` must not be 1, for the critic to learn from a step and the "
                "next."
            )
        for name in (
            "replay_ratio",
            "learning_rate",
            "clip",
            "actor_entropy",
            "replay_value_scale",
        ):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"`{name}` must be finite; got {getattr(self, name)}.")
        low, high = self.return_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(
                f"`return_percentiles` must rise from 0 or more to 100 or less; got {low}, {high}."
            )
        if self.imagination_starts > self.batch_length:
            raise ValueError(
                f"`imagination_starts` must be between 0 and `batch_length` ({self.batch_length}); "
                f"got {self.imagination_starts}."
            )


_TINY_LEARNING = TrainConfig(
    batch_length=32,
    imagination_starts=16,
    replay_ratio=51.2,
    learning_rate=4e-4,
    warmup=100,
    actor_entropy=3e-3,
)

LEARNING: dict[str, TrainConfig] = {"tiny": _TINY_LEARNING, "tiny-gaussian": _TINY_LEARNING}
"""Presets whose training settings differ from the official defaults. `tiny`: one update of 16 x 32
steps per 10 decisions, a larger learning rate for a smaller network, and ten times the official
actor entropy. With the official entropy the policy collapses early on the tasks here.
"""


def train_preset(name: str) -> TrainConfig:
    """The default training settings of a preset."""
    model_preset(name)
    return LEARNING.get(name, TrainConfig())
