"""One decision of one agent: predict, infer, refine, read a state, act. Batch with `vmap`.

The random numbers of a decision come in independent streams of one key (latent, action,
thinking), so that two agents given the same key differ by their thinking alone, and an agent of
zero steps is the base agent bit for bit.
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from thinkslow.agent.choices import Chosen, Facing
from thinkslow.agent.observing import admitted, kept
from thinkslow.agent.past import Cloud, Mixture, Window, reinferred, resampled, weighted
from thinkslow.distributions import Belief
from thinkslow.objectives import Objective, lookahead
from thinkslow.readouts import Sample
from thinkslow.refinement import Refined, refine
from thinkslow.refinement.joint import joint, moved
from thinkslow.trees import all_finite, where
from thinkslow.worldmodel import Memory, Moment, Observation, State, perceive, surprise

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent
    from thinkslow.agent.thinking import Thinking


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
    """Every iterate; None without steps, and behind a gate, which refines a part of the batch."""
    thinks: Bool[Array, "*batch"]
    """Whether there was any thinking."""
    seen: Bool[Array, "*batch"]
    """Whether the observation could be used; where not, the prior stands in for the encoder's
    belief."""
    mixture: Mixture | None = None
    """The belief of all particles."""
    doubt: Float[Array, "*batch"] | None = None
    """What a gate went by."""
    chosen: Chosen | None = None
    """What the action was chosen by, with a `choice` that compares; None behind a gate."""


class Look(NamedTuple):
    """What one observation tells, and what will be remembered of it."""

    plain: Moment
    """Without thinking."""
    moment: Moment
    """With the lag, if there is any."""
    past: Window | None


def decide(
    agent: "Agent",
    carry: Carry,
    observation: Observation,
    is_first: Bool[Array, ""],
    key: PRNGKeyArray,
) -> tuple[Carry, Float[Array, " action"], Thought]:
    """One decision of one agent: predict, infer, refine, read, act.

    A carry that is not finite is forgotten, as at the beginning of an episode.
    """
    if isinstance(carry.past, Cloud):
        return _decide_together(agent, carry, carry.past, observation, is_first, key)
    looked = look(agent, carry, observation, is_first)
    refined = _refined(agent, observation, looked.moment, streams(key)[2])
    return conclude(agent, carry, observation, looked, refined, key)


def look(agent: "Agent", carry: Carry, observation: Observation, is_first: Bool[Array, ""]) -> Look:
    """Predict and infer, from the state that was carried and from the window, if there is one."""
    model, past = agent.model, carry.past
    observation, sound = admitted(model.observation_spaces, observation)
    state, action, is_first = _healed(agent, carry.state, carry.action, is_first)
    plain = moment = _usable(perceive(model, state, action, is_first, observation), sound)
    if isinstance(past, Window):
        past = _healed_window(agent, past)
        before = reinferred(model, past)
        moment = _usable(perceive(model, before, action, is_first, observation), sound)
        now = kept(model.observation_spaces, observation)
        past = past.pushed(Window(state, action, now, is_first, plain.seen))
    assert not isinstance(past, Cloud)
    return Look(plain, moment, past)


def conclude(
    agent: "Agent", carry: Carry, observation: Observation, looked: Look,
    refined: Refined | None, key: PRNGKeyArray,
) -> tuple[Carry, Float[Array, " action"], Thought]:  # fmt: skip
    """Read a state from the refined belief, and act."""
    latent_key, action_key, _, pick_key = streams(key)
    settings, plain = agent.settings, looked.plain
    after, state = _settle(agent, observation, looked.moment, refined, latent_key, pick_key)
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    action, chosen = acted(agent, after, state, action_key, key)
    thinks = bool(settings.steps or settings.lag or settings.choice)
    nats = after.kl(plain.posterior) if thinks else jnp.zeros(())
    thought = Thought(
        plain.prior, plain.posterior, after, base, state, nats, refined,
        jnp.asarray(thinks), plain.seen, chosen=chosen,
    )  # fmt: skip
    return Carry(state if settings.carry else base, action, looked.past), action, thought


def acted(
    agent: "Agent", belief: Belief, state: State, action_key: PRNGKeyArray, key: PRNGKeyArray
) -> tuple[Float[Array, " action"], Chosen | None]:
    """The policy's action in a state, or the one that the agent's choice takes in its place."""
    action = agent.policy(agent.model, state, action_key)
    if agent.settings.choice is None:
        return action, None
    # What follows must not be fused with it, which may round its last bit otherwise.
    action = jax.lax.optimization_barrier(action)
    facing = Facing(
        agent.model, lambda s, k: agent.policy(agent.model, s, k), agent.greedy, belief, state,
        action, agent.members, agent.returns,
    )  # fmt: skip
    return agent.settings.choice(facing, key=jr.fold_in(key, OF_CHOICE))


OF_CHOICE = 0xC401
"""Far from the small numbers that splitting a key folds in."""


def streams(key: PRNGKeyArray) -> tuple[PRNGKeyArray, ...]:
    """The independent keys of one decision: of the latent, the action, refinement, readout."""
    latent_key, action_key, think_key = jr.split(key, 3)
    return latent_key, action_key, *jr.split(think_key)


def posed(agent: "Agent", observation: Observation, moment: Moment) -> tuple[Objective, Any]:
    """What to descend, and from where: the belief, and the memory where thinking may move it."""
    model, settings = agent.model, agent.settings
    seen, _ = admitted(model.observation_spaces, observation)

    def objective_at(moment: Moment) -> Objective:
        return lookahead(
            model, lambda s, k: agent.policy(model, s, k), moment, seen, settings.terms,
            horizon=settings.horizon, rollouts=settings.rollouts, latent=settings.latent,
            imagery=settings.imagery, members=agent.members,
        )  # fmt: skip

    share = settings.memory_share
    if share is None:
        return objective_at(moment), moment.posterior

    def objective(both: Any, key: PRNGKeyArray) -> Any:
        memory = moved(moment.memory, both.shift, share)
        return objective_at(_at_memory(agent, moment, memory))(both.belief, key)

    return objective, joint(moment.posterior, moment.memory)


def bounds(settings: "Thinking") -> dict[str, Any]:
    """How far a step and all of them may go, and which are taken: options of `refine`."""
    return {
        name: getattr(settings, name)
        for name in ("steps", "max_kl", "accept", "judges", "tolerance")
    }


def _at_memory(agent: "Agent", moment: Moment, memory: Memory) -> Moment:
    """The moment, its prior that of a moved memory."""
    prior = agent.model.prior(memory)
    assert prior is not None  # the agent was asked whether its model has one
    return moment._replace(memory=memory, prior=prior)


def _usable(moment: Moment, sound: Bool[Array, ""]) -> Moment:
    """The moment, its posterior the prior where the observation was not sound."""
    return moment._replace(
        posterior=where(sound, moment.posterior, moment.prior), seen=moment.seen & sound
    )


def _healed(
    agent: "Agent", state: State, action: Array, is_first: Bool[Array, ""]
) -> tuple[State, Array, Bool[Array, ""]]:
    """State and action, forgotten where they are not finite."""
    sound = all_finite((state, action))
    blank = jax.tree.map(lambda x, old: x.astype(old.dtype), agent.model.initial(), state)
    state = where(sound, state, blank)
    return state, jnp.where(sound, action, 0), is_first | ~sound


def _healed_window(agent: "Agent", window: Window) -> Window:
    """The window, whose states and actions are forgotten if any of them is not finite."""
    sound = all_finite((window.states, window.actions))
    blank = jax.tree.map(lambda x, old: x.astype(old.dtype), agent.model.initial(), window.states)
    return dataclasses.replace(
        window, states=where(sound, window.states, blank),
        actions=jnp.where(sound, window.actions, 0), first=window.first | ~sound,
    )  # fmt: skip


def _decide_together(
    agent: "Agent", carry: Carry, cloud: Cloud, observation: Observation,
    is_first: Bool[Array, ""], key: PRNGKeyArray,
) -> tuple[Carry, Float[Array, " action"], Thought]:  # fmt: skip
    """One decision of many particles; the one that acts is drawn by weight."""
    latent_key, action_key, think_key = jr.split(key, 3)
    pick_key, resample_key, own_key = jr.split(think_key, 3)
    model, count = agent.model, cloud.log_weights.shape[-1]
    observation, sound = admitted(model.observation_spaces, observation)

    def perceived(state: State) -> tuple[Moment, Bool[Array, ""]]:
        state, action, first = _healed(agent, state, carry.action, is_first)
        return _usable(perceive(model, state, action, first, observation), sound), first

    moments, firsts = jax.vmap(perceived)(cloud.states)
    weights = cloud.log_weights
    forget = is_first | jnp.any(firsts) | ~all_finite(weights)
    known = jnp.where(forget, -jnp.log(count), weights)
    think = partial(_think, agent, observation)
    afters, refined, states = jax.vmap(think)(moments, *jr.split(own_key, (2, count)))
    told = weighted(model, known, moments, afters, states, observation)
    weights = jnp.where(sound, told, known)

    def pick(weights: Array, tree: Any) -> Any:
        index = jr.categorical(pick_key, weights)
        return jax.tree.map(lambda x: x[index], tree)

    plain = pick(known, moments)
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    after, refined, state = pick(weights, (afters, refined, states))
    action, chosen = acted(agent, after, state, action_key, key)
    thought = Thought(
        plain.prior, plain.posterior, after, base, state, after.kl(plain.posterior), refined,
        jnp.ones((), bool), plain.seen, Mixture(afters, weights), chosen=chosen,
    )  # fmt: skip
    past = resampled(Cloud(states, weights), key=resample_key)
    return Carry(state, action, past), action, thought


def _think(
    agent: "Agent", observation: Observation, moment: Moment, latent_key: PRNGKeyArray,
    think_key: PRNGKeyArray,
) -> tuple[Belief, Refined | None, State]:  # fmt: skip
    """Refine the belief of a particle's moment and read a state from it."""
    refine_key, pick_key = jr.split(think_key)
    refined = _refined(agent, observation, moment, refine_key)
    after, state = _settle(agent, observation, moment, refined, latent_key, pick_key)
    return after, refined, state


def _refined(
    agent: "Agent", observation: Observation, moment: Moment, key: PRNGKeyArray
) -> Refined | None:
    settings = agent.settings
    if not settings.steps:
        return None
    objective, first = posed(agent, observation, moment)
    return refine(
        objective, first, settings.update, key=key, select=settings.select,
        record=settings.record, **bounds(settings),
    )  # fmt: skip


def _settle(
    agent: "Agent", observation: Observation, moment: Moment, refined: Refined | None,
    latent_key: PRNGKeyArray, pick_key: PRNGKeyArray,
) -> tuple[Belief, State]:  # fmt: skip
    """The belief after thinking, and a state read from it."""
    settings = agent.settings
    memory, after = moment.memory, moment.posterior
    if refined is not None:
        after = refined.belief
        if settings.memory_share is not None:
            after, memory = after.belief, moved(memory, after.shift, settings.memory_share)

    def error(latent: Array) -> Float[Array, ""]:
        return surprise(agent.model, State(memory, latent), observation)

    readout = settings.readout or Sample()
    latent = readout.best(after, error, key=latent_key, other_key=pick_key)
    return after, State(memory, latent)
