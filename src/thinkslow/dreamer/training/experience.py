"""What a run remembers of a decision, and how a batch to learn from is made of it.

A row holds what was seen, the action chosen there, and the latent state at that moment, so that
a replayed sequence starts from a state instead of from nothing. Categorical latents are kept as
the integers of their classes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent.decision import Carry
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
        **{name: (space.shape, space.dtype) for name, space in model.enc.spaces},
        "action": (action.shape, np.float32), "reward": ((), np.float32),
        **{flag: ((), np.bool_) for flag in FLAGS},
        "deter": ((config.deter,), np.float32), "stoch": stoch,
    }  # fmt: skip


def row(step: Step, carry: Carry, classes: int | None) -> dict[str, np.ndarray]:
    """One decision of every environment: what was seen and what the agent made of it."""
    return {
        **step.observation, "reward": step.reward, "action": np.asarray(carry.action, np.float32),
        **{flag: getattr(step, flag) for flag in FLAGS}, **latents(carry.state, classes),
    }  # fmt: skip


def latents(state: State, classes: int | None) -> dict[str, np.ndarray]:
    """States, with any leading axes, as a row keeps them."""
    stoch = np.asarray(state.latent, np.float32)
    if classes is not None:
        stoch = np.argmax(stoch, -1).astype(_index_dtype(classes))
    return {"deter": np.asarray(state.memory, np.float32), "stoch": stoch}


def batch(rows: Mapping[str, np.ndarray], model: Dreamer) -> Batch:
    """Sequences to learn from, `[B, T]`, of rows `[B, T + 1]`: the first is the starting state."""
    arrays = {name: jnp.asarray(value) for name, value in rows.items()}
    stoch, classes = arrays["stoch"][:, 0], model.config.classes
    start = State(
        arrays["deter"][:, 0], stoch if classes is None else jax.nn.one_hot(stoch, classes)
    )
    rest = {name: value[:, 1:] for name, value in arrays.items()}
    return Batch(
        observation={name: rest[name] for name, _ in model.enc.spaces},
        previous_action=arrays["action"][:, :-1],
        reward=rest["reward"],
        is_first=rest["is_first"],
        is_last=rest["is_last"],
        is_terminal=rest["is_terminal"],
        start=start,
    )


def _index_dtype(classes: int) -> type[np.unsignedinteger]:
    return np.uint8 if classes <= 256 else np.uint16
