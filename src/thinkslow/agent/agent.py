"""Who acts: an agent that may think before it does.

One decision is one compiled call for the whole batch. Two agents given the same keys differ by
their thinking alone.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from thinkslow.agent.checks import Guard
from thinkslow.agent.clean import Clean
from thinkslow.agent.decision import Carry, Thought, decide
from thinkslow.agent.inputs import Batch, Flags, inputs_of
from thinkslow.agent.past import Cloud
from thinkslow.agent.stream import Stream, empty_queue
from thinkslow.agent.thinking import Thinking
from thinkslow.needs import (
    CATEGORICAL,
    DECODER,
    PRIOR,
    TRAINED_BETA,
    TRAINED_FREE_NATS,
    Need,
    missing,
)
from thinkslow.objectives.members import Members
from thinkslow.spaces import Space
from thinkslow.trees import Parts, compiled, once, parts, register
from thinkslow.worldmodel import State, WorldModel

if TYPE_CHECKING:
    from thinkslow.agent.player import Player
    from thinkslow.agent.presets import Arm

Policy: TypeAlias = Callable[[Any, State, PRNGKeyArray], Array]

register(Thinking)


@dataclasses.dataclass(frozen=True)
class About:
    """Where an agent comes from: what records say of it. All of it may be unknown."""

    name: str | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """`{"id", "size", "repeat"}`: what it was trained on."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """`steps`, `seed`, `preset`, as far as they are known."""
    source: str | None = None
    """The project that trained it; None: this one."""
    action: str = "sample"
    """How an action is taken from the policy: `sample`, or the `mode`, as its source does."""
    curve: Mapping[str, Any] | None = None
    """Its learning curve: `score` by `step`."""


class AbstractAgent(eqx.Module):
    """Anything that plays: an agent, one behind a gate, one with a deadline; or one of your own.

    An agent of your own has `model`, `about`, `start` and `act`. Its model must split an action
    vector into the environment's actions (`split`), and decode if its images are to be scored; it
    need not be a `WorldModel`.
    """

    model: eqx.AbstractVar[Any]
    about: eqx.AbstractVar[About]

    @abc.abstractmethod
    def start(self, batch: int) -> Any:
        """The carry before the first observation.

        Args:
            batch: the number of environments.
        """

    @abc.abstractmethod
    def act(
        self,
        carry: Any,
        observation: Batch,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> tuple[Any, Float[Array, "batch action"], Any]:
        """One decision for a batch.

        Args:
            carry: from `start`, or from the decision before.
            observation: arrays by name; leading axis: the batch.
            is_first: which environments begin an episode; their past is forgotten.
            keys: one for each environment.

        Returns the new carry, the action vectors (`model.split` makes actions of them), and what
        was thought: a `Thought`, or for an agent of your own what has `thinks`, `moved` and
        `doubt`.

        `Agent.act` also takes `missing` and `age`, which tell of observations that did not come
        or came late. An agent of your own needs neither.
        """

    def warm(
        self,
        carry: Any,
        observation: Batch,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> None:
        """Compile everything that a decision for this batch may need, so that none waits later.

        Args:
            carry: as in `act`.
            observation: as in `act`.
            is_first: as in `act`.
            keys: as in `act`.
        """
        jax.block_until_ready(self.act(carry, observation, is_first, keys=keys))

    @property
    def inner(self) -> "Agent | None":
        """The `Agent` that decides: itself, or the one behind a gate or a deadline."""
        return None

    def having_model(self, model: WorldModel, members: Members | None) -> "AbstractAgent":
        """The same agent with another model, such as one with other names of observations.

        Args:
            model: the other model.
            members: its plausible parameters, if any.
        """
        raise TypeError(f"{type(self).__name__} cannot be given another model.")

    def having_returns(self, spread: float) -> "AbstractAgent":
        """The same agent, knowing how far its returns spread."""
        raise TypeError(f"{type(self).__name__} cannot be told how far its returns spread.")

    @property
    def observation_spaces(self) -> tuple[tuple[str, Space], ...]:
        """The parts of its observation, as pairs of name and `Space`; empty where unknown."""
        return getattr(self.model, "observation_spaces", ())

    @property
    def action_spaces(self) -> tuple[tuple[str, Space], ...]:
        """Its actions, as pairs of name and `Space`; empty where unknown."""
        return getattr(self.model, "action_spaces", ())

    def player(self, seed: int = 0) -> "Player":
        """The agent for anybody's own loop: one environment, NumPy in and out."""
        from thinkslow.agent.player import Player

        return Player(self, seed)


