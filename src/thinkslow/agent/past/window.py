"""The last frames, encoded again with soft latents between them, to infer the present."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from thinkslow.trees import where
from thinkslow.worldmodel import Observation, State, WorldModel, perceive


class Window(eqx.Module):
    """The last decisions, oldest first; leading axis `lag`. The present is not among them."""

    states: State
    """The state before each decision, from which its memory was predicted."""
    actions: Float[Array, "*lag action"]
    """The action that led to it."""
    observations: Observation
    first: Bool[Array, "*lag"]
    """Whether an episode began there."""
    seen: Bool[Array, "*lag"]
    """Whether the observation could be used."""

    def pushed(self, new: "Window") -> "Window":
        """The window after one more decision, `new`, which has no leading axis."""
        return jax.tree.map(lambda old, x: jnp.concatenate([old[1:], x[None]]), self, new)


def reinferred(model: WorldModel, window: Window) -> State:
    """The state after the window: from the oldest state, every frame encoded again.

    Between frames the latent is soft: the expectation instead of a sample. If the memory is linear
    in the latent, this is the exact filter, started from one sample `lag` decisions ago. If an
    episode began within the window, the model forgets everything before it.

    **Cost:** `lag` steps of the core and the encoder.
    """

    def step(state: State, now: Window) -> tuple[State, None]:
        moment = perceive(model, state, now.actions, now.first, now.observations)
        belief = where(now.seen, moment.posterior, moment.prior)
        latent = belief.soft().astype(state.latent.dtype)
        return State(moment.memory, latent), None

    oldest = jax.tree.map(lambda x: x[0], window.states)
    return jax.lax.scan(step, oldest, window)[0]
