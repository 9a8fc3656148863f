"""Joint smoothing over a fixed lag: later frames inform earlier latents.

`lag` encodes the last frames again from an older state, each separately. Here the latents of the
whole window are refined together, so that each is judged by every real frame after it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.agent.past.window import Window
from thinkslow.distributions import Belief
from thinkslow.refinement import Gradient, Update, refine
from thinkslow.trees import where
from thinkslow.worldmodel import Moment, State, WorldModel, perceive, surprise

LONG = 1e3
"""A step size so large that the bound in nats decides how far a step goes."""


class Track(eqx.Module):
    """The beliefs about the latents of a window; leading axis: its frames."""

    beliefs: Belief

    def kl(self, other: "Track") -> Float[Array, ""]:
        """The largest KL of any frame, so that a bound holds for each."""
        return jnp.max(jax.vmap(lambda a, b: a.kl(b))(self.beliefs, other.beliefs))


def smoothed(
    model: WorldModel,
    window: Window,
    *,
    steps: int,
    nats: Float[Array, ""] | float,
    key: PRNGKeyArray,
    update: Update | None = None,
) -> tuple[Moment, Belief]:
    """The moment at the end of a window, and the beliefs about all its latents.

    Minimises sum_k [-log p(x_k | h_k, z_k) + beta max(KL(q_k || p_k), free nats)] over shifts of
    the logits (or of means and scales) of each q_k, where z_k is the soft latent and every memory
    after it is computed again. The state before the window stays. No shift is the fixed lag.

    Args:
        model: for one example; with a decoder, and with the weight of its KL in training.
        window: the last frames, the present one included.
        steps: number of steps.
        nats: how far each belief may move.
        key: PRNG key of the update, if it is random.
        update: the update rule; None: along the gradient as far as the nats allow.

    **Cost:** `steps` gradients and two passes over the window, each of as many steps of the core,
    encodings and decodings as it has frames.
    """
    beta, free = model.trained_beta, model.trained_free_nats
    assert beta is not None
    assert free is not None  # checked by `needs_of`
    oldest = jax.tree.map(lambda x: x[0], window.states)

    def run(shift: Belief) -> tuple[Array, Belief, Belief, Moment]:
        def step(state: State, at: tuple) -> tuple[State, tuple]:
            now, moved = at
            moment = perceive(model, state, now.actions, now.first, now.observations)
            base = where(now.seen, moment.posterior, moment.prior)
            belief = jax.tree.map(jnp.add, base, moved)
            here = State(moment.memory, belief.soft().astype(state.latent.dtype))
            error = jnp.where(now.seen, surprise(model, here, now.observations), 0.0)
            cost = error + beta * jnp.maximum(belief.kl(moment.prior), free)
            return here, (cost, base, belief, moment)

        return jax.lax.scan(step, oldest, (window, shift))[1]

    shape = jax.eval_shape(
        lambda: (
            perceive(
                model,
                oldest,
                *jax.tree.map(lambda x: x[0], (window.actions, window.first, window.observations)),
            ).posterior
        )
    )
    count = len(window.first)
    still = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), shape)
    first = Track(run(still)[1])

    def shift_of(track: Track) -> Belief:
        return jax.tree.map(jnp.subtract, track.beliefs, first.beliefs)

    def objective(track: Track, key: PRNGKeyArray) -> tuple[Array, dict[str, Array]]:
        return jnp.sum(run(shift_of(track))[0]), {}

    found = refine(
        objective, first, update or Gradient(LONG), steps=steps, key=key, max_kl=nats, accept=True
    )
    _, _, beliefs, moments = run(shift_of(found.belief))
    last, belief = jax.tree.map(lambda x: x[-1], (moments, beliefs))
    return last._replace(posterior=belief), beliefs
