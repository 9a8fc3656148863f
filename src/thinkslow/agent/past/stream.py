"""Missing and late observations: the model's prediction replaces them.

With a frame, the belief is the posterior; without a frame, it is the prior. The action is chosen
for the moment at which it takes effect. Nothing here knows agents; all functions are for one
example.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from thinkslow.agent.checks.check import Guard
from thinkslow.agent.past.futures import Futures
from thinkslow.trees import put, where
from thinkslow.worldmodel import Action, Observation, State, WorldModel


class Queue(eqx.Module):
    """The actions since the last frame that was used, oldest first."""

    actions: Float[Array, "*batch slots action"]
    first: Bool[Array, "*batch slots"]
    """Whether an episode began there; only ever at the first slot."""
    count: Int[Array, "*batch"]
    """Number of slots in use."""

    def pushed(self, action: Action, is_first: Bool[Array, ""]) -> "Queue":
        """The queue with one more action. The first observation of an episode clears it."""
        at = jnp.where(is_first, 0, jnp.minimum(self.count, len(self.first) - 1))
        return Queue(
            self.actions.at[at].set(jnp.where(is_first, 0, action)),
            self.first.at[at].set(is_first),
            at + 1,
        )

    def without(self, used: Int[Array, ""]) -> "Queue":
        """The queue without its `used` oldest actions."""
        index = (jnp.arange(len(self.first)) + used) % len(self.first)
        return Queue(self.actions[index], self.first[index], self.count - used)


class Stream(eqx.Module):
    """The memory of missing and late observations, with the flags of the present one."""

    missing: Mapping[str, Bool[Array, "*batch"]] | None = None
    """By name, whether that part of the present observation is missing."""
    age: Int[Array, "*batch"] | None = None
    """How many decisions old the present observation is."""
    queue: Queue | None = None
    """The queue, with `delay`."""
    held: Observation | None = None
    """With `missing` \"hold\": the last observation of each name."""
    guard: Guard | None = None
    """With a `check`: its memory."""
    futures: Futures | None = None
    """With `futures`, and without a delay: the other predictions."""


def empty_queue(action: Array, delay: int) -> Queue:
    """Number of slots: the actions since a frame that is `delay` decisions old, and as many before
    it.
    """
    slots = 2 * delay + 1
    return Queue(
        put(np.zeros((slots, *action.shape), action.dtype)),
        put(np.zeros(slots, bool)),
        put(np.zeros((), np.int32)),
    )


def age_of(stream: Stream, queue: Queue, is_first: Bool[Array, ""], delay: int) -> Int[Array, ""]:
    """The age of the present observation: as given, or the smaller of `delay` and the age of the
    episode.
    """
    age = jnp.where(is_first, 0, jnp.asarray(delay, jnp.int32))
    if stream.age is not None:
        age = jnp.where(is_first, 0, stream.age.astype(jnp.int32))
    return jnp.clip(age, 0, jnp.minimum(queue.count, delay))


def caught_up(
    model: WorldModel,
    state: State,
    queue: Queue,
    new: Int[Array, ""],
    *,
    steps: int,
    key: PRNGKeyArray,
) -> tuple[State, Array, Bool[Array, ""]]:
    """The state before the present frame, and the action that led to that frame.

    `new` actions of the queue were executed up to the frame, and one of them led to it. The results
    of the others were not observed and are drawn from the prior.

    **Cost:** `steps` steps of the core; `steps` is the largest number of unobserved actions.
    """
    before = unseen(model, state, queue, new - 1, steps=steps, key=key)
    at = jnp.maximum(new - 1, 0)
    return before, queue.actions[at], queue.first[at]


def unseen(
    model: WorldModel,
    state: State,
    queue: Queue,
    count: Int[Array, ""],
    *,
    steps: int,
    key: PRNGKeyArray,
) -> State:
    """The state after the first `count` actions of the queue, at most `steps`. Their results were
    not observed, so latents are samples of the prior.
    """
    if not steps:
        return state

    def step(state: State, at: tuple) -> tuple[State, None]:
        index, key = at
        memory, prior = model.predict(state, queue.actions[index], queue.first[index])
        new = State(memory, prior.sample(key=key).astype(state.latent.dtype))
        return where(index < count, new, state), None

    return jax.lax.scan(step, state, (jnp.arange(steps), jr.split(key, steps)))[0]
