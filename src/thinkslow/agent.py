"""An agent that may think before it acts: model, policy, and how to refine the belief.

One decision is one compiled call for the whole batch. The random numbers of a decision come in
three independent streams (latent, action, thinking) of one key per environment, so that two
agents given the same keys differ by their thinking alone, and an agent of zero steps is the
base agent bit for bit.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from thinkslow.beliefs import (
    Cloud,
    Mixture,
    Moment,
    Window,
    perceive,
    reinferred,
    resampled,
    weighted,
)
from thinkslow.distributions import Belief
from thinkslow.objectives import Objective, lookahead
from thinkslow.objectives.terms import NEED_MEMBERS
from thinkslow.parameters import Members
from thinkslow.refine import Refined, refine
from thinkslow.refine.joint import joint, moved
from thinkslow.thinking import Knobs, Thinking, direction_of, knobs_of, structure_of
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
    mixture: Mixture | None = None
    """The belief of all particles."""
    doubt: Float[Array, "*batch"] | None = None
    """What a gate went by."""


class Agent:
    """A world model with a policy that thinks as it is told.

    `policy(model, state, key)` gives an action vector; by default the model's own. `members` are
    plausible parameters, for terms that compare them. Everything is frozen. Compiled once per
    structure of `thinking`; its weights, sizes and budgets are arguments, so that `with_thinking`
    does not compile again when only those change.
    """

    def __init__(
        self,
        model: WorldModel,
        thinking: Thinking | None = None,
        *,
        policy: Callable[[Any, State, PRNGKeyArray], Array] | None = None,
        members: Members | None = None,
    ):
        self.model = model
        self.thinking = thinking or Thinking()
        self.policy = policy or _own_policy
        self.members = members
        blind = [name for name, _ in self.thinking.terms if name in NEED_MEMBERS]
        if self.thinking.steps and blind and members is None:
            raise ValueError(
                f"`{blind[0]}` compares plausible parameters and this agent has none. Fit them: "
                f"thinkslow ensemble AGENT."
            )
        self.knobs = knobs_of(self.thinking, model)

    def with_thinking(self, thinking: Thinking) -> "Agent":
        """The same agent, thinking otherwise."""
        return Agent(self.model, thinking, policy=self.policy, members=self.members)

    def start(self, batch: int) -> Carry:
        """The carry before the first observation of `batch` environments."""
        state = self.model.initial()
        action = jax.eval_shape(self.policy, self.model, state, jr.key(0))
        past, count = None, self.thinking.particles
        if count > 1:
            many = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), state)
            past = Cloud(many, jnp.full(count, -jnp.log(count)))
        carry = Carry(state, jnp.zeros(action.shape, action.dtype), past)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), carry)

    def act(
        self,
        carry: Carry,
        observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> tuple[Carry, Float[Array, "batch action"], Thought]:
        """One decision for a batch: the new carry, the action vectors, and what was thought.

        `is_first` marks environments that begin an episode; their past is forgotten. One key per
        environment. One compiled call.
        """
        seen, is_first = dict(observation), jnp.asarray(is_first)
        if self.thinking.lag and carry.past is None:
            carry = _with_window(carry, seen, is_first, self.thinking.lag)
        return _act(
            self.model, self.members, self.knobs, carry, seen, is_first, keys,
            structure_of(self.thinking), self.policy,
        )  # fmt: skip


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
    think = partial(_think, model, policy, thinking, knobs, members, observation)
    if isinstance(carry.past, Cloud):
        return _decide_together(model, policy, think, carry, carry.past, observation, is_first, key)
    latent_key, action_key, think_key = jr.split(key, 3)
    plain = moment = perceive(model, carry.state, carry.action, is_first, observation)
    past = carry.past
    if isinstance(past, Window):
        moment = perceive(model, reinferred(model, past), carry.action, is_first, observation)
        past = past.pushed(carry.state, carry.action, observation, is_first)
    after, refined, state = think(moment, latent_key, think_key)
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    action = policy(model, state, action_key)
    thought_over = thinking.steps or thinking.lag
    nats = after.kl(plain.posterior) if thought_over else jnp.zeros(())
    thinks = jnp.asarray(thought_over > 0)
    thought = Thought(plain.prior, plain.posterior, after, base, state, nats, refined, thinks)
    return Carry(state if thinking.carry else base, action, past), action, thought


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
        jnp.ones((), bool), Mixture(afters, weights),
    )  # fmt: skip
    past = resampled(Cloud(states, weights), key=resample_key)
    return Carry(state, action, past), action, thought


def _think(
    model: WorldModel, policy: Callable, thinking: Thinking, knobs: Knobs,
    members: Members | None, observation: Observation, moment: Moment,
    latent_key: PRNGKeyArray, think_key: PRNGKeyArray,
) -> tuple[Belief, Refined | None, State]:  # fmt: skip
    """Refine the belief of a moment and read a state from it."""
    refine_key, pick_key = jr.split(think_key)
    memory, prior, before = moment
    after, refined, start = before, None, memory
    if thinking.steps:

        def objective_at(memory: Memory) -> Objective:
            return lookahead(
                model, lambda s, k: policy(model, s, k), memory, prior, before, observation,
                terms=knobs.weights, horizon=thinking.rollout, rollouts=thinking.rollouts,
                samples=thinking.samples, latent=thinking.latent, imagery=thinking.imagery,
                members=members, beta=knobs.beta, free_nats=knobs.free_nats,
            )  # fmt: skip

        refined = _refine(thinking, knobs, objective_at, before, memory, refine_key)
        after = refined.belief
        if thinking.memory:
            after, start = after.belief, moved(memory, after.shift, knobs.memory)
    state = State(start, read(after, thinking.readout, key=latent_key))
    if thinking.candidates > 1:
        state = _best(model, start, after, observation, thinking.candidates, state, pick_key)
    return after, refined, state


@partial(jax.jit, static_argnums=(7, 8))
def _act(
    model: WorldModel, members: Members | None, knobs: Knobs, carry: Carry,
    observation: Observation, is_first: Bool[Array, " batch"], keys: Key[Array, " batch"],
    thinking: Thinking, policy: Callable,
) -> tuple[Carry, Array, Thought]:  # fmt: skip
    return jax.vmap(partial(decide, model, policy, thinking, knobs, members=members))(
        carry, observation, is_first, keys
    )


def _refine(
    thinking: Thinking, knobs: Knobs, objective_at: Callable[[Memory], Objective], before: Belief,
    memory: Memory, key: PRNGKeyArray,
) -> Refined:  # fmt: skip
    """Refine the belief, and the memory with it where thinking may move it."""
    descend = partial(
        refine, update=direction_of(thinking, knobs), steps=thinking.steps, key=key,
        # Random steps lie on one line and look at nothing: the budget alone bounds them.
        trust=jnp.inf if thinking.update == "random" else knobs.nats / thinking.steps**2,
        budget=knobs.nats, accept=thinking.accept, judges=thinking.judges,
        tolerance=None if thinking.tolerance is None else knobs.tolerance, select=thinking.select,
    )  # fmt: skip
    if not thinking.memory:
        return descend(objective_at(memory), before)

    def objective(both: Any, key: PRNGKeyArray) -> Any:
        return objective_at(moved(memory, both.shift, knobs.memory))(both.belief, key)

    return descend(objective, joint(before, memory))


def _with_window(
    carry: Carry, observation: dict[str, Any], is_first: Bool[Array, " batch"], lag: int
) -> Carry:
    """With a window of the right shapes, whose frames an episode's first observation forgets."""
    window = Window(carry.state, carry.action, observation, jnp.ones_like(is_first))
    many = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[:, None], lag, 1), window)
    return Carry(carry.state, carry.action, many)


def _own_policy(model: Any, state: State, key: PRNGKeyArray) -> Array:
    return model.policy(state, key)


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
