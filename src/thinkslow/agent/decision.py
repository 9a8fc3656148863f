"""One decision of one agent: predict, infer, refine, read a state, act; and of a batch.

One key gives the independent random streams of a decision (latent, action, thinking). Two agents
with the same key therefore differ only in their thinking, and an agent with zero steps is the base
agent, bit for bit.
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from thinkslow.agent.blocks import in_blocks
from thinkslow.agent.checks.check import Checked
from thinkslow.agent.choices.choice import Chosen, Facing
from thinkslow.agent.inputs import Carry, Inputs, streams
from thinkslow.agent.looking import Look, handle_missing, look, reset_state, usable
from thinkslow.agent.observing import admitted, blank
from thinkslow.agent.past.particles import Cloud, Mixture, resampled, weighted
from thinkslow.agent.past.stream import Stream, unseen
from thinkslow.agent.variables import belief_and_memory, objective_and_start, projected
from thinkslow.distributions import Belief, Point
from thinkslow.readouts import Sample
from thinkslow.refinement import Descent, Refined
from thinkslow.refinement.loop import descend
from thinkslow.trees import Tree, all_finite, described, same_form, where
from thinkslow.worldmodel import Moment, Observation, State, perceive, surprise_at

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent
    from thinkslow.agent.thinking import Thinking

ONE_HOT = 1e-3
"""How far the numbers of a discrete action may be from 0 and 1."""

_AHEAD, _CHOICE = 0xA4EAD, 0xC401
"""Offset of further random streams, far from the small numbers that splitting a key folds in."""


class Thought(eqx.Module):
    """The beliefs and numbers of one decision; leading axis: the batch."""

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
    """Every iterate; None without steps, and behind a gate, which refines only part of the
    batch."""
    thinks: Bool[Array, "*batch"]
    """Whether there was any thinking."""
    seen: Bool[Array, "*batch"]
    """Whether the observation could be used. If not, the prior replaces the encoder's belief."""
    blank: Bool[Array, "*batch"]
    """Whether an image is of one colour, as from a broken camera. It is used all the same, because
    some environments show such images."""
    mixture: Mixture | None = None
    """The belief of all particles."""
    doubt: Float[Array, "*batch"] | None = None
    """The score of the gate."""
    chosen: Chosen | None = None
    """The numbers behind the action, with a `choice` that compares; None behind a gate."""
    checked: Checked | None = None
    """The result of the `check`, if there is one."""
    replaced: Bool[Array, "*batch"] | None = None
    """Whether the `readout` or the `choice` returned NaN, infinity or no action of the spaces, so
    that a sample of the encoder's belief or the policy's action took its place. None without both.
    """


Decided: TypeAlias = tuple[Carry, Float[Array, "*batch action"], Thought]
"""The carry to continue with, the action vector, and the record."""


def decide(agent: "Agent", given: Inputs) -> Decided:
    """One decision of one agent: predict, infer, refine, read, act.

    A non-finite carry is reset, as at the beginning of an episode.
    """
    if isinstance(given.carry.past, Cloud):
        return _decide_by_particles(agent, given, given.carry.past)
    looked = look(agent, given)
    latent_key, _, refine_key, _ = streams(given.key)
    refined = _refined(agent, looked.observation, looked.moment, latent_key, refine_key)
    return read_and_act(agent, looked, refined, given.key)


def decide_batch(agent: "Agent", given: Inputs) -> Decided:
    """`decide` for each environment of a batch.

    On a CPU, a large batch is refined in blocks.
    """
    if isinstance(given.carry.past, Cloud) or not agent.settings.steps:
        return jax.vmap(partial(decide, agent))(given)
    looked = jax.vmap(partial(look, agent))(given)
    latent_keys, _, refine_keys, _ = jax.vmap(streams)(given.key)
    refined = in_blocks(
        partial(_refined, agent), looked.observation, looked.moment, latent_keys, refine_keys
    )
    return jax.vmap(partial(read_and_act, agent))(looked, refined, given.key)


