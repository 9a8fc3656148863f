"""One update of a DreamerV3 agent, compiled: losses, gradient, optimiser, slow critic."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from thinkslow.dreamer.config import TrainConfig
from thinkslow.dreamer.model import Dreamer, Head
from thinkslow.dreamer.training.losses import Batch, ReturnRange, losses, total
from thinkslow.trees import cast
from thinkslow.worldmodel import State


class Learner(eqx.Module):
    """Everything that learning changes. Weights are float32 at every compute precision."""

    model: Dreamer
    slow_value: Head
    returns: ReturnRange
    optimiser: PyTree
    updates: Int[Array, ""]


class Updated(NamedTuple):
    """The results of one update."""

    learner: Learner
    states: State
    """Refreshed posterior states of the batch, `[B, T, ...]`, to write back to the replay."""
    metrics: dict[str, Float[Array, ""]]
    finite: Array
    """Whether loss, gradient and new weights were finite. If not, the learner is unchanged."""


def start(model: Dreamer, config: TrainConfig) -> Learner:
    """A learner before its first update: the slow critic is a copy, the optimiser state is empty.

    **Errors:** `ValueError` for a model without a critic.
    """
    slow = jax.tree.map(jnp.copy, model.critic)
    weights: Any = model  # optax annotates dictionaries of arrays but accepts any tree of arrays
    state = optimiser(config).init(weights)
    return Learner(
        model, slow, ReturnRange(jnp.zeros(()), jnp.zeros(())), state, jnp.zeros((), jnp.int32)
    )


def update(learner: Learner, batch: Batch, key: PRNGKeyArray, *, config: TrainConfig) -> Updated:
    """One step of learning on one batch. Compile with `jax.jit`, donating the learner."""
    dtype = compute_dtype(config)

    def objective(model: Dreamer) -> tuple[Array, tuple]:
        parts, scalars, states, returns = losses(
            cast(model, dtype),
            cast(learner.slow_value, dtype),
            learner.returns,
            cast_start(batch, dtype),
            config,
            key=key,
        )
        return total(parts, model, config), (parts, scalars, states, returns)

    (loss, (parts, scalars, states, returns)), gradient = jax.value_and_grad(
        objective, has_aux=True
    )(learner.model)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    weights: Any = learner.model
    changes, state = optimiser(config).update(gradient, learner.optimiser, weights)
    model: Any = optax.apply_updates(weights, changes)
    before: Any = learner.slow_value
    slow: Any = optax.incremental_update(model.critic, before, config.slow_rate)
    after = Learner(model, slow, returns, state, learner.updates + 1)
    finite &= jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(after)]))
    after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, learner)
    metrics = {f"loss/{name}": jnp.mean(part) for name, part in parts.items()}
    metrics |= {"loss/total": loss, "gradient_norm": norm} | scalars
    return Updated(after, cast(states, jnp.float32), metrics, finite)


def optimiser(config: TrainConfig) -> optax.GradientTransformation:
    """LaProp with adaptive gradient clipping, after the official code.

    **References:** Ziyin et al., LaProp, arXiv 2002.04839; Brock et al., adaptive gradient
    clipping, arXiv 2102.06171.
    """
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, config.warmup),
            optax.constant_schedule(config.learning_rate),
        ],
        [config.warmup],
    )
    return optax.chain(
        clip_by_weight_norm(config.clip),
        optax.scale_by_rms(0.999, 1e-20, eps_in_sqrt=False, bias_correction=True),
        optax.ema(0.9, debias=True),
        optax.scale_by_learning_rate(rate),
    )


def clip_by_weight_norm(clip: float, smallest: float = 1e-3) -> optax.GradientTransformation:
    """Bound the gradient of each array by `clip` times that array's own norm."""

    def init(params: Any) -> Any:
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        def one(g: Array, w: Array) -> Array:
            bound = clip * jnp.maximum(smallest, jnp.linalg.norm(w.ravel()))
            return g / jnp.maximum(1.0, jnp.linalg.norm(g.ravel()) / bound)

        return jax.tree.map(one, updates, params), state

    return optax.GradientTransformation(init, update)


def compute_dtype(config: TrainConfig) -> jnp.dtype:
    """The dtype of `precision` on the default device."""
    if config.precision == "auto":
        return jnp.dtype(jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32)
    return jnp.dtype(config.precision)


def cast_start(batch: Batch, dtype: DTypeLike) -> Batch:
    """The batch with its starting state in the precision of the computation."""
    return eqx.tree_at(lambda b: b.start, batch, cast(batch.start, dtype))
