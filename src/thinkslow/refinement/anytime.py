"""Refinement until a deadline: return the best belief so far when the time is up.

A compiled loop cannot read the clock. The host therefore runs chunks of `chunk` steps, compiled
once, and checks the clock between them. It stops if another chunk, as slow as the slowest recent
one, would miss the deadline. The granularity is one chunk, for the whole batch.
"""

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PRNGKeyArray

from thinkslow.refinement.loop import Running, advance, begin, finish
from thinkslow.refinement.result import Refined, Scalar, Select
from thinkslow.refinement.step import Descent, Objective, Rules
from thinkslow.refinement.updates import Update

Context = TypeVar("Context")
Shared = TypeVar("Shared")

FADING = 0.9
"""Decay of the longest chunk time after each chunk, so that a single slow chunk is forgotten."""


class Anytime(Generic[Shared, Context]):
    """Refines a batch of beliefs until a deadline.

    Args:
        objective: `objective(shared, context)` returns the objective of one decision. Both are
            pytrees of arrays, so another decision does not compile again.
        update: the update rule.
        steps: the largest number of steps.
        chunk: steps between two checks of the clock, 1 or more.
        max_kl: as for `refine`, like all arguments below.
        step_kl: nats of one step.
        accept: take a step only if the objective falls on fresh random numbers.
        judges: draws that judge a step.
        tolerance: when to stop early.
        select: which iterate to return.

    To change an argument, make another `Anytime`, which compiles again.

    **Errors:** those of `refine`; `ValueError` for a `chunk` below 1.
    """

    def __init__(
        self,
        objective: Callable[[Shared, Context], Objective],
        update: Update,
        *,
        steps: int = 64,
        chunk: int = 1,
        max_kl: Scalar = jnp.inf,
        step_kl: Scalar | None = None,
        accept: bool = False,
        judges: int = 1,
        tolerance: Scalar | None = None,
        select: Select = "best",
        fresh_noise: bool = False,
    ):
        if chunk < 1:
            raise ValueError(f"`chunk` must be 1 or more; got {chunk}.")
        self.steps, self.chunk = steps, chunk
        self._piece_ms = 0.0
        descent = Descent(steps, max_kl, step_kl, accept, judges, tolerance, select, fresh_noise)

        def rules(shared: Shared, context: Context, first: Any, key: PRNGKeyArray) -> Rules:
            return descent.of(objective(shared, context), update, first, key)

        def start(shared: Shared, context: Context, first: Any, key: PRNGKeyArray) -> Running:
            return begin(rules(shared, context, first, key))

        def more(
            shared: Shared, context: Context, first: Any, key: PRNGKeyArray, running: Running
        ) -> Running:
            limit = running.iterates.used + chunk
            return advance(rules(shared, context, first, key), running, limit)

        def end(
            shared: Shared, context: Context, first: Any, key: PRNGKeyArray, running: Running
        ) -> Refined:
            return finish(rules(shared, context, first, key), running)

        def batched(function: Callable, more: int) -> Callable:
            return jax.jit(jax.vmap(function, (None, *[0] * more)))

        self._start, self._more, self._end = batched(start, 3), batched(more, 4), batched(end, 4)

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
        begun, given = time.perf_counter(), (shared, contexts, beliefs, keys)
        running, at = _timed(begun, self._start, *given)
        for _ in range(-(-self.steps // self.chunk)):
            if at + self._piece_ms >= deadline_ms or not bool(running.going.any()):
                break
            running, now = _timed(begun, self._more, *given, running)
            self._piece_ms = max(FADING * self._piece_ms, now - at)
            at = now
        return jax.block_until_ready(self._end(*given, running))

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
        given = (shared, contexts, beliefs, keys)
        running = self._start(*given)
        running = jax.block_until_ready(self._more(*given, running))
        running, self._piece_ms = _timed(time.perf_counter(), self._more, *given, running)
        jax.block_until_ready(self._end(*given, running))


def _timed(begun: float, function: Callable, *arguments: Any) -> tuple[Any, float]:
    """The finished result, and the milliseconds since `begun`."""
    result = jax.block_until_ready(function(*arguments))
    return result, 1e3 * (time.perf_counter() - begun)