def read_and_act(
    agent: "Agent", looked: Look, refined: Refined | None, key: PRNGKeyArray
) -> Decided:
    """Read a state from the refined belief, and act."""
    latent_key, action_key, _, pick_key = streams(key)
    settings, plain = agent.settings, looked.plain
    after, state, finite = _read_state(
        agent, looked.observation, looked.moment, refined, latent_key, pick_key
    )
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    carried = state
    if not settings.carry:
        carried = State(looked.unrefined.memory, looked.unrefined.posterior.sample(key=latent_key))
    carried, acting = _in_time(agent, looked, carried, state, key)
    action, chosen, valid = choose_action(agent, after, acting, action_key, key)
    thinks = jnp.asarray(bool(settings.steps or settings.lag or settings.choice))
    if looked.moment.absent is not None:
        thinks |= ~looked.moment.seen
    if looked.arrived is not None and looked.stream is not None and looked.stream.queue is not None:
        thinks |= looked.stream.queue.count > 0
    if looked.chose is not None:
        thinks |= looked.chose
    if looked.checked is not None:
        thinks |= looked.checked.suspicious
    refines = settings.steps or settings.lag or settings.choice
    idle = not refines and looked.moment is plain
    nats = jnp.zeros(()) if idle else _nats(agent, plain, after, refined)
    thought = Thought(
        plain.prior,
        plain.posterior,
        after,
        base,
        acting,
        nats,
        refined,
        thinks,
        plain.seen,
        blank(looked.observation),
        checked=looked.checked,
        chosen=chosen,
        replaced=_replaced(settings, finite, valid),
    )
    return Carry(carried, action, looked.past, looked.stream), action, thought


def _in_time(
    agent: "Agent", looked: Look, carried: State, state: State, key: PRNGKeyArray
) -> tuple[State, State]:
    """The state to carry, and the one of the moment at which the action takes effect."""
    settings = agent.settings
    if looked.stays is not None:
        carried, state = where(looked.stays, (looked.before, looked.before), (carried, state))
    if looked.arrived is None:
        return carried, state
    assert looked.stream is not None
    queue = looked.stream.queue
    assert queue is not None
    carried, state = where(looked.arrived, (carried, state), (looked.before, looked.before))
    if settings.missing == "stale":
        return carried, state
    return carried, unseen(
        agent.model,
        state,
        queue,
        queue.count,
        steps=settings.delay,
        key=jr.fold_in(key, _AHEAD),
    )


def choose_action(
    agent: "Agent", belief: Belief, state: State, action_key: PRNGKeyArray, key: PRNGKeyArray
) -> tuple[Float[Array, " action"], Chosen | None, Bool[Array, ""]]:
    """The policy's action in a state, or the action of the agent's choice; and whether that is
    an action of the spaces. If not, the policy's action is taken.

    **Errors:** `TypeError` for a choice that does not return an action vector and a record.
    """
    action, always = agent.policy(agent.model, state, action_key), jnp.ones((), bool)
    if agent.settings.choice is None:
        return action, None, always
    # It must not be fused with what follows: that may change its last bit.
    action = jax.lax.optimization_barrier(action)
    facing = Facing(
        agent.model,
        lambda s, k: agent.policy(agent.model, s, k),
        agent.greedy,
        belief,
        state,
        action,
        agent.members,
        agent.returns,
    )
    what = type(agent.settings.choice).__name__
    found = agent.settings.choice(facing, key=jr.fold_in(key, _CHOICE))
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"{what} must return two things, the action and the numbers behind it (or None); got "
            f"{described(found)}."
        )
    taken, chosen = found
    same_form(f"The action that {what} returns", taken, action)
    valid = is_action(agent.model, taken)
    return jnp.where(valid, taken, action), chosen, valid


def is_action(model: Any, action: Float[Array, " action"]) -> Bool[Array, ""]:
    """Whether a vector is finite, and one-hot where the action is discrete."""
    valid = all_finite(action)
    parts = model.parts(action)
    for name, space in model.action_spaces:
        if space.classes is not None:
            codes = jax.nn.one_hot(jnp.argmax(parts[name], -1), space.classes)
            valid &= jnp.all(jnp.abs(parts[name] - codes) < ONE_HOT)
    return valid


def _replaced(
    settings: "Thinking", latent: Bool[Array, ""], action: Bool[Array, ""]
) -> Bool[Array, ""] | None:
    return None if settings.readout is None and settings.choice is None else ~(latent & action)


def descent(settings: "Thinking") -> Descent:
    """How the settings refine."""
    given = vars(settings)
    names = [field.name for field in dataclasses.fields(Descent)]
    return Descent(**{name: given[name] for name in names if name in given})