class Agent(AbstractAgent):
    """A world model and a policy that think as `settings` say, with every weight frozen.

    A decision is compiled once for each structure of `settings`. The numbers in `settings` are
    arguments of the compiled program: an agent with other numbers does not compile again.

    Args:
        model: for one example, without a batch axis; any Equinox module with the members of
            `WorldModel`.
        settings: how to think; by default not at all.
        policy: `policy(model, state, key)` gives an action vector; by default the model's own.
        members: an ensemble of plausible parameters, for terms and scores that compare them.
        about: where the agent comes from, for records.
        returns: how far the agent's returns spread, from 5% to 95%, for choices by value. None:
            not known; `thinkslow.calibrated` and evaluations measure it.
        clean: what is usual on clean frames, for a `check`; `thinkslow.calibrated` measures it.

    **Errors:** `ValueError` if the model lacks what `settings` need, saying what.
    """

    model: WorldModel
    settings: Thinking
    policy: Policy
    members: Members | None
    about: About
    returns: float | None
    clean: Clean | None

    def __init__(
        self,
        model: WorldModel,
        settings: Thinking | None = None,
        *,
        policy: Policy | None = None,
        members: Members | None = None,
        about: About | None = None,
        returns: float | None = None,
        clean: Clean | None = None,
    ):
        self.model = model
        self.settings = settings or Thinking()
        self.policy = policy or own_policy
        self.members = members
        self.about = about or About()
        self.returns = None if returns is None else float(returns)
        self.clean = clean
        if (reason := self.cannot(self.settings)) is not None:
            raise ValueError(reason)

    def cannot(self, settings: Thinking) -> str | None:
        """Why this agent cannot think with these settings; None if it can.

        Args:
            settings: how to think.
        """
        for what, needs in needs_of(settings):
            if (reason := missing(self.model, needs, self.members)) is not None:
                return f"`{what}` cannot be asked of this agent: {reason}."
        if settings.choice is not None and self.policy not in (own_policy, greedy_policy):
            return (
                f"`{type(settings.choice).__name__}` cannot be asked of this agent: its `policy` "
                "is a function, whose probabilities are not known. Leave `policy` out."
            )
        return None

    @property
    def greedy(self) -> bool:
        """Whether it takes the likeliest action of its model's policy."""
        return self.policy is greedy_policy

    @property
    def lacks_returns(self) -> bool:
        """Whether it must know how far its returns spread, and does not."""
        choice = self.settings.choice
        return choice is not None and choice.scaled and self.returns is None

    def thinking(self, how: "str | Thinking | Arm") -> AbstractAgent:
        """The same agent, thinking as an arm or as settings say.

        Args:
            how: settings; or an `Arm`, which may have a gate or a deadline; or the name of an arm
                (`thinkslow arms` lists them).

        The gate of an arm is not calibrated yet: `thinkslow.evaluate` calibrates it, and so does
        `thinkslow.calibrated`.

        **Errors:** `ValueError` for an unknown name, or for what the agent lacks.
        """
        from thinkslow.agent.presets import Arm, arm

        if isinstance(how, Thinking):
            return self.having(how)
        found = how if isinstance(how, Arm) else arm(how)
        return found.of(self)

    def having(self, settings: Thinking) -> "Agent":
        """The same agent with other settings.

        Args:
            settings: how to think.
        """
        return Agent(
            self.model, settings, policy=self.policy, members=self.members, about=self.about,
            returns=self.returns,
            clean=self.clean,
        )  # fmt: skip

    @property
    def inner(self) -> "Agent":
        return self

    def having_model(self, model: WorldModel, members: Members | None) -> "Agent":
        # What is usual is known by the model's own names of observations.
        return Agent(
            model, self.settings, policy=self.policy, members=members, about=self.about,
            returns=self.returns, clean=self.clean if model is self.model else None,
        )  # fmt: skip

    def having_returns(self, spread: float) -> "Agent":
        return dataclasses.replace(self, returns=float(spread))

    def start(self, batch: int) -> Carry:
        state = self.model.initial()
        action = jax.eval_shape(lambda: self.policy(self.model, state, jr.key(0)))
        past, count = None, self.settings.particles
        if count > 1:
            many = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), state)
            past = Cloud(many, jnp.full(count, -jnp.log(count)))
        none_yet = jnp.zeros(action.shape, action.dtype)
        stream, settings = None, self.settings
        if settings.delay or settings.check is not None:
            stream = Stream(
                queue=empty_queue(none_yet, settings.delay) if settings.delay else None,
                guard=Guard.new() if settings.check is not None else None,
            )
        carry = Carry(state, none_yet, past, stream)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), carry)

    def act(
        self,
        carry: Carry,
        observation: Batch,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
        missing: Flags | None = None,
        age: Int[Array | np.ndarray, " batch"] | None = None,
    ) -> tuple[Carry, Float[Array, "batch action"], Thought]:
        """One decision for a batch, as `AbstractAgent.act`, in one compiled call.

        Args:
            carry: from `start`, or from the decision before.
            observation: arrays by name; leading axis: the batch. What is missing has any value.
            is_first: which environments begin an episode; their past is forgotten.
            keys: one for each environment.
            missing: which observations did not come: one flag for each environment, or such flags
                by the name of a part of the observation. `settings.missing` says what then stands
                in for them, by default the prior. None: all came.
            age: how many decisions old each observation is, at most `settings.delay`. None:
                always `settings.delay`, as soon as the episode is so old.

        **Errors:** `ValueError` for an observation whose names or shapes are not the agent's, a
        flag of what it does not see, an age above the delay, or a check that is not calibrated.
        """
        return _act(*self.parts, *inputs_of(self, carry, observation, is_first, keys, missing, age))

    def waited(self, carry: Carry, decisions: int) -> Carry:
        """The carry after the last action went on for `decisions` more, unseen.

        Args:
            carry: from the last decision.
            decisions: 0 to `settings.delay`.

        **Errors:** `ValueError` for another number.
        """
        delay = self.settings.delay
        if not 0 <= decisions <= delay:
            raise ValueError(
                f"An agent of `delay` {delay} can wait for 0 to {delay} decisions; got {decisions}."
            )
        return _waited(carry, decisions) if decisions else carry

    @once
    def parts(self) -> Parts:
        """Its structure, which decides the compiled program, and its numbers."""
        # Where it comes from decides nothing.
        return parts(eqx.tree_at(lambda agent: agent.about, self, None))


