"""What a decision starts from: the carry, the observation and the keys, checked and in order.

These are functions and not methods: each call of a method of an Equinox module goes through all its
arrays, which takes a tenth of the decision time of a small agent.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from thinkslow.agent.observing import kept, named, of_numbers
from thinkslow.agent.past.particles import Cloud
from thinkslow.agent.past.stream import Stream
from thinkslow.agent.past.window import Window
from thinkslow.plural import plural
from thinkslow.trees import copies, described, put, shaped
from thinkslow.worldmodel import State, WorldModel

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent

Observations: TypeAlias = Mapping[str, Array | np.ndarray]
Flag: TypeAlias = Bool[Array | np.ndarray, " batch"]
Flags: TypeAlias = Mapping[str, Flag] | Flag
Ages: TypeAlias = Int[Array | np.ndarray, " batch"]


class Carry(eqx.Module):
    """The state that an agent carries between decisions; leading axis: the batch."""

    state: State
    action: Float[Array, "*batch action"]
    past: Window | Cloud | None = None
    """With `lag`, the last decisions (None: none yet); with `particles`, the cloud."""
    stream: Stream | None = None
    """The memory of missing and late observations, if needed."""


class Inputs(NamedTuple):
    """The inputs of a decision; leading axis: the batch."""

    carry: Carry
    observation: Observations
    is_first: Bool[Array | np.ndarray, "*batch"]
    key: Key[Array, "*batch"]


def fitting(agent: "Agent", state: State) -> State:
    """The state of a carry. Its shapes are checked once, when a program is traced.

    **Errors:** `ValueError` for the state of another agent, with both.
    """
    blank = jax.eval_shape(agent.model.initial)
    if shaped(state) != shaped(blank):
        raise ValueError(
            f"`carry` must be of this agent, whose state is a {described(blank)}; got "
            f"{described(state)}. Begin with `agent.start(batch)`."
        )
    return state


def streams(key: PRNGKeyArray) -> tuple[PRNGKeyArray, ...]:
    """The independent keys of one decision: latent, action, refinement, readout."""
    latent_key, action_key, think_key = jr.split(key, 3)
    return latent_key, action_key, *jr.split(think_key)


def prepared(
    agent: "Agent", given: Inputs, *, missing: Flags | None = None, age: Ages | None = None
) -> Inputs:
    """The inputs of a compiled decision.

    **Errors:** as `Agent.act`.
    """
    carry, observation, is_first, keys = given
    if agent.lacks_returns:
        raise ValueError(
            f"{type(agent.settings.choice).__name__} tilts by the range of the agent's returns, "
            "which is not known. Measure it: thinkslow.calibrated(agent, environment); or give "
            "the `scale`, or the agent its `returns`."
        )
    seen = named(agent.observation_spaces, observation)
    is_first = _truths(is_first)
    flags = _flags(agent.model, missing, seen)
    if not isinstance(carry, Carry):
        raise ValueError(
            f"`carry` must be of `agent.start(batch)` or the last decision; got {described(carry)}."
        )
    if not np.ndim(keys) or not len(keys):
        raise ValueError(
            "`keys` must be one for each of one or more environments, such as "
            f"`jax.random.split(key, batch)`; got {described(keys)}."
        )
    batches = {f"`{name}`": value for name, value in seen.items()}
    batches |= {"`is_first`": is_first, "`carry`": carry.action}
    batches |= {f"`missing` of `{name}`": flag for name, flag in (flags or {}).items()}
    batches |= {} if age is None else {"`age`": age}
    for name, value in batches.items():
        if np.shape(value)[:1] != (len(keys),):
            count = plural(np.shape(value)[0], "environment") if np.ndim(value) else "none"
            raise ValueError(
                f"{name} is of {count}, `keys` of {len(keys)}. Give one of each for every "
                "environment, along the first axis."
            )
    if agent.settings.check is not None and agent.clean is None:
        raise ValueError(
            "The check of this agent has no usual errors on clean frames yet. "
            "Calibrate it: thinkslow.calibrated(agent, environment)."
        )
    if agent.settings.lag and carry.past is None:
        carry = _with_window(agent, carry, seen, is_first)
    return Inputs(_with_flags(agent, carry, seen, flags, age), seen, is_first, keys)


def _truths(is_first: Any) -> Any:
    """`is_first` as truth values. Other code bases give 0 and 1 as floats.

    **Errors:** `TypeError` for what is neither true nor false. A traced number may be any.
    """
    found = is_first if isinstance(is_first, jax.Array) else np.asarray(is_first)
    if found.dtype == bool:
        return found
    known = not isinstance(found, Tracer)
    if not of_numbers(found) or (known and not ((found == 0) | (found == 1)).all()):
        raise TypeError(f"`is_first` must be true or false for each environment; got {found}.")
    return found.astype(bool)


def _flags(model: WorldModel, missing: Flags | None, seen: Observations) -> dict[str, Array] | None:
    """Flags of every part of the observation, by name.

    **Errors:** `ValueError` for a part that the agent does not see.
    """
    if missing is None:
        return None
    names = [name for name, _ in model.observation_spaces] or [*seen]
    if not isinstance(missing, Mapping):
        return dict.fromkeys(names, jnp.asarray(missing, bool))
    if unknown := [name for name in missing if name not in names]:
        raise ValueError(
            f"`missing` must be of what the agent sees, {', '.join(names)}; got "
            f"{', '.join(unknown)}."
        )
    count = len(next(iter(seen.values())))
    return {name: jnp.asarray(missing.get(name, np.zeros(count, bool)), bool) for name in names}


def _with_flags(
    agent: "Agent",
    carry: Carry,
    seen: Observations,
    flags: dict[str, Array] | None,
    age: Ages | None,
) -> Carry:
    """The carry, with the flags of the present observation."""
    if flags is None and age is None and carry.stream is None:
        return carry
    delay = agent.settings.delay
    if isinstance(age, np.ndarray) and len(age) and age.max() > delay:
        raise ValueError(
            f"An observation is {plural(age.max(), 'decision')} old, more than `delay`, {delay}. "
            "Set `delay` to the largest age."
        )
    age = None if age is None or not delay else jnp.asarray(age, jnp.int32)
    stream = carry.stream or Stream()
    held = stream.held
    if agent.settings.missing == "hold" and flags is not None and held is None:
        names = [name for name in flags if name in seen]
        parts = {name: seen[name] for name in names}
        shown = kept(agent.model.observation_spaces, parts, axes=1)
        held = jax.tree.map(jnp.asarray, shown)
    flagged = Stream(flags, age, stream.queue, held, stream.guard, stream.futures)
    empty = flags is None and not jax.tree.leaves(flagged)
    return dataclasses.replace(carry, stream=None if empty else flagged)


def _with_window(
    agent: "Agent", carry: Carry, seen: Observations, is_first: Array | np.ndarray
) -> Carry:
    """The carry with a window of the right shapes. The first observation of an episode clears its
    frames.
    """
    frames = kept(agent.observation_spaces, seen, axes=1)
    yes = put(np.ones(np.shape(is_first), bool))
    window = Window(carry.state, carry.action, frames, yes, yes)
    many = jax.tree.map(lambda x: copies(x, agent.settings.lag, axis=1), window)
    return Carry(carry.state, carry.action, many, carry.stream)
