"""Agents that may think before they act.

One decision is one compiled call for the whole batch. Two agents given the same keys differ by
their thinking alone.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Key, PRNGKeyArray

from thinkslow.agent.abstract import About, AbstractAgent
from thinkslow.agent.checks.check import Guard
from thinkslow.agent.checks.clean import Clean
from thinkslow.agent.decision import Decided, decide_batch
from thinkslow.agent.inputs import Ages, Carry, Flags, Inputs, Observations, prepared
from thinkslow.agent.past.futures import no_futures
from thinkslow.agent.past.particles import Cloud
from thinkslow.agent.past.stream import Stream, empty_queue
from thinkslow.agent.thinking import Thinking
from thinkslow.needs import (
    CATEGORICAL,
    DECODER,
    GREEDY,
    PRIOR,
    TRAINED_BETA,
    TRAINED_FREE_NATS,
    Need,
    unmet,
)
from thinkslow.objectives.members import Members, Source
from thinkslow.plural import plural
from thinkslow.settings import plain
from thinkslow.spaces import Space
from thinkslow.trees import Parts, compiled, copies, described, once, parts, put, register
from thinkslow.worldmodel import State, WorldModel

if TYPE_CHECKING:
    from thinkslow.agent.arms.arm import Arm

ModelPolicy: TypeAlias = Callable[[Any, State, PRNGKeyArray], Array]

register(Thinking)


class Agent(AbstractAgent):
    """A world model and a policy that think according to `settings`, with all weights frozen.

    A decision is compiled once for each structure of `settings`. The numbers in `settings` are
    arguments of the compiled program: an agent with other numbers does not compile again.

    Args:
        model: for one example, without a batch axis; any Equinox module with the members of
            `WorldModel`.
        settings: how to think; by default the agent does not think.
        policy: `policy(model, state, key)` returns an action vector; by default the model's own.
        members: an ensemble of plausible parameters, for terms and scores that compare them.
        about: where the agent comes from, for records.
        returns: the range of the agent's returns, from 5% to 95%, for choices by value. None:
            unknown; `thinkslow.calibrated` and evaluations measure it.
        clean: the usual errors on clean frames, for a `check`; `thinkslow.calibrated` measures
            them.

    **Errors:** `ValueError` if the model lacks something that `settings` need, with its name.
    """

    model: WorldModel
    settings: Thinking
    policy: ModelPolicy
    members: Members | None
    about: About
    returns: float | None
    clean: Clean | None

    def __init__(
        self,
        model: WorldModel,
        settings: Thinking | None = None,
        *,
        policy: ModelPolicy | None = None,
        members: Members | None = None,
        about: About | None = None,
        returns: float | None = None,
        clean: Clean | None = None,
    ):
        if isinstance(model, type) or not hasattr(model, "predict"):
            raise TypeError(f"`model` must be a world model; got {model!r}.")
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
            if (reason := unmet(self.model, needs, self.members)) is not None:
                return f"`{what}` does not work with this agent: {reason}."
        if self.greedy and (reason := unmet(self.model, (GREEDY,))) is not None:
            return f"The mode of the policy does not work with this agent: {reason}."
        if settings.choice is not None and self.policy not in (own_policy, greedy_policy):
            return (
                f"`{type(settings.choice).__name__}` does not work with this agent: its `policy` "
                "is a function, whose probabilities are not known. Leave `policy` out."
            )
        return None

    @property
    def greedy(self) -> bool:
        """Whether it takes the most likely action of its model's policy."""
        return self.policy is greedy_policy

    @property
    def lacks_returns(self) -> bool:
        """Whether it needs the range of its returns and does not have it."""
        choice = self.settings.choice
        return choice is not None and choice.scaled and self.returns is None

    def thinking(self, how: "str | Thinking | Arm") -> AbstractAgent:
        """The same agent with an arm or with other settings.

        Args:
            how: settings; or an `Arm`, which may have a gate or a deadline; or the name of an arm
                (`thinkslow arms` lists them).

        The gate of an arm is not calibrated yet. `thinkslow.evaluate` and `thinkslow.calibrated`
        calibrate it.

        **Errors:** `ValueError` for an unknown name, or if the agent lacks something.
        """
        from thinkslow.agent.arms.arm import Arm, arm

        if isinstance(how, Thinking):
            return self.having(how)
        if not isinstance(how, str | Arm):
            raise TypeError(
                f"An agent thinks with `Thinking`, an `Arm` or the name of one; got {how!r}."
            )
        found = how if isinstance(how, Arm) else arm(how)
        return found.of(self)

    def having(self, settings: Thinking) -> "Agent":
        """The same agent with other settings.

        Args:
            settings: how to think.
        """
        return dataclasses.replace(self, settings=settings)

    def having_members(self, source: Source, seed: int = 0) -> "Agent":
        """The same agent with plausible parameters from a source.

        Args:
            source: makes them, such as `objectives.members.Noise`.
            seed: seed of what the source draws.

        **Errors:** `ValueError` if the model lacks something that the source needs; `TypeError` for
        a source that returns no `Members`.
        """
        if (reason := unmet(self.model, source.needs)) is not None:
            raise ValueError(f"`{type(source).__name__}` does not work with this agent: {reason}.")
        members = source(self.model, key=jr.key(seed))
        if not isinstance(members, Members):
            raise TypeError(
                f"{type(source).__name__} must return Members; got {described(members)}. "
                "`thinkslow.objectives.members.replaced` makes them."
            )
        return dataclasses.replace(self, members=members)

    @property
    def inner(self) -> "Agent":
        return self

    def having_model(self, model: WorldModel, members: Members | None) -> "Agent":
        # The usual errors are stored under the model's own names of observations.
        clean = self.clean if model is self.model else None
        return dataclasses.replace(self, model=model, members=members, clean=clean)

    def having_returns(self, spread: float) -> "Agent":
        return dataclasses.replace(self, returns=float(spread))

    def start(self, batch: int) -> Carry:
        if type(plain(batch)) is not int or batch < 1:
            raise ValueError(f"`batch` must be one or more environments; got {batch!r}.")
        state, action = self.model.initial(), self._action
        past, count = None, self.settings.particles
        if count > 1:
            many = jax.tree.map(lambda x: copies(x, count), state)
            past = Cloud(many, put(np.full(count, -np.log(count), np.float32)))
        none_yet = put(np.zeros(action.shape, action.dtype))
        stream, settings = None, self.settings
        foresees = settings.futures > 1 and not settings.delay
        if settings.delay or settings.check is not None or foresees:
            stream = Stream(
                queue=empty_queue(none_yet, settings.delay) if settings.delay else None,
                guard=Guard.new() if settings.check is not None else None,
                futures=no_futures(state, settings.futures) if foresees else None,
            )
        carry = Carry(state, none_yet, past, stream)
        return jax.tree.map(lambda x: copies(x, batch), carry)

    def act(
        self,
        carry: Carry,
        observation: Observations,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
        missing: Flags | None = None,
        age: Ages | None = None,
    ) -> Decided:
        """One decision for a batch, as `AbstractAgent.act`, in one compiled call.

        Args:
            carry: from `start`, or from the previous decision.
            observation: arrays by name; leading axis: the batch. Missing parts may have any value.
            is_first: which environments begin an episode; their past is forgotten.
            keys: one for each environment.
            missing: which observations are missing: one flag for each environment, or a dictionary
                of such flags by the name of a part of the observation. `settings.missing` says
                what replaces them, by default the prior. None: nothing is missing.
            age: how many decisions old each observation is, at most `settings.delay`. None: the
                smaller of `settings.delay` and the age of the episode.

        **Errors:** `ValueError` for an observation with other names or shapes than the agent's, a
        carry of another agent or another number of environments, a flag for a part that it does not
        see, an age above the delay, or a check that is not calibrated.
        """
        given = Inputs(carry, observation, is_first, keys)
        return _act(*self.parts, prepared(self, given, missing=missing, age=age))

    def waited(self, carry: Carry, decisions: int) -> Carry:
        """The carry after the last action continued for `decisions` more, without observations.

        Args:
            carry: from the last decision.
            decisions: 0 to `settings.delay`.

        **Errors:** `ValueError` for another number.
        """
        delay = self.settings.delay
        if not 0 <= decisions <= delay:
            raise ValueError(
                f"An agent of `delay` {delay} can wait for 0 to {plural(delay, 'decision')}; got "
                f"{decisions}."
            )
        return _waited(carry, decisions) if decisions else carry

    @once
    def _action(self) -> jax.ShapeDtypeStruct:
        """The shape of an action."""
        state = jax.eval_shape(self.model.initial)
        action = jax.eval_shape(lambda at: self.policy(self.model, at, jr.key(0)), state)
        return _checked(action, self.action_spaces)

    @once
    def parts(self) -> Parts:
        """The static structure, which decides the compiled program, and the numbers."""
        # Its origin has no effect on the program.
        return parts(eqx.tree_at(lambda agent: agent.about, self, None))


