"""Calls timed in turn, which every table here needs."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def first(calls: list[Callable[[], Any]]) -> list[float]:
    """Seconds of the first call of each, in which it is compiled."""
    return [_ms(call) / 1e3 for call in calls]


def timed(calls: list[Callable[[], Any]], repeats: int, seconds: float = 1.0) -> list[np.ndarray]:
    """10th, 50th and 90th percentile of each call's milliseconds.

    After two calls of each they take turns, each waited for, `repeats` times or until `seconds`
    have passed, but three times at least.
    """
    for call in (*calls, *calls):
        _ms(call)
    times: list[list[float]] = [[] for _ in calls]
    begun = time.monotonic()
    while len(times[0]) < repeats and (len(times[0]) < 3 or time.monotonic() < begun + seconds):
        for found, call in zip(times, calls, strict=True):
            found.append(_ms(call))
    return [np.percentile(found, [10, 50, 90]) for found in times]


def _ms(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(call())
    return 1e3 * (time.perf_counter() - begun)
