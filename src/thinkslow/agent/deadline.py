"""An agent that thinks until a deadline in milliseconds, and then acts on its best belief."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Key, PRNGKeyArray

from thinkslow.agent.abstract import About, AbstractAgent
from thinkslow.agent.agent import Agent, bare
from thinkslow.agent.decision import Decided, descent, read_and_act
from thinkslow.agent.inputs import Ages, Carry, Flags, Inputs, Observations, prepared, streams
from thinkslow.agent.looking import Look, look
from thinkslow.agent.thinking import Thinking
from thinkslow.agent.variables import objective_and_start, start_of
from thinkslow.objectives.members import Members
from thinkslow.refinement import Anytime, Objective, Refined
from thinkslow.refinement.anytime import FADING
from thinkslow.trees import Structure, compiled, whole
from thinkslow.worldmodel import WorldModel


class Timed(AbstractAgent):
    """An agent whose decisions take at most `deadline_ms`.

    A decision consists of several compiled calls: encode, refine in chunks of one step until the
    time or the agent's `steps` run out, and act. It returns the best iterate so far, whatever
    `select` says, because the last iterate depends on the clock. The result depends on the speed
    and the load of the machine: two runs differ.

    Encoding, one gradient and acting always run: this is the cost of a deadline of 0. Call `warm`
    first: compiling ignores the deadline.

    Args:
        agent: the agent that thinks; its settings must refine.
        deadline_ms: milliseconds for the whole batch, from the call.

    **Errors:** `ValueError` for a negative deadline, an agent without refinement steps, or an
    agent with particles, which refine separately; `TypeError` for an agent with a gate or a
    deadline.
    """

    agent: Agent
    model: WorldModel
    about: About
    deadline_ms: float
    _refine: Anytime
    _clock: "_Clock"

    def __init__(self, agent: AbstractAgent, deadline_ms: float):
        agent = bare(agent)
        settings = agent.settings
        if not deadline_ms >= 0:
            raise ValueError(f"`deadline_ms` must be 0 or more; got {deadline_ms}.")
        if not settings.steps or settings.particles > 1:
            raise ValueError(
                "A deadline stops refinement: `steps` must be 1 or more and `particles` 1; got "
                f"{settings.steps} and {settings.particles}."
            )
        self.agent, self.model, self.about = agent, agent.model, agent.about
        self.deadline_ms = deadline_ms
        self._clock = _Clock()
        best = dataclasses.replace(descent(settings), select="best")
        self._refine = Anytime(_Objective(agent.parts.structure), settings.update, best)

    @property
    def inner(self) -> Agent:
        return self.agent

    def having(self, settings: Thinking) -> "Timed":
        return Timed(self.agent.having(settings), self.deadline_ms)

    def having_model(self, model: WorldModel, members: Members | None) -> "Timed":
        return Timed(self.agent.having_model(model, members), self.deadline_ms)

    def having_returns(self, spread: float) -> "Timed":
        return Timed(self.agent.having_returns(spread), self.deadline_ms)

    def start(self, batch: int) -> Carry:
        return self.agent.start(batch)

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
        """One decision for a batch, like `AbstractAgent.act`, in at most `deadline_ms` from the
        call, if acting takes as long as in recent decisions. `thinks` says where any step was
        made.

        Args:
            carry: from `start`, or from the previous decision.
            observation: arrays by name; leading axis: the batch.
            is_first: which environments begin an episode; their past is forgotten.
            keys: one for each environment.
            missing: which observations are missing, as in `Agent.act`.
            age: how many decisions old each observation is, as in `Agent.act`.
        """
        begun = time.perf_counter()
        given = Inputs(carry, observation, is_first, keys)
        given = prepared(self.agent, given, missing=missing, age=age)
        structure, numbers = self.agent.parts
        looked, beliefs, (latent_keys, refine_keys) = jax.block_until_ready(
            _look(structure, numbers, given)
        )
        left = self.deadline_ms - _since(begun) - self._clock.acting_ms
        refined = self._refine(
            numbers,
            (looked.observation, looked.moment, latent_keys),
            beliefs,
            keys=refine_keys,
            deadline_ms=left,
        )
        rested = time.perf_counter()
        out = jax.block_until_ready(_act(structure, numbers, looked, refined, given.key))
        self._clock.acting_ms = max(FADING * self._clock.acting_ms, _since(rested))
        return out

    def warm(
        self,
        carry: Carry,
        observation: Observations,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> None:
        """Compile everything that a decision for this batch needs, and time its parts."""
        given = prepared(self.agent, Inputs(carry, observation, is_first, keys))
        structure, numbers = self.agent.parts
        looked, beliefs, (latent_keys, refine_keys) = _look(structure, numbers, given)
        self._refine.warm(
            numbers, (looked.observation, looked.moment, latent_keys), beliefs, keys=refine_keys
        )
        self.act(carry, observation, is_first, keys=keys)
        self._clock.acting_ms = 0.0  # this call compiled
        self.act(carry, observation, is_first, keys=keys)


@dataclasses.dataclass(frozen=True)
class _Objective:
    """The objective of a decision; agents of one structure share it."""

    structure: Structure

    def __call__(self, numbers: list[Array], context: tuple) -> Objective:
        return objective_and_start(whole(self.structure, numbers), *context)[0]


class _Clock:
    """The longest recent time of acting, which decays."""

    acting_ms = 0.0


def _since(begun: float) -> float:
    """Milliseconds."""
    return 1e3 * (time.perf_counter() - begun)


@compiled
def _look(
    agent: Agent, given: Inputs
) -> tuple[Look, Any, tuple[Key[Array, " batch"], Key[Array, " batch"]]]:
    """The observation, the belief to refine, and the keys of refinement."""

    def one(given: Inputs) -> tuple[Look, Any, tuple[PRNGKeyArray, PRNGKeyArray]]:
        looked = look(agent, given)
        latent_key, _, refine_key, _ = streams(given.key)
        first = start_of(agent, looked.moment, latent_key)
        return looked, first, (latent_key, refine_key)

    return jax.vmap(one)(given)


@compiled
def _act(agent: Agent, looked: Look, refined: Refined, keys: Key[Array, " batch"]) -> Decided:
    def one(looked: Look, refined: Refined, key: PRNGKeyArray) -> Decided:
        carry, action, thought = read_and_act(agent, looked, refined, key)
        return carry, action, dataclasses.replace(thought, thinks=refined.used > 0)

    return jax.vmap(one)(looked, refined, keys)
