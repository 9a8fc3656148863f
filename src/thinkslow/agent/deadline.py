"""An agent that thinks until a deadline in milliseconds, and then acts on its best belief."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from thinkslow.agent.agent import Agent, Wrapped
from thinkslow.agent.decision import Carry, Look, Thought, bounds, conclude, look, posed, streams
from thinkslow.agent.thinking import Knobs, Thinking, direction_of
from thinkslow.objectives.members import Members
from thinkslow.refinement import Anytime, Refined
from thinkslow.refinement.anytime import FADING
from thinkslow.worldmodel import Observation, WorldModel


class Timed(Wrapped):
    """An agent whose decisions take at most `deadline_ms`; used like an `Agent`.

    A decision is several compiled calls: to look, to refine in pieces of one step until the time
    or the agent's `steps` are up, and to act. It returns the best iterate so far, whatever
    `select` says, since the last is an accident of the clock. What it does therefore depends on
    the machine and on what else runs there: two runs differ.

    To look, to begin (one gradient) and to act are always done: they are what a deadline of 0
    costs. Call `warm` first: compiling heeds no deadline.

    **Errors:** `ValueError` for a negative deadline, an agent without refinement steps, or one
    of particles, which refine apart.
    """

    def __init__(self, agent: Agent, deadline_ms: float):
        thinking = agent.thinking
        if not deadline_ms >= 0:
            raise ValueError(f"`deadline_ms` must be 0 or more; got {deadline_ms}.")
        if not thinking.steps or thinking.particles > 1:
            raise ValueError(
                "A deadline stops refinement: `steps` must be 1 or more and `particles` 1; got "
                f"{thinking.steps} and {thinking.particles}."
            )
        self.agent, self.deadline_ms = agent, deadline_ms
        self._acting_ms = 0.0

        def objective(shared: tuple, context: tuple) -> Callable:
            model, members, knobs = shared
            return posed(model, agent.policy, thinking, knobs, members, *context)[0]

        self._refine = Anytime(
            objective, direction_of(thinking, agent.knobs), steps=thinking.steps, select="best",
            **bounds(thinking, agent.knobs),
        )  # fmt: skip

    def act(
        self,
        carry: Carry,
        observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> tuple[Carry, Float[Array, "batch action"], Thought]:
        """One decision for a batch, as `Agent.act`, in at most `deadline_ms` from the call, as
        far as recent decisions tell how long it takes to act. `thinks` says where any step was
        made."""
        begun = time.perf_counter()
        given = self.agent.given(carry, observation, is_first, keys)
        structure = self.agent.structure
        looked, beliefs, refine_keys = jax.block_until_ready(_look(*given, *structure))
        shared, contexts = given[:3], (given[4], looked.moment)
        left = self.deadline_ms - _since(begun) - self._acting_ms
        refined = self._refine(shared, contexts, beliefs, keys=refine_keys, deadline_ms=left)
        rested = time.perf_counter()
        out = jax.block_until_ready(_act(*given, *structure, looked, refined))
        self._acting_ms = max(FADING * self._acting_ms, _since(rested))
        return out

    def warm(
        self, carry: Carry, observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"], *, keys: Key[Array, " batch"],
    ) -> None:  # fmt: skip
        """Compile all that a decision for this batch needs, and see how long its parts take."""
        given = self.agent.given(carry, observation, is_first, keys)
        structure = self.agent.structure
        looked, beliefs, refine_keys = _look(*given, *structure)
        contexts = (given[4], looked.moment)
        self._refine.warm(given[:3], contexts, beliefs, keys=refine_keys)
        self.act(carry, observation, is_first, keys=keys)
        self._acting_ms = 0.0  # it compiled
        self.act(carry, observation, is_first, keys=keys)


def _since(begun: float) -> float:
    """Milliseconds."""
    return 1e3 * (time.perf_counter() - begun)


@partial(jax.jit, static_argnums=(7, 8))
def _look(
    model: WorldModel, members: Members | None, knobs: Knobs, carry: Carry,
    observation: Observation, is_first: Bool[Array, " batch"], keys: Key[Array, " batch"],
    thinking: Thinking, policy: Callable,
) -> tuple[Look, Any, Key[Array, " batch"]]:  # fmt: skip
    """What is seen, what to refine, and the keys of refinement."""

    def one(carry: Carry, observation: Observation, is_first: Array, key: Any) -> tuple:
        looked = look(model, carry, observation, is_first)
        moment = looked.moment
        first = posed(model, policy, thinking, knobs, members, observation, moment)[1]
        return looked, first, streams(key)[2]

    return jax.vmap(one)(carry, observation, is_first, keys)


@partial(jax.jit, static_argnums=(7, 8))
def _act(
    model: WorldModel, members: Members | None, knobs: Knobs, carry: Carry,
    observation: Observation, is_first: Bool[Array, " batch"], keys: Key[Array, " batch"],
    thinking: Thinking, policy: Callable, looked: Look, refined: Refined,
) -> tuple[Carry, Array, Thought]:  # fmt: skip
    def one(carry: Carry, observation: Observation, looked: Look, refined: Refined, key: Any):
        carry, action, thought = conclude(
            model, policy, thinking, knobs, carry, observation, looked, refined, key
        )
        return carry, action, dataclasses.replace(thought, thinks=refined.used > 0)

    return jax.vmap(one)(carry, observation, looked, refined, keys)
