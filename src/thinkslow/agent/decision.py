"""One decision of one agent: predict, infer, refine, read a state, act. Batch with `vmap`.

The random numbers of a decision come in independent streams of one key (latent, action,
thinking), so that two agents given the same key differ by their thinking alone, and an agent of
zero steps is the base agent bit for bit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from thinkslow.agent.past import (
    Cloud,
    Mixture,
    Moment,
    Window,
    perceive,
    reinferred,
    resampled,
    weighted,
)
from thinkslow.agent.thinking import Knobs, Thinking, direction_of
from thinkslow.distributions import Belief
from thinkslow.objectives import Objective, lookahead
from thinkslow.objectives.members import Members
from thinkslow.refinement import Refined, refine
from thinkslow.refinement.joint import joint, moved
from thinkslow.worldmodel import Memory, Observation, State, WorldModel, read, surprise


class Carry(eqx.Module):
    """What an agent takes from one decision to the next; leading axis: the batch."""

    state: State
    action: Float[Array, "*batch action"]
    past: Window | Cloud | None = None
    """With `lag` the last decisions (None: there was none yet); with `particles` the cloud."""


class Thought(eqx.Module):
    """What went on in one decision; leading axis: the batch."""

    prior: Belief
    before: Belief
    """The encoder's belief."""
    after: Belief
    """The belief after thinking; of particles, the one whose state acts."""
    base: State
    """The state without thinking, on the same random numbers."""
    state: State
    """The state that chose the action."""
    moved: Float[Array, "*batch"]
    """KL(after || before), nats."""
    refined: Refined | None
    """Every iterate; None without steps."""
    thinks: Bool[Array, "*batch"]
    """Whether there was any thinking."""
    seen: Bool[Array, "*batch"]
    """Whether the encoder's belief was finite; where not, the prior stands in for it."""
    mixture: Mixture | None = None
    """The belief of all particles."""
    doubt: Float[Array, "*batch"] | None = None
    """What a gate went by."""


def decide(
    model: WorldModel,
    policy: Callable[[Any, State, PRNGKeyArray], Array],
    thinking: Thinking,
    knobs: Knobs,
    carry: Carry,
    observation: Observation,
    is_first: Bool[Array, ""],
    key: PRNGKeyArray,
    *,
    members: Members | None = None,
) -> tuple[Carry, Float[Array, " action"], Thought]:
    """One decision of one agent: predict, infer, refine, read, act."""
    if isinstance(carry.past, Cloud):
        think = partial(_think, model, policy, thinking, knobs, members, observation)
        return _decide_together(model, policy, think, carry, carry.past, observation, is_first, key)
    looked = look(model, carry, observation, is_first)
    refined = _refined(
        model, policy, thinking, knobs, members, observation, looked.moment, streams(key)[2]
    )
    return conclude(model, policy, thinking, knobs, carry, observation, looked, refined, key)


class Look(NamedTuple):
    """What one observation tells, and what will be remembered of it."""

    plain: Moment
    """Without thinking."""
    moment: Moment
    """With the lag, if there is any."""
    past: Window | None


def look(
    model: WorldModel, carry: Carry, observation: Observation, is_first: Bool[Array, ""]
) -> Look:
    """Predict and infer, from the state that was carried and from the window, if there is one."""
    plain = moment = perceive(model, carry.state, carry.action, is_first, observation)
    past = carry.past
    if isinstance(past, Window):
        moment = perceive(model, reinferred(model, past), carry.action, is_first, observation)
        past = past.pushed(carry.state, carry.action, observation, is_first)
    assert not isinstance(past, Cloud)
    return Look(plain, moment, past)


def conclude(
    model: WorldModel, policy: Callable, thinking: Thinking, knobs: Knobs, carry: Carry,
    observation: Observation, looked: Look, refined: Refined | None, key: PRNGKeyArray,
) -> tuple[Carry, Float[Array, " action"], Thought]:  # fmt: skip
    """Read a state from the refined belief, and act."""
    latent_key, action_key, _, pick_key = streams(key)
    plain = looked.plain
    after, state = _settle(
        model, thinking, knobs, observation, looked.moment, refined, latent_key, pick_key
    )
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    action = policy(model, state, action_key)
    thought_over = thinking.steps or thinking.lag
    nats = after.kl(plain.posterior) if thought_over else jnp.zeros(())
    thought = Thought(
        plain.prior, plain.posterior, after, base, state, nats, refined,
        jnp.asarray(thought_over > 0), plain.seen,
    )  # fmt: skip
    return Carry(state if thinking.carry else base, action, looked.past), action, thought


def streams(key: PRNGKeyArray) -> tuple[PRNGKeyArray, ...]:
    """The independent keys of one decision: of the latent, the action, refinement, candidates."""
    latent_key, action_key, think_key = jr.split(key, 3)
    return latent_key, action_key, *jr.split(think_key)