def bare(agent: AbstractAgent) -> Agent:
    """The agent to put behind a gate or a deadline.

    **Errors:** `TypeError` for anything but an `Agent`, such as one that has a gate already.
    """
    if isinstance(agent, Agent):
        return agent
    remedy = " Wrap its `inner` one." if isinstance(agent, AbstractAgent) else ""
    found = type(agent).__name__
    raise TypeError(f"A gate or a deadline wraps an `Agent` that has neither; got {found}.{remedy}")


def needs_of(settings: Thinking) -> list[tuple[str, tuple[Need, ...]]]:
    """The needs of each part of the settings, by the name of the part."""
    out = [(term.name, term.needs) for term, _ in settings.terms] if settings.steps else []
    if settings.steps and settings.update is not None:
        out.append((type(settings.update).__name__, settings.update.needs))
    if settings.readout is not None:
        out.append((type(settings.readout).__name__, settings.readout.needs))
    if settings.choice is not None:
        out.append((type(settings.choice).__name__, settings.choice.needs))
    several = [name for name in ("particles", "futures") if getattr(settings, name) > 1]
    out.extend((name, (DECODER,)) for name in several)
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
    """The most likely action of the model's own policy."""
    return model.greedy(state, key)


def _checked(action: Any, spaces: Sequence[tuple[str, Space]]) -> jax.ShapeDtypeStruct:
    """The shape of an action. **Errors:** `TypeError` or `ValueError` for what a policy may not
    return.
    """
    if not isinstance(action, jax.ShapeDtypeStruct) or action.ndim != 1:
        shown = type(action).__name__ if not hasattr(action, "shape") else f"shape {action.shape}"
        raise TypeError(
            "A policy must return the action as one vector, an array with one axis, a discrete "
            f"action one-hot; got {shown}. Use `jax.nn.one_hot` or `jax.numpy.concatenate`."
        )
    sizes = {name: math.prod(space.shape) * (space.classes or 1) for name, space in spaces}
    if sizes and action.size != sum(sizes.values()):
        parts = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise ValueError(
            f"A policy must return {plural(sum(sizes.values()), 'number')}, as its model's "
            f"`action_spaces` are {parts}; got {action.size}. Change the policy or the spaces."
        )
    return action


@compiled
def _act(agent: Agent, given: Inputs) -> Decided:
    return decide_batch(agent, given)


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
