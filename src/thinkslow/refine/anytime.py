"""Refinement until a deadline: the best belief so far, whenever time is up.

A compiled loop cannot see the clock. So the host runs pieces of `chunk` steps, compiled once, and
looks at the clock between them; it begins no piece that would not end in time as far as the
slowest one so far tells. The granularity is therefore one piece, for the whole batch.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Key

from thinkslow.refine.adaptive import Running, advance, begin, finish
from thinkslow.refine.descent import Objective, Refined, Rules, Select, check, judging
from thinkslow.refine.updates import Direction, Scalar

Context = TypeVar("Context")


class Anytime(Generic[Context]):
    """Refines a batch of beliefs until a deadline.

    `objective(context)` gives the objective of one decision; a context is any pytree of arrays,
    so that nothing is compiled again for another decision. Beliefs and contexts have a leading
    axis: the batch. At most `steps` steps, `chunk` of them between two looks at the clock.
    `trust`, `budget`, `accept`, `judges` and `select` are those of `refine`; bounds may be
    changed by making another one with the same `objective`, which compiles again.

    **Errors:** those of `refine`; `ValueError` for a `chunk` below 1.
    """

    def __init__(
        self, objective: Callable[[Context], Objective], update: Direction, *, steps: int = 64,
        chunk: int = 1, trust: Scalar = jnp.inf, budget: Scalar = jnp.inf, accept: bool = False,
        judges: int = 1, select: Select = "best",
    ):  # fmt: skip
        check(steps, judges, select)
        if chunk < 1:
            raise ValueError(f"`chunk` must be 1 or more; got {chunk}.")
        self.steps, self.chunk = steps, chunk

        def rules(context: Context, belief: Any, judge_key: Any) -> Rules:
            judges_ = judging(judge_key, judges) if accept else None
            return Rules(objective(context), update, belief, budget, judges_)

        def start(context: Context, belief: Any, key: Any) -> Running:
            noise, judge_key, _ = jr.split(key, 3)
            return begin(rules(context, belief, judge_key), trust, steps=steps, noise=noise)

        def more(context: Context, first: Any, running: Running, key: Any) -> Running:
            noise, judge_key, step_key = jr.split(key, 3)
            return advance(
                rules(context, first, judge_key), running, running.used + chunk,
                tolerance=-jnp.inf, noise=noise, keys=jr.split(step_key, steps),
            )  # fmt: skip

        def end(context: Context, first: Any, running: Running, key: Any) -> Refined:
            return finish(rules(context, first, jr.split(key, 3)[1]), running, select)

        self._start, self._more, self._end = (
            jax.jit(jax.vmap(function)) for function in (start, more, end)
        )

    def __call__(
        self, context: Context, beliefs: Any, *, keys: Key[Array, " batch"], deadline_ms: float
    ) -> Refined:
        """The refined beliefs, after at most `deadline_ms` milliseconds from the call.

        Call `warm` first: otherwise the first call compiles, which no deadline stops. Beginning
        (one gradient) and ending (a choice among the iterates) are always done, and are what a
        deadline of 0 costs; such a call returns the beliefs as they came. The result is finite
        wherever the first beliefs were.
        """
        begun = time.perf_counter()
        run = partial(_timed, begun=begun)
        running, at = run(self._start, context, beliefs, keys)
        slowest = 0.0
        for _ in range(-(-self.steps // self.chunk)):
            if at + slowest >= deadline_ms or not bool(running.going.any()):
                break
            running, now = run(self._more, context, beliefs, running, keys)
            slowest, at = max(slowest, now - at), now
        return jax.block_until_ready(self._end(context, beliefs, running, keys))

    def warm(self, context: Context, beliefs: Any, *, keys: Key[Array, " batch"]) -> None:
        """Compile for contexts and beliefs of these shapes; costs one piece besides."""
        running = self._start(context, beliefs, keys)
        running = self._more(context, beliefs, running, keys)
        jax.block_until_ready(self._end(context, beliefs, running, keys))


def _timed(function: Callable, *arguments: Any, begun: float) -> tuple[Any, float]:
    """The result once it is there, and the milliseconds since `begun`."""
    result = jax.block_until_ready(function(*arguments))
    return result, 1e3 * (time.perf_counter() - begun)