def needs_of(settings: Thinking) -> list[tuple[str, tuple[Need, ...]]]:
    """What each part of the settings asks of a model, by the part's name."""
    out = [(term.name, term.needs) for term, _ in settings.terms] if settings.steps else []
    if settings.steps and settings.update is not None:
        out.append((type(settings.update).__name__, settings.update.needs))
    if settings.readout is not None:
        out.append((type(settings.readout).__name__, settings.readout.needs))
    if settings.choice is not None:
        out.append((type(settings.choice).__name__, settings.choice.needs))
    if settings.particles > 1:
        out.append(("particles", (DECODER,)))
    if settings.memory_share is not None and settings.steps:
        out.append(("memory_share", (PRIOR,)))
    if settings.variable in ("state", "memory") and settings.steps:
        out.append(("variable", (PRIOR,)))
    if settings.landing != "as-is" and settings.steps:
        out.append(("landing", (CATEGORICAL,)))
    if settings.smoothing:
        out.append(("smoothing", (DECODER, TRAINED_BETA, TRAINED_FREE_NATS)))
    if settings.check is not None:
        out.append((type(settings.check).__name__, settings.check.needs))
    return out


def own_policy(model: Any, state: State, key: PRNGKeyArray) -> Array:
    """The model's own policy."""
    return model.policy(state, key)


def greedy_policy(model: Any, state: State, key: PRNGKeyArray) -> Array:
    """The likeliest action of the model's own policy."""
    return model.greedy(state, key)


@compiled
def _act(
    agent: Agent, carry: Carry, observation: dict, is_first: Bool[Array, " batch"],
    keys: Key[Array, " batch"],
) -> tuple[Carry, Array, Thought]:  # fmt: skip
    def one(carry: Carry, observation: dict, is_first: Array, key: PRNGKeyArray) -> tuple:
        return decide(agent, carry, observation, is_first, key)

    return jax.vmap(one)(carry, observation, is_first, keys)


@partial(jax.jit, static_argnums=1)
def _waited(carry: Carry, decisions: int) -> Carry:
    def one(carry: Carry) -> Carry:
        assert carry.stream is not None
        queue = carry.stream.queue
        assert queue is not None
        for _ in range(decisions):
            queue = queue.pushed(carry.action, jnp.zeros((), bool))
        return dataclasses.replace(carry, stream=dataclasses.replace(carry.stream, queue=queue))

    return jax.vmap(one)(carry)
