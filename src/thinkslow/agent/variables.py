"""The variable that refinement changes: the readings of "refine the model state".

The variable is the belief, the latent as floats, the state (memory and latent), or the memory
alone. A latent that was stepped as floats is no longer a one-hot code. It acts unchanged, or is
projected.
"""

from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Belief, Point
from thinkslow.objectives import lookahead
from thinkslow.objectives.term import TermValues
from thinkslow.refinement import Objective, Refined
from thinkslow.refinement.joint import Joint, MemoryShift, joint, memory_shift, shifted
from thinkslow.worldmodel import Memory, Moment, Observation

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent

Stepped: TypeAlias = Belief | Joint | MemoryShift
"""The variable that the steps change."""


def objective_and_start(
    agent: "Agent", observation: Observation, moment: Moment, latent_key: PRNGKeyArray
) -> tuple[Objective, Stepped]:
    """The objective, and where refinement starts.

    Args:
        agent: the agent; its settings name the variable.
        observation: the present one.
        moment: the present one.
        latent_key: PRNG key of the latent that the base agent would draw.
    """
    settings, share = agent.settings, agent.settings.memory_share
    first = start_of(agent, moment, latent_key)

    def objective_at(moment: Moment, start: Belief) -> Objective:
        model = agent.model
        return lookahead(
            model,
            lambda s, k: agent.policy(model, s, k),
            moment,
            observation,
            settings.terms,
            horizon=settings.horizon,
            rollouts=settings.rollouts,
            latent=settings.latent,
            imagery=settings.imagery,
            members=agent.members,
            start=start,
            through_policy=settings.through_policy,
            through_memory=settings.through_memory,
        )

    start = _belief(first, moment)
    if not isinstance(first, Joint | MemoryShift):
        return objective_at(moment, start), first

    def objective(both: Joint | MemoryShift, key: PRNGKeyArray) -> tuple[Array, TermValues]:
        memory = shifted(moment.memory, both.shift, jnp.inf if share is None else share)
        prior = agent.model.prior(memory)
        assert prior is not None  # the agent has checked that its model has one
        there = moment._replace(memory=memory, prior=prior)
        return objective_at(there, start)(_belief(both, moment), key)

    return objective, first


def start_of(agent: "Agent", moment: Moment, latent_key: PRNGKeyArray) -> Stepped:
    """The stepped variable before the first step."""
    settings, variable = agent.settings, agent.settings.variable
    if variable == "memory":
        return memory_shift(moment.memory)
    belief: Belief = moment.posterior
    if variable != "belief":
        belief = Point(jax.lax.stop_gradient(belief.sample(key=latent_key)))
    if variable == "state" or settings.memory_share is not None:
        return joint(belief, moment.memory)
    return belief


def belief_and_memory(
    agent: "Agent", moment: Moment, refined: Refined | None
) -> tuple[Belief, Memory]:
    """The belief after refinement, or the point that replaces it, and the memory."""
    if refined is None:
        return moment.posterior, moment.memory
    found, share = refined.belief, agent.settings.memory_share
    memory = moment.memory
    if isinstance(found, Joint | MemoryShift):
        memory = shifted(memory, found.shift, jnp.inf if share is None else share)
    return _belief(found, moment), memory


def _belief(found: Stepped, moment: Moment) -> Belief:
    """The belief inside the stepped variable; the encoder's if only the memory is stepped."""
    if isinstance(found, Joint):
        return found.belief
    return moment.posterior if isinstance(found, MemoryShift) else found


def projected(
    point: Float[Array, "*factors classes"], landing: str
) -> Float[Array, "*factors classes"]:
    """The latent that acts, from one that was stepped as floats.

    >>> z = jnp.array([[1.0, 0.5, -0.25]])
    >>> projected(z, "code"), projected(z, "simplex")
    (Array([[1., 0., 0.]], dtype=float32), Array([[0.75, 0.25, 0.  ]], dtype=float32))
    """
    if landing == "code":
        return jax.nn.one_hot(jnp.argmax(point, -1), point.shape[-1], dtype=point.dtype)
    if landing == "simplex":
        rows = point.reshape(-1, point.shape[-1])
        return jax.vmap(_on_simplex)(rows).reshape(point.shape)
    return point


def _on_simplex(row: Float[Array, " classes"]) -> Float[Array, " classes"]:
    """The nearest probabilities: each number minus a threshold, at least 0.

    **References:** Duchi et al., Efficient Projections onto the l1-Ball, ICML 2008.
    """
    largest = jnp.sort(row)[::-1]
    counts = jnp.arange(1, len(row) + 1).astype(row.dtype)
    thresholds = (jnp.cumsum(largest) - 1) / counts
    last = jnp.sum(largest > thresholds) - 1
    return jnp.maximum(row - thresholds[last], 0)
