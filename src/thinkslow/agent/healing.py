"""What a decision resets because it is non-finite, so that one bad number does not stay."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from thinkslow.agent.checks import Guard
from thinkslow.agent.past import Window
from thinkslow.agent.stream import Stream
from thinkslow.trees import all_finite, where
from thinkslow.worldmodel import Moment, State

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent


def usable(moment: Moment, sound: Bool[Array, ""]) -> Moment:
    """The moment; its posterior is the prior if the observation could not be used."""
    return moment._replace(
        posterior=where(sound, moment.posterior, moment.prior), seen=moment.seen & sound
    )


def healed(
    agent: "Agent", state: State, action: Array, is_first: Bool[Array, ""]
) -> tuple[State, Array, Bool[Array, ""]]:
    """State and action, reset if they are non-finite."""
    sound = all_finite((state, action))
    blank = jax.tree.map(lambda x, old: x.astype(old.dtype), agent.model.initial(), state)
    state = where(sound, state, blank)
    return state, jnp.where(sound, action, 0), is_first | ~sound


def healed_window(agent: "Agent", window: Window) -> Window:
    """The window; its states and actions are reset if any of them is non-finite."""
    sound = all_finite((window.states, window.actions))
    blank = jax.tree.map(lambda x, old: x.astype(old.dtype), agent.model.initial(), window.states)
    return dataclasses.replace(
        window,
        states=where(sound, window.states, blank),
        actions=jnp.where(sound, window.actions, 0),
        first=window.first | ~sound,
    )


def healed_stream(stream: Stream) -> Stream:
    """The memory of a check, reset if it is non-finite, and the queue without such actions."""
    guard, queue = stream.guard, stream.queue
    if guard is not None:
        guard = where(all_finite(guard), guard, Guard.new())
    if queue is not None:
        finite = jnp.where(jnp.isfinite(queue.actions), queue.actions, 0)
        queue = dataclasses.replace(queue, actions=finite)
    return dataclasses.replace(stream, guard=guard, queue=queue)