def _decide_together(
    model: WorldModel, policy: Callable, think: Callable, carry: Carry, cloud: Cloud,
    observation: Observation, is_first: Bool[Array, ""], key: PRNGKeyArray,
) -> tuple[Carry, Float[Array, " action"], Thought]:  # fmt: skip
    """One decision of many particles; the one that acts is drawn by weight."""
    latent_key, action_key, think_key = jr.split(key, 3)
    pick_key, resample_key, own_key = jr.split(think_key, 3)
    count = cloud.log_weights.shape[-1]
    known = jnp.where(is_first, -jnp.log(count), cloud.log_weights)
    moments = jax.vmap(
        lambda state: perceive(model, state, carry.action, is_first, observation)
    )(cloud.states)  # fmt: skip
    afters, refined, states = jax.vmap(think)(moments, *jr.split(own_key, (2, count)))
    weights = weighted(model, known, moments, afters, states, observation)

    def pick(weights: Array, tree: Any) -> Any:
        index = jr.categorical(pick_key, weights)
        return jax.tree.map(lambda x: x[index], tree)

    plain = pick(known, moments)
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    after, refined, state = pick(weights, (afters, refined, states))
    action = policy(model, state, action_key)
    thought = Thought(
        plain.prior, plain.posterior, after, base, state, after.kl(plain.posterior), refined,
        jnp.ones((), bool), plain.seen, Mixture(afters, weights),
    )  # fmt: skip
    past = resampled(Cloud(states, weights), key=resample_key)
    return Carry(state, action, past), action, thought


def _think(
    model: WorldModel, policy: Callable, thinking: Thinking, knobs: Knobs,
    members: Members | None, observation: Observation, moment: Moment,
    latent_key: PRNGKeyArray, think_key: PRNGKeyArray,
) -> tuple[Belief, Refined | None, State]:  # fmt: skip
    """Refine the belief of a particle's moment and read a state from it."""
    refine_key, pick_key = jr.split(think_key)
    refined = _refined(
        model, policy, thinking, knobs, members, observation, moment, refine_key
    )  # fmt: skip
    after, state = _settle(
        model, thinking, knobs, observation, moment, refined, latent_key, pick_key
    )
    return after, refined, state


def posed(
    model: WorldModel, policy: Callable, thinking: Thinking, knobs: Knobs,
    members: Members | None, observation: Observation, moment: Moment,
) -> tuple[Callable, Any]:  # fmt: skip
    """What to descend, and from where: the belief, and the memory where thinking may move it."""
    memory, prior, before, _ = moment

    def objective_at(memory: Memory) -> Objective:
        return lookahead(
            model, lambda s, k: policy(model, s, k), memory, prior, before, observation,
            terms=knobs.weights, horizon=thinking.rollout, rollouts=thinking.rollouts,
            samples=thinking.samples, latent=thinking.latent, imagery=thinking.imagery,
            members=members, beta=knobs.beta, free_nats=knobs.free_nats,
        )  # fmt: skip

    if not thinking.memory:
        return objective_at(memory), before

    def objective(both: Any, key: PRNGKeyArray) -> Any:
        return objective_at(moved(memory, both.shift, knobs.memory))(both.belief, key)

    return objective, joint(before, memory)


def bounds(thinking: Thinking, knobs: Knobs) -> dict[str, Any]:
    """How far a step and all of them may go, and which are taken: options of `refine`."""
    return {
        # Random steps lie on one line and look at nothing: the budget alone bounds them.
        "trust": jnp.inf if thinking.update == "random" else knobs.nats / thinking.steps**2,
        "budget": knobs.nats, "accept": thinking.accept, "judges": thinking.judges,
        "tolerance": None if thinking.tolerance is None else knobs.tolerance,
    }  # fmt: skip


def _refined(
    model: WorldModel, policy: Callable, thinking: Thinking, knobs: Knobs,
    members: Members | None, observation: Observation, moment: Moment, key: PRNGKeyArray,
) -> Refined | None:  # fmt: skip
    if not thinking.steps:
        return None
    objective, first = posed(model, policy, thinking, knobs, members, observation, moment)
    return refine(
        objective, first, direction_of(thinking, knobs), steps=thinking.steps, key=key,
        select=thinking.select, **bounds(thinking, knobs),
    )  # fmt: skip


def _settle(
    model: WorldModel, thinking: Thinking, knobs: Knobs, observation: Observation,
    moment: Moment, refined: Refined | None, latent_key: PRNGKeyArray, pick_key: PRNGKeyArray,
) -> tuple[Belief, State]:  # fmt: skip
    """The belief after thinking, and a state read from it."""
    memory, after = moment.memory, moment.posterior
    if refined is not None:
        after = refined.belief
        if thinking.memory:
            after, memory = after.belief, moved(memory, after.shift, knobs.memory)
    state = State(memory, read(after, thinking.readout, key=latent_key))
    if thinking.candidates > 1:
        state = _best(model, memory, after, observation, thinking.candidates, state, pick_key)
    return after, state


def _best(
    model: WorldModel, memory: Memory, belief: Belief, observation: Observation, count: int,
    first: State, key: PRNGKeyArray,
) -> State:  # fmt: skip
    """Of `first` and `count - 1` more samples, the state that reconstructs best."""
    others = jax.vmap(lambda k: belief.sample(key=k))(jr.split(key, count - 1))
    latents = jnp.concatenate([first.latent[None], others])

    def error(latent: Array) -> Float[Array, ""]:
        return surprise(model, State(memory, latent), observation)

    return State(memory, latents[jnp.argmin(jax.vmap(error)(latents))])
