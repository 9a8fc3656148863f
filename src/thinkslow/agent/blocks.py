"""A batch in blocks, one after another, on a CPU.

The arrays of 512 imagined images do not fit its caches. A block of eight environments does, and
takes two thirds of the time for each of them (benchmarks/decision.py). A GPU wants the whole batch.
"""

from collections.abc import Callable
from typing import Any

import jax

LEAST, MOST = 4, 8
"""Number of environments in a block."""


def in_blocks(function: Callable, *batch: Any) -> Any:
    """`vmap(function)(*batch)`, in blocks where that is faster and they divide the batch.

    Args:
        function: of one example.
        batch: its arguments; leading axis: the batch.
    """
    size = block_size(len(jax.tree.leaves(batch)[0]))
    if size is None or jax.default_backend() != "cpu":
        return jax.vmap(function)(*batch)
    return jax.lax.map(lambda one: function(*one), batch, batch_size=size)


def block_size(count: int) -> int | None:
    """The largest size that divides a batch; None to leave it whole.

    >>> block_size(64), block_size(20), block_size(8), block_size(13)
    (8, 5, None, None)
    """
    if count <= MOST:
        return None
    return next((size for size in range(MOST, LEAST - 1, -1) if count % size == 0), None)
