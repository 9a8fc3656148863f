"""The layers of the official vision, as plain convolutions and on the small side.

    taskset -c 0 uv run python benchmarks/convolution.py --depth 4 --batch 64
    taskset -c 0 uv run python benchmarks/convolution.py --depth 16 --batch 32

**Claim.** On a CPU the small side is faster wherever `dreamer/convolution.py` chooses it.

**Method.** Random images and kernels; compiled, called twice, then the forms take turns, 5 times
each by default, waited for: median ms of the forward pass, of the gradient by the images (as
refinement needs it), by the kernel, and by both (as training does), the forward pass that each
needs included. `operations` are those of the plain convolution forward, `memory` what must be read
and written at least.

docs/performance.md has the tables.
"""

import argparse
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from timing import first, timed

from thinkslow.dreamer.convolution import convolve_and_pool, double_and_convolve
from thinkslow.evaluation.protocol import machine
from thinkslow.saved.provenance import revision

LAYERS = {
    "decoder 32 to 64": (double_and_convolve, 32, 2, 0),
    "decoder 16 to 32": (double_and_convolve, 16, 3, 2),
    "decoder 8 to 16": (double_and_convolve, 8, 4, 3),
    "decoder 4 to 8": (double_and_convolve, 4, 4, 4),
    "encoder 64 to 32": (convolve_and_pool, 64, 0, 2),
    "encoder 32 to 16": (convolve_and_pool, 32, 2, 3),
    "encoder 16 to 8": (convolve_and_pool, 16, 3, 4),
    "encoder 8 to 4": (convolve_and_pool, 8, 4, 4),
}
"""Form, side of its input, and channels in and out in multiples of the depth; 0: the image's 3."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print("| layer | form | forward | by images | by kernel | by both | operations, memory |")
    print("|---|---|---|---|---|---|---|")
    for name in LAYERS:
        found = layer(name, given.depth, given.batch, given.precision, given.repeats)
        for form in ("plain", "cells"):
            times = " | ".join(f"{ms:.1f}" for ms in found[form])
            floor = f"{found['gflop']:.2f} GFLOP, {found['mb']:.0f} MB"
            channels = f"{found['inputs']} to {found['outputs']}"
            print(f"| {name}, {channels} | {form} | {times} | {floor} |", flush=True)
    print(f"\n{given}, {machine()}, jax {jax.__version__}, revision {revision()}")


def layer(name: str, depth: int, batch: int, precision: str, repeats: int) -> dict[str, Any]:
    """One layer in both forms, ms: forward, gradient by images, by kernel, by both."""
    form, side, *channels = LAYERS[name]
    inputs, outputs = (depth * each or 3 for each in channels)
    x = jr.normal(jr.key(0), (batch, side, side, inputs)).astype(precision)
    kernel = (0.1 * jr.normal(jr.key(1), (5, 5, inputs, outputs))).astype(precision)
    calls = []
    for cells in (False, True):
        forward = jax.vmap(partial(form, cells=cells), (0, None))
        weights = jnp.ones(jax.eval_shape(forward, x, kernel).shape, precision)

        def both(x: Any, kernel: Any, weights: Any, forward: Any = forward) -> Any:
            return jax.vjp(forward, x, kernel)[1](weights)

        def images(x: Any, kernel: Any, weights: Any, both: Any = both) -> Any:
            return both(x, kernel, weights)[0]

        def kernels(x: Any, kernel: Any, weights: Any, both: Any = both) -> Any:
            return both(x, kernel, weights)[1]

        calls.append(partial(jax.jit(forward), x, kernel))
        calls += [partial(jax.jit(each), x, kernel, weights) for each in (images, kernels, both)]
    first(calls)
    found = [float(ms[1]) for ms in timed(calls, repeats, seconds=60.0)]
    large = side if form is convolve_and_pool else 2 * side
    out = outputs * (side // 2 if form is convolve_and_pool else large) ** 2
    return {
        "plain": found[:4],
        "cells": found[4:],
        "inputs": inputs,
        "outputs": outputs,
        "gflop": 2 * 25 * inputs * outputs * batch * large**2 / 1e9,
        "mb": x.dtype.itemsize * batch * (inputs * side**2 + out) / 1e6,
    }


if __name__ == "__main__":
    main()
