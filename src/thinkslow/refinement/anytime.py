"""Refinement until a deadline: return the best belief so far when the time is up.

A compiled loop cannot read the clock. The host therefore runs chunks of `chunk` steps, compiled
once, and checks the clock between them. It stops if another chunk, as slow as the slowest recent
one, would miss the deadline. The granularity is one chunk, for the whole batch.
"""

import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
from jaxtyping import Array, Key

from thinkslow.distributions import Objective
from thinkslow.refinement.loop import Running, advance, begin, finish
from thinkslow.refinement.result import Refined
from thinkslow.refinement.step import Descent, Rules
from thinkslow.refinement.updates import Update
from thinkslow.trees import compiled, parts

Context = TypeVar("Context")
Shared = TypeVar("Shared")

FADING = 0.9
"""Decay of the longest chunk time after each chunk, so that a single slow chunk is forgotten."""


class Anytime(Generic[Shared, Context]):
    """Refines a batch of beliefs until a deadline.

    All numbers of `update` and `descent` may change without compiling again, also by another
    `Anytime` with the same objective.

    Args:
        objective: `objective(shared, context)` returns the objective of one decision. Both are
            pytrees of arrays, so another decision does not compile again.
        update: the update rule; None: plain gradient descent with step size 1.
        descent: how to step, and the largest number of steps.
        chunk: steps between two checks of the clock, 1 or more.

    **Errors:** those of `refine`; `ValueError` for a `chunk` below 1.
    """

    def __init__(
        self,
        objective: Callable[[Shared, Context], Objective],
        update: Update | None,
        descent: Descent,
        *,
        chunk: int = 1,
    ):
        if chunk < 1:
            raise ValueError(f"`chunk` must be 1 or more; got {chunk}.")
        self.steps, self.chunk = descent.steps, chunk
        self._piece_ms = 0.0
        self._way = parts(_Way(objective, update, descent))

    def __call__(
        self,
        shared: Shared,
        contexts: Context,
        beliefs: Any,
        *,
        keys: Key[Array, " batch"],
        deadline_ms: float,
    ) -> Refined:
        """The refined beliefs, at most `deadline_ms` milliseconds after the call.

        Call `warm` first: otherwise the first call compiles and ignores the deadline.

        Args:
            shared: arguments that all decisions share, such as the model; no batch axis.
            contexts: arguments of each decision; leading axis: the batch.
            beliefs: the first beliefs; leading axis: the batch.
            keys: one for each decision.
            deadline_ms: milliseconds for the whole batch, from the call.

        **Cost:** the beginning (one gradient) and the end (the choice of an iterate) always run.
        This is the cost of a deadline of 0, which returns the beliefs unchanged. The result is
        finite if the first beliefs are.
        """
        begun, given = time.perf_counter(), (*self._way, shared, _Decision(contexts, beliefs, keys))
        running, at = _timed(begun, _start, *given)
        for done in range(0, self.steps, self.chunk):
            if at + self._piece_ms >= deadline_ms or not bool(running.going.any()):
                break
            running, now = _timed(begun, _more, *given, running, done + self.chunk)
            self._piece_ms = max(FADING * self._piece_ms, now - at)
            at = now
        return jax.block_until_ready(_end(*given, running))

    def warm(
        self, shared: Shared, contexts: Context, beliefs: Any, *, keys: Key[Array, " batch"]
    ) -> None:
        """Compile for contexts and beliefs of these shapes. Also runs two chunks.

        Args:
            shared: as in a call.
            contexts: as in a call.
            beliefs: as in a call.
            keys: as in a call.
        """
        given = (*self._way, shared, _Decision(contexts, beliefs, keys))
        running = jax.block_until_ready(_more(*given, _start(*given), self.chunk))
        begun = time.perf_counter()
        running, self._piece_ms = _timed(begun, _more, *given, running, 2 * self.chunk)
        jax.block_until_ready(_end(*given, running))


class _Way(NamedTuple):
    """What decides a refinement, except its random draws."""

    objective: Callable[[Any, Any], Objective]
    update: Update | None
    descent: Descent

    def rules(self, shared: Any, decision: "_Decision") -> Rules:
        objective = self.objective(shared, decision.context)
        return self.descent.of(objective, self.update, decision.first, decision.key)


class _Decision(NamedTuple):
    """A batch of decisions, or one of them."""

    context: Any
    first: Any
    key: Any


@compiled
def _start(way: _Way, shared: Any, decisions: _Decision) -> Running:
    return jax.vmap(lambda one: begin(way.rules(shared, one)))(decisions)


@compiled
def _more(way: _Way, shared: Any, decisions: _Decision, running: Running, limit: Array) -> Running:
    def one(decision: _Decision, running: Running) -> Running:
        return advance(way.rules(shared, decision), running, limit)

    return jax.vmap(one)(decisions, running)


@compiled
def _end(way: _Way, shared: Any, decisions: _Decision, running: Running) -> Refined:
    def one(decision: _Decision, running: Running) -> Refined:
        return finish(way.rules(shared, decision), running)

    return jax.vmap(one)(decisions, running)


def _timed(begun: float, function: Callable, *arguments: Any) -> tuple[Any, float]:
    """The finished result, and the milliseconds since `begun`."""
    result = jax.block_until_ready(function(*arguments))
    return result, 1e3 * (time.perf_counter() - begun)