def _decide_by_particles(agent: "Agent", given: Inputs, cloud: Cloud) -> Decided:
    """One decision of many particles; the one that acts is drawn by weight."""
    carry, observation, is_first, key = given
    latent_key, action_key, think_key = jr.split(key, 3)
    pick_key, resample_key, own_key = jr.split(think_key, 3)
    model, count = agent.model, cloud.log_weights.shape[-1]
    observation, sound = admitted(model.observation_spaces, observation)
    observation, absent, stream = handle_missing(agent, carry.stream or Stream(), observation)
    if absent is not None:
        sound &= ~jnp.all(jnp.stack([*absent.values()]))

    def perceived(state: State) -> tuple[Moment, Bool[Array, ""]]:
        state, action, first = reset_state(agent, state, carry.action, is_first)
        moment = perceive(model, state, action, first, observation, absent)
        return usable(moment, sound), first

    moments, firsts = jax.vmap(perceived)(cloud.states)
    weights = cloud.log_weights
    forget = is_first | jnp.any(firsts) | ~all_finite(weights)
    known = jnp.where(forget, -jnp.log(count), weights)
    think = partial(_think, agent, observation)
    afters, refined, states, finite = jax.vmap(think)(moments, *jr.split(own_key, (2, count)))
    updated = weighted(model, known, moments, afters, states, observation)
    weights = jnp.where(sound, updated, known)

    def pick(weights: Array, tree: Tree) -> Tree:
        index = jr.categorical(pick_key, weights)
        return jax.tree.map(lambda x: x[index], tree)

    plain = pick(known, moments)
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    after, refined, state, finite = pick(weights, (afters, refined, states, finite))
    action, chosen, valid = choose_action(agent, after, state, action_key, key)
    thought = Thought(
        plain.prior,
        plain.posterior,
        after,
        base,
        state,
        after.kl(plain.posterior),
        refined,
        jnp.ones((), bool),
        plain.seen,
        blank(observation),
        Mixture(afters, weights),
        chosen=chosen,
        replaced=_replaced(agent.settings, finite, valid),
    )
    past = resampled(Cloud(states, weights), key=resample_key)
    remembered = None if stream.held is None else Stream(held=stream.held)
    return Carry(state, action, past, remembered), action, thought


def _think(
    agent: "Agent",
    observation: Observation,
    moment: Moment,
    latent_key: PRNGKeyArray,
    think_key: PRNGKeyArray,
) -> tuple[Belief, Refined | None, State, Bool[Array, ""]]:
    """Refine the belief of a particle's moment and read a state from it; whether the readout's
    latent is finite.
    """
    refine_key, pick_key = jr.split(think_key)
    refined = _refined(agent, observation, moment, latent_key, refine_key)
    after, state, finite = _read_state(agent, observation, moment, refined, latent_key, pick_key)
    return after, refined, state, finite


def _refined(
    agent: "Agent",
    observation: Observation,
    moment: Moment,
    latent_key: PRNGKeyArray,
    key: PRNGKeyArray,
) -> Refined | None:
    settings = agent.settings
    if not settings.steps:
        return None
    objective, first = objective_and_start(agent, observation, moment, latent_key)
    rules = descent(settings).of(objective, settings.update, first, key)
    return descend(rules, record=settings.record)


def _read_state(
    agent: "Agent",
    observation: Observation,
    moment: Moment,
    refined: Refined | None,
    latent_key: PRNGKeyArray,
    pick_key: PRNGKeyArray,
) -> tuple[Belief, State, Bool[Array, ""]]:
    """The belief after thinking, a state read from it, and whether the readout's latent is
    finite. If not, a sample of the encoder's belief takes its place.

    **Errors:** `TypeError` for a readout that returns something else than a latent.
    """
    settings, always = agent.settings, jnp.ones((), bool)
    after, memory = belief_and_memory(agent, moment, refined)
    if isinstance(after, Point):
        return after, State(memory, projected(after.value, settings.landing)), always

    def error(latent: Array) -> Float[Array, ""]:
        there = moment._replace(memory=memory)
        return surprise_at(agent.model, there, latent, observation)

    readout = settings.readout or Sample()
    latent = readout.best(after, error, key=latent_key, other_key=pick_key)
    if settings.readout is None:
        return after, State(memory, latent), always
    plain = moment.posterior.sample(key=latent_key)
    same_form(f"The latent that {type(readout).__name__} returns", latent, plain)
    finite = all_finite(latent)
    return after, State(memory, jnp.where(finite, latent, plain)), finite


def _nats(
    agent: "Agent", plain: Moment, after: Belief, refined: Refined | None
) -> Float[Array, ""]:
    """How far thinking moved the belief or the stepped variable."""
    if agent.settings.variable != "belief" and refined is not None:
        return refined.moved[refined.chosen]
    return jnp.maximum(after.kl(plain.posterior), 0.0)  # it may round to less
