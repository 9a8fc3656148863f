"""What an agent makes of one observation: predict, infer, and remember.

Late, missing and implausible frames are handled here, and non-finite numbers in the carry are
reset, so that one bad number does not stay.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from thinkslow.agent.checks.check import Checked, Frame, Guard
from thinkslow.agent.inputs import Inputs, fitting, streams
from thinkslow.agent.observing import admitted, kept
from thinkslow.agent.past.futures import Futures, likely
from thinkslow.agent.past.particles import Cloud
from thinkslow.agent.past.smoothing import smoothed
from thinkslow.agent.past.stream import Stream, age_of, caught_up
from thinkslow.agent.past.window import Window, reinferred
from thinkslow.trees import all_finite, only_if, where
from thinkslow.worldmodel import Moment, Observation, State, WorldModel, perceive

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent

Absent = Mapping[str, Bool[Array, ""]]
"""Which parts of an observation are missing, by name."""

_LATE, _CHECK, _SMOOTH, _FUTURES = 0x1A7E, 0xC4EC, 0x5300, 0xF070
"""Offset of further random streams, far from the small numbers that splitting a key folds in."""


class Doubt(NamedTuple):
    """Other states that the agent may be in."""

    counts: Bool[Array, ""]
    """Whether frames were missing since the last one that was used."""
    others: Callable[[], State]
    """Makes the states."""


class Look(NamedTuple):
    """The information of one observation, and the memory of it."""

    plain: Moment
    """The moment without thinking."""
    moment: Moment
    """The new memory of the lag, of missing parts and of the check, if there are any."""
    unrefined: Moment
    """The moment that is carried with `carry` off: without the lag and without refinement."""
    past: Window | None
    observation: Observation
    """The observation that is used as the present one."""
    stream: Stream | None
    before: State
    """The state carried from the previous decision."""
    stays: Bool[Array, ""] | None
    """With `missing` "stale", whether it is also the state to continue with."""
    arrived: Bool[Array, ""] | None
    """With a delay, whether a new frame arrived."""
    checked: Checked | None
    chose: Bool[Array, ""] | None
    """With `futures`, whether one was chosen by the observation."""


class _Received(NamedTuple):
    """What arrived, and the state that it is seen from: the carried one, with a delay caught up."""

    observation: Observation
    sound: Bool[Array, ""]
    """Whether the observation can be used."""
    absent: Absent | None
    state: State
    action: Array
    is_first: Bool[Array, ""]
    stream: Stream
    before: State
    stays: Bool[Array, ""] | None
    arrived: Bool[Array, ""] | None
    doubt: Doubt | None

    def perceived(self, model: WorldModel, start: State, absent: Absent | None) -> Moment:
        """The moment after a state."""
        moment = perceive(model, start, self.action, self.is_first, self.observation, absent)
        return usable(moment, self.sound)


def look(agent: "Agent", given: Inputs) -> Look:
    """Predict and infer, from the state that was carried and from the window, if there is one."""
    carry, key = given.carry, given.key
    model, settings, past = agent.model, agent.settings, carry.past
    choose_key, predict_key = jr.split(jr.fold_in(key, _FUTURES))
    got = _received(agent, given, predict_key=predict_key)
    observation, absent, state, action = got.observation, got.absent, got.state, got.action
    stream = got.stream
    plain = got.perceived(model, state, None)
    moment = plain if absent is None else got.perceived(model, state, absent)
    unrefined = moment
    if isinstance(past, Window):
        past = reset_window(agent, past)
        moment = got.perceived(model, reinferred(model, past), absent)
        unrefined = moment if settings.carry else unrefined
        now, seen = kept(model.observation_spaces, observation), plain.seen
        if absent is not None:
            seen &= ~jnp.any(jnp.stack([*absent.values()]))
        past = past.pushed(Window(state, action, now, got.is_first, seen))
        if settings.smoothing:
            moment = _smoothed(agent, past, moment, key=jr.fold_in(key, _SMOOTH))
    single, chose = moment, None
    if settings.futures > 1:
        doubt = got.doubt
        assert doubt is not None  # made by `Agent.start`
        chose = doubt.counts & ~got.is_first & moment.seen
        moment = unrefined = only_if(
            chose,
            lambda: likely(
                model, state, doubt.others(), action, observation, absent, key=choose_key
            ),
            moment,
        )
    checked = None
    if settings.check is not None:
        moment, checked, guard = _judged(agent, stream, moment, observation, action, key=key)
        unrefined = moment
        if got.arrived is not None:
            guard = where(got.arrived, guard, stream.guard)
        stream = dataclasses.replace(stream, guard=guard)
    if stream.futures is not None:
        if checked is not None:  # a rejected frame chooses nothing
            rejected = usable(single, jnp.zeros((), bool))
            moment = unrefined = where(moment.seen, moment, rejected)
        futures = stream.futures.after(
            model, state, action, got.is_first, moment.seen, key=predict_key
        )
        stream = dataclasses.replace(stream, futures=futures)
    assert not isinstance(past, Cloud)
    remembered = (
        None if carry.stream is None else dataclasses.replace(stream, missing=None, age=None)
    )
    return Look(
        plain,
        moment,
        unrefined,
        past,
        observation,
        remembered,
        got.before,
        got.stays,
        got.arrived,
        checked,
        chose,
    )


def _received(agent: "Agent", given: Inputs, *, predict_key: PRNGKeyArray) -> _Received:
    """What arrived. Missing and non-finite parts are handled, and a delay is caught up."""
    carry, observation, is_first, key = given
    model, settings, stream = agent.model, agent.settings, reset_stream(carry.stream or Stream())
    observation, sound = admitted(model.observation_spaces, observation)
    observation, absent, stream = handle_missing(agent, stream, observation)
    state, action, is_first = reset_state(agent, carry.state, carry.action, is_first)
    before, arrived, stays, futures = state, None, None, stream.futures
    doubt = None if futures is None else Doubt(futures.unsure, lambda: futures.others)
    if absent is not None and settings.missing == "stale":
        stays = jnp.all(jnp.stack([*absent.values()])) & ~is_first
    if stream.queue is not None:
        queue = stream.queue.pushed(action, is_first)
        age = age_of(stream, queue, is_first, settings.delay)
        arrived, new = queue.count > age, queue.count - age
        catch_up = partial(caught_up, model, state, queue, new, steps=settings.delay)
        state, action, is_first = catch_up(key=jr.fold_in(key, _LATE))
        doubt = Doubt(new > 1, lambda: _caught_up(catch_up, settings.futures - 1, predict_key))
        stream = dataclasses.replace(stream, queue=queue.without(new))
    return _Received(
        observation, sound, absent, state, action, is_first, stream, before, stays, arrived, doubt
    )


def _smoothed(agent: "Agent", past: Window, moment: Moment, *, key: PRNGKeyArray) -> Moment:
    """The moment, with the belief that the whole window leads to after its refinement."""
    steps, nats = agent.settings.smoothing, agent.settings.smoothing_nats
    found, _ = smoothed(agent.model, past, steps=steps, nats=nats, key=key)
    return found._replace(seen=moment.seen, absent=moment.absent)


def _judged(
    agent: "Agent",
    stream: Stream,
    moment: Moment,
    observation: Observation,
    action: Array,
    *,
    key: PRNGKeyArray,
) -> tuple[Moment, Checked, Guard]:
    """What the check of the agent makes of a moment."""
    assert agent.settings.check is not None
    assert agent.clean is not None  # checked by `prepared`
    assert stream.guard is not None  # made by `Agent.start`
    frame = Frame(
        agent.model,
        agent.clean,
        moment,
        observation,
        stream.guard,
        action,
        latent_key=streams(key)[0],
        key=jr.fold_in(key, _CHECK),
    )
    return agent.settings.check.judged(frame)


def _caught_up(catch_up: Callable[..., tuple], count: int, key: PRNGKeyArray) -> State:
    """Several states before the present frame, of different samples."""
    return jax.vmap(lambda key: catch_up(key=key)[0])(jr.split(key, count))


def handle_missing(
    agent: "Agent", stream: Stream, observation: Observation
) -> tuple[Observation, Absent | None, Stream]:
    """The observation to use, its missing parts, and the new memory."""
    if stream.missing is None:
        return observation, None, stream
    absent = dict(stream.missing)
    if agent.settings.missing != "hold":
        return observation, absent, stream
    assert stream.held is not None  # made by `prepared`
    shown = kept(agent.model.observation_spaces, observation)
    held = {
        name: jnp.where(absent[name], stream.held[name], value) if name in absent else value
        for name, value in shown.items()
    }
    return held, None, dataclasses.replace(stream, held=held)


def usable(moment: Moment, sound: Bool[Array, ""]) -> Moment:
    """The moment; its posterior is the prior if the observation could not be used."""
    return moment._replace(
        posterior=where(sound, moment.posterior, moment.prior), seen=moment.seen & sound
    )


def reset_state(
    agent: "Agent", state: State, action: Array, is_first: Bool[Array | np.ndarray, ""]
) -> tuple[State, Array, Bool[Array, ""]]:
    """State and action, reset if they are non-finite.

    **Errors:** those of `fitting`.
    """
    sound = all_finite((fitting(agent, state), action))
    blank = jax.tree.map(lambda x, old: x.astype(old.dtype), agent.model.initial(), state)
    state = where(sound, state, blank)
    return state, jnp.where(sound, action, 0), jnp.asarray(is_first) | ~sound


def reset_window(agent: "Agent", window: Window) -> Window:
    """The window; its states and actions are reset if any of them is non-finite."""
    sound = all_finite((window.states, window.actions))
    blank = jax.tree.map(lambda x, old: x.astype(old.dtype), agent.model.initial(), window.states)
    return dataclasses.replace(
        window,
        states=where(sound, window.states, blank),
        actions=jnp.where(sound, window.actions, 0),
        first=window.first | ~sound,
    )


def reset_stream(stream: Stream) -> Stream:
    """The memory of a check and the futures, reset if they are non-finite, and the queue without
    such actions.
    """
    guard, queue, futures = stream.guard, stream.queue, stream.futures
    if guard is not None:
        guard = where(all_finite(guard), guard, Guard.new())
    if queue is not None:
        finite = jnp.where(jnp.isfinite(queue.actions), queue.actions, 0)
        queue = dataclasses.replace(queue, actions=finite)
    if futures is not None:
        sound = all_finite(futures.others)
        blank = jax.tree.map(jnp.zeros_like, futures.others)
        futures = Futures(where(sound, futures.others, blank), futures.unsure & sound)
    return dataclasses.replace(stream, guard=guard, queue=queue, futures=futures)
