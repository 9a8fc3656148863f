"""The compiled programs of a training run: the decision of all environments, and the update.

Both are functions of the seed's keys and of counters, so a resumed run repeats them.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.random as jr
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PRNGKeyArray

from thinkslow.agent.agent import Agent
from thinkslow.agent.inputs import Carry
from thinkslow.dreamer.config import TrainConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.training import experience, learner
from thinkslow.dreamer.training.learner import Learner
from thinkslow.dreamer.training.replay import Indices


class Pending(NamedTuple):
    """A running update, and its future results."""

    finite: Array
    latents: dict[str, Array]
    """The refreshed latents of the rows of the batch."""
    metrics: dict[str, Array]
    indices: Indices


@jax.jit
def act(
    model: Dreamer,
    carry: Carry,
    observation: Mapping[str, Array],
    is_first: Array,
    key: PRNGKeyArray,
    steps: Array | int,
) -> tuple[Carry, Array, dict[str, Array]]:
    """One decision of every environment: carry, action vectors, and latents in the form of rows."""
    keys = jr.split(jr.fold_in(key, steps), is_first.shape[0])
    carry, action, _ = Agent(model).act(carry, observation, is_first, keys=keys)
    return carry, action, experience.latents(carry.state, model.config.classes)


@partial(jax.jit, static_argnames="config", donate_argnums=0)
def update(
    one: Learner,
    rows: Mapping[str, Array],
    key: PRNGKeyArray,
    updates: Array | int,
    *,
    config: TrainConfig,
) -> tuple[Learner, Array, dict[str, Array], dict[str, Array]]:
    """One update on replayed rows: the learner, whether it is finite, latents, metrics."""
    batch = experience.batch(rows, one.model)
    updated = learner.update(one, batch, jr.fold_in(key, updates), config=config)
    refreshed = experience.latents(updated.states, one.model.config.classes)
    return updated.learner, updated.finite, refreshed, updated.metrics


def shardings(batch: int) -> tuple[NamedSharding, NamedSharding]:
    """Shardings: a batch spread over all local devices, and an array that is complete on each.

    **Errors:** `ValueError` if the devices cannot share the batch evenly.
    """
    devices = jax.local_devices()
    if batch % len(devices):
        raise ValueError(
            f"`batch_size` must be a multiple of the number of devices; got {batch} and "
            f"{len(devices)}. Pass another `batch_size=N`."
        )
    mesh = Mesh(np.array(devices), ("batch",))
    return NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
