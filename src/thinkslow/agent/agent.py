"""An agent that may think before it acts: model, policy, and how to refine the belief.

One decision is one compiled call for the whole batch. Two agents given the same keys differ by
their thinking alone.
"""

import abc
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from thinkslow.agent.decision import Carry, Thought, decide
from thinkslow.agent.past import Cloud, Window
from thinkslow.agent.thinking import Knobs, Thinking, knobs_of, structure_of
from thinkslow.objectives.members import Members
from thinkslow.objectives.terms import NEED_MEMBERS
from thinkslow.worldmodel import Observation, State, WorldModel


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
        return _act(*self.given(carry, observation, is_first, keys), *self.structure)

    def given(
        self,
        carry: Carry,
        observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"],
        keys: Key[Array, " batch"],
    ) -> tuple:
        """The arrays of which a compiled decision is a function."""
        seen, is_first = dict(observation), jnp.asarray(is_first)
        if self.thinking.lag and carry.past is None:
            carry = _with_window(carry, seen, is_first, self.thinking.lag)
        return self.model, self.members, self.knobs, carry, seen, is_first, keys

    @property
    def structure(self) -> tuple[Thinking, Callable]:
        """What decides which program that is."""
        return structure_of(self.thinking), self.policy


class Wrapped(abc.ABC):
    """What is used like an `Agent` and says when, or for how long, that agent thinks."""

    agent: Agent

    @property
    def model(self) -> WorldModel:
        return self.agent.model

    def start(self, batch: int) -> Carry:
        return self.agent.start(batch)

    @abc.abstractmethod
    def act(
        self, carry: Carry, observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"], *, keys: Key[Array, " batch"],
    ) -> tuple[Carry, Float[Array, "batch action"], Thought]:  # fmt: skip
        """One decision for a batch, as `Agent.act`."""

    @abc.abstractmethod
    def warm(
        self, carry: Carry, observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"], *, keys: Key[Array, " batch"],
    ) -> None:  # fmt: skip
        """Compile all that a decision for this batch may need, so that none waits for it later."""


@partial(jax.jit, static_argnums=(7, 8))
def _act(
    model: WorldModel, members: Members | None, knobs: Knobs, carry: Carry,
    observation: Observation, is_first: Bool[Array, " batch"], keys: Key[Array, " batch"],
    thinking: Thinking, policy: Callable,
) -> tuple[Carry, Array, Thought]:  # fmt: skip
    return jax.vmap(partial(decide, model, policy, thinking, knobs, members=members))(
        carry, observation, is_first, keys
    )


def _with_window(
    carry: Carry, observation: dict[str, Any], is_first: Bool[Array, " batch"], lag: int
) -> Carry:
    """With a window of the right shapes, whose frames an episode's first observation forgets."""
    window = Window(carry.state, carry.action, observation, jnp.ones_like(is_first))
    many = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[:, None], lag, 1), window)
    return Carry(carry.state, carry.action, many)


def _own_policy(model: Any, state: State, key: PRNGKeyArray) -> Array:
    return model.policy(state, key)
