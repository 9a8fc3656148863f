"""The replay rows of a decision, and training batches made from them.

A row holds the observation, the action chosen there, and the latent state at that moment, so that a
replayed sequence starts from a stored state. Observations are named `observation/NAME`, so that an
environment may use any name. Categorical latents are stored as the integers of their classes. The
memory is stored in bfloat16, the precision of the official code: eight bits of mantissa are enough
for a state that starts a sequence.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import ml_dtypes
import numpy as np
from jaxtyping import Array

from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.training.losses import Batch
from thinkslow.envs import Step
from thinkslow.worldmodel import State

FLAGS = ("is_first", "is_last", "is_terminal")
LATENTS = ("deter", "stoch")
"""Fields that learning refreshes."""


def fields(model: Dreamer) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each field of a row, for one environment."""
    config = model.config
    action = jax.eval_shape(model.policy, jax.eval_shape(model.initial), jr.key(0))
    stoch = (config.latent_shape, np.float32)
    if config.classes is not None:
        stoch = (config.latent_shape[:-1], _index_dtype(config.classes))
    return {
        **{_seen(name): (space.shape, space.dtype) for name, space in model.enc.spaces},
        "action": (action.shape, np.float32),
        "reward": ((), np.float32),
        **{flag: ((), np.bool_) for flag in FLAGS},
        "deter": ((config.deter,), ml_dtypes.bfloat16),
        "stoch": stoch,
    }


def row(step: Step, action: np.ndarray, latents: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One decision of every environment: the observations and the agent's states and actions."""
    return {
        **{_seen(name): value for name, value in step.observation.items()},
        "action": action,
        "reward": step.reward,
        **{flag: getattr(step, flag) for flag in FLAGS},
        **latents,
    }


def latents(state: State, classes: int | None) -> dict[str, Array]:
    """States with any leading axes, in the form of a row."""
    stoch = state.latent
    if classes is not None:
        stoch = jnp.argmax(stoch, -1).astype(_index_dtype(classes))
    return {"deter": state.memory.astype(jnp.bfloat16), "stoch": stoch}


def batch(rows: Mapping[str, Array | np.ndarray], model: Dreamer) -> Batch:
    """Sequences to learn from, `[B, T]`, made from rows `[B, T + 1]`. The first row is the starting
    state.
    """
    arrays = {name: jnp.asarray(value) for name, value in rows.items()}
    stoch, classes = arrays["stoch"][:, 0], model.config.classes
    start = State(
        arrays["deter"][:, 0].astype(jnp.float32),
        stoch if classes is None else jax.nn.one_hot(stoch, classes),
    )
    rest = {name: value[:, 1:] for name, value in arrays.items()}
    return Batch(
        observation={name: rest[_seen(name)] for name, _ in model.enc.spaces},
        previous_action=arrays["action"][:, :-1],
        reward=rest["reward"],
        is_first=rest["is_first"],
        is_last=rest["is_last"],
        is_terminal=rest["is_terminal"],
        start=start,
    )


def _seen(name: str) -> str:
    return f"observation/{name}"


def _index_dtype(classes: int) -> type[np.unsignedinteger]:
    return np.uint8 if classes <= 256 else np.uint16
