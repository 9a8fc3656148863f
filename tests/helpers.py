"""What several test modules share: tiny agents of random weights.

Nothing of `thinkslow` is imported at the top: see conftest.py.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.random as jr
import numpy as np

if TYPE_CHECKING:
    from thinkslow.dreamer.config import ModelConfig
    from thinkslow.dreamer.model import Dreamer
    from thinkslow.dreamer.v1.config import ClassicConfig
    from thinkslow.dreamer.v1.model import ClassicDreamer


def tiny_config(**changes) -> "ModelConfig":
    """Sizes like those of the golden case a, on patches: compiles in a second."""
    from thinkslow.dreamer.config import MLPConfig, ModelConfig

    sizes: dict[str, Any] = {
        "deter": 32, "hidden": 16, "classes": 8, "stoch": 6, "blocks": 4, "depth": 4,
        "vision": "patch", "encoder": MLPConfig(1, 16), "decoder": MLPConfig(1, 16),
        "reward": MLPConfig(1, 16), "continuation": MLPConfig(1, 16),
        "policy": MLPConfig(1, 16), "value": MLPConfig(1, 16),
        "reward_bins": 41, "value_bins": 41,
    }  # fmt: skip
    return ModelConfig(**sizes | changes)


def tiny_dreamer(
    seed: int = 0, observations: Mapping | None = None, actions: Mapping | None = None, **sizes
) -> "Dreamer":
    """A random agent; by default it sees a small image and takes one of three actions.

    The reward and value heads of a new DreamerV3 are zero; here every weight is random, so
    that nothing is right by vanishing.
    """
    from thinkslow.dreamer.model import Dreamer
    from thinkslow.spaces import Space

    observations = observations or {"image": Space((16, 16, 3), "uint8")}
    actions = actions or {"action": Space((), "int32", 3)}
    shape = jax.eval_shape(
        lambda: Dreamer(observations, actions, tiny_config(**sizes), key=jr.key(0))
    )
    return with_random_weights(shape, seed)


def tiny_classic_config(**changes) -> "ClassicConfig":
    """Profile `v1`: every width another, two convolutions, for images of 16."""
    from thinkslow.dreamer.v1.config import ClassicConfig, ConvConfig

    sizes: dict[str, Any] = {
        "deter": 20, "stoch": 4, "classes": 5, "recurrent": 11, "prior": 12, "posterior": 13,
        "reward": (9, 10), "continuation": (8,), "policy": (7, 6), "value": (14,),
        "encoder": (15, 16), "decoder": (17,), "encoder_convs": (ConvConfig(3), ConvConfig(6)),
        "decoder_convs": (ConvConfig(4), ConvConfig(3)), "decoder_seed": 5, "reward_bins": 21,
        "value_bins": 31,
    }  # fmt: skip
    return ClassicConfig(**sizes | changes)


def tiny_classic(
    seed: int = 0, observations: Mapping | None = None, actions: Mapping | None = None, **sizes
) -> "ClassicDreamer":
    """A random agent of profile `v1`; by default it sees what `tiny_dreamer` sees."""
    from thinkslow.dreamer.v1.model import ClassicDreamer
    from thinkslow.spaces import Space

    observations = observations or {"image": Space((16, 16, 3), "uint8")}
    actions = actions or {"action": Space((), "int32", 3)}
    shape = jax.eval_shape(
        lambda: ClassicDreamer(observations, actions, tiny_classic_config(**sizes), key=jr.key(0))
    )
    return with_random_weights(shape, seed)


def with_random_weights(shape: Any, seed: int) -> Any:
    """A model of these shapes, every weight of it random."""
    from thinkslow.dreamer.nets import named, with_named

    rng = np.random.default_rng(seed)

    def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("kernel"):
            return rng.normal(0.0, 1 / np.sqrt(shape[-2]), shape)
        return rng.normal(float(name.endswith("scale")), 0.3, shape)

    weights = {name: weight(name, leaf.shape) for name, leaf in named(shape).items()}
    return with_named(shape, weights)
