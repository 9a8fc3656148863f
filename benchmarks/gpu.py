"""What an accelerator does in a few minutes: updates, decisions, and how a decision grows.

    uv run --extra cuda python benchmarks/gpu.py --minutes 8 --cache programs --out gpu.json
    uv run --extra cuda python benchmarks/gpu.py --presets size50m --cache programs
    uv run python benchmarks/gpu.py --quick        # anywhere, two minutes: that it runs

**Claim.** None of its own: docs/performance.md quotes the rows, with the machine.

**Method.** Random weights, random 64x64 images, three actions. Rows in the order of what they
are worth, each compiled (timed apart), called twice, then called until a second or 30 calls have
passed, each waited for: median, 10th and 90th percentile. A base decision and a thinking one take
turns. `gflop` counts the multiplications and additions of products and convolutions, loops
included; `peak_share` is what that makes of `peak_tflop_s`, which a product of two large matrices
reaches in the same precision (float32 is whatever the backend's default is: TF32 on NVIDIA). A
row that would not fit the time left, judged by the longest so far, is skipped and said to be. A
clock of its own ends the run, whatever it is doing, half a minute after its time. Each row is
printed and written to `--out` when it is known, so nothing is lost.

`convolution` rows are those of benchmarks/convolution.py; a GPU uses the plain form.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
from convolution import LAYERS, layer
from decision import decision, operations, operations_of
from timing import timed
from update import random_batch

from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.dreamer.config import PRESETS, model_preset, train_preset
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.saved import revision
from thinkslow.dreamer.training import learner
from thinkslow.objectives import SIG
from thinkslow.spaces import Space
from thinkslow.trees import cast

GRACE = 30.0
"""Seconds after which a row that is still running is given up."""
PRECISIONS = ("bfloat16", "float32")
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure."""

    presets: tuple[str, ...] = ("size12m", "tiny", "size50m")
    batches: tuple[int, ...] = (1, 64, 256)
    horizon: int = 8
    horizons: tuple[int, ...] = (1, 2, 4, 16)
    steps: tuple[int, ...] = (2, 4, 8)
    side: int = 8192
    calls: int = 30
    convolution_batch: int = 1024


QUICK = Plan(("tiny",), (1, 4), 2, (1,), (2,), 512, 5, 8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=6.0, help="in which to end")
    parser.add_argument("--out", type=Path, help="a JSON file, written after each row")
    parser.add_argument("--cache", type=Path, help="where compiled programs are kept and found")
    parser.add_argument(
        "--presets",
        nargs="+",
        default=list(Plan.presets),
        choices=list(PRESETS),
        help="in the order of what they are worth; with --cache, one or two a call fill it",
    )
    parser.add_argument("--quick", action="store_true", help="few and small rows")
    given = parser.parse_args()
    if given.cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(given.cache.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    report = Report(given.out, time.monotonic() + 60 * given.minutes)
    report.watch()
    plan = QUICK if given.quick else Plan(presets=tuple(given.presets))
    for name, measure in rows(plan):
        report.row(name, measure)
    report.end()


class Report:
    """The rows so far, on paper as soon as they are known."""

    def __init__(self, out: Path | None, deadline: float):
        self.out, self.deadline = out, deadline
        self.longest, self.running = 0.0, "start"
        self.lock = threading.Lock()
        self.content: dict[str, Any] = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0]}",
            "device": jax.devices()[0].device_kind,
            "versions": {name: version(name) for name in ("jax", "jaxlib", "equinox", "optax")}
            | {"python": platform.python_version()},
            "revision": revision(),
            "rows": [],
            "skipped": [],
            "failed": [],
            "complete": False,
        }

    def row(self, name: str, measure: Callable[[], Row]) -> None:
        """Measures one, if there is time, and writes it down; a failure is written down too."""
        left = self.deadline - time.monotonic()
        if left < min(self.longest, 60.0):
            self.add("skipped", {"name": name, "seconds_left": round(left, 1)})
            return
        begun, self.running = time.monotonic(), name
        try:
            found = measure()
        except Exception as error:  # the other rows are still worth having
            self.add("failed", {"name": name, "error": f"{type(error).__name__}: {error}"[:500]})
        else:
            took = round(time.monotonic() - begun, 1)
            self.add("rows", {"name": name} | found | {"row_s": took})
        self.longest = max(self.longest, time.monotonic() - begun)

    def add(self, kind: str, entry: Row) -> None:
        with self.lock:
            self.content[kind].append(entry)
            print(f"{kind}: {json.dumps(entry)}", flush=True)
            self.write()

    def write(self) -> None:
        if self.out is not None:
            draft = self.out.with_suffix(".part")
            draft.write_text(json.dumps(self.content, indent=1))
            draft.replace(self.out)

    def end(self) -> None:
        with self.lock:
            self.content["complete"] = not self.content["skipped"] and not self.content["failed"]
            self.write()
            print(json.dumps(self.content), flush=True)

    def watch(self) -> None:
        """Ends the process if a row hangs beyond the time: a compilation cannot be interrupted."""

        def stop() -> None:
            with self.lock:
                self.content["failed"].append({"name": self.running, "error": "out of time"})
                self.write()
                print(json.dumps(self.content), flush=True)
                sys.stdout.flush()
                os._exit(0)

        timer = threading.Timer(max(0.0, self.deadline - time.monotonic()) + GRACE, stop)
        timer.daemon = True
        timer.start()


def rows(plan: Plan) -> Iterator[tuple[str, Callable[[], Row]]]:
    """What to measure, the most telling first."""
    peaks: dict[str, float] = {}
    for precision in PRECISIONS:
        yield f"peak {precision}", partial(peak, plan, precision, peaks)
    first, *others = plan.presets
    decide = partial(decisions, plan, peaks)

    def work(preset: str, precision: str) -> Iterator[tuple[str, Callable[[], Row]]]:
        for batch in plan.batches:
            yield (
                f"decision {preset} {precision} batch {batch}",
                partial(decide, preset, precision, batch, plan.horizon, 1),
            )
        yield f"update {preset} {precision}", partial(update, plan, peaks, preset, precision)

    for precision in PRECISIONS:
        yield from work(first, precision)
    for preset in others:
        yield from work(preset, "bfloat16")
    batch = sorted(plan.batches)[1]
    for horizon in plan.horizons:
        yield f"growth horizon {horizon}", partial(decide, first, "bfloat16", batch, horizon, 1)
    for steps in plan.steps:
        yield (
            f"growth steps {steps}",
            partial(decide, first, "bfloat16", batch, plan.horizon, steps),
        )
    for depth in (4, 16, 32):
        for precision in PRECISIONS:
            yield (
                f"convolution depth {depth} {precision}",
                partial(convolutions, plan, depth, precision),
            )
    for preset in others:
        yield from work(preset, "float32")


def peak(plan: Plan, precision: str, peaks: dict[str, float]) -> Row:
    """Teraflops a second of a product of large square matrices."""
    matrix = jr.normal(jr.key(0), (plan.side, plan.side)).astype(precision)
    product = jax.jit(lambda x: x @ x)
    ms, compile_s = timed([lambda: product(matrix)], plan.calls)
    peaks[precision] = 2 * plan.side**3 / 1e9 / ms[0][1]
    return {"peak_tflop_s": peaks[precision], "side": plan.side, "compile_s": compile_s[0]}


def model_of(preset: str) -> Dreamer:
    return Dreamer(
        {"image": Space((64, 64, 3), "uint8")},
        {"action": Space((), "int32", 3)},
        model_preset(preset),
        key=jr.key(0),
    )


def descending(horizon: int, steps: int) -> Thinking:
    """Down the state information gain."""
    return Thinking({SIG(): 1.0}, steps=steps, horizon=horizon)


def decisions(
    plan: Plan,
    peaks: dict[str, float],
    preset: str,
    precision: str,
    batch: int,
    horizon: int,
    steps: int,
) -> Row:
    """The base decision and one that descends the state information gain, in turn."""
    model = cast(model_of(preset), precision)
    agents = [Agent(model, how) for how in (Thinking(), descending(horizon, steps))]
    calls = [partial(decision(agent, batch), 0) for agent in agents]
    (base, found), (base_compile, compile_s) = timed(calls, plan.calls)
    flop = operations(agents[1], batch)
    return {
        "preset": preset,
        "precision": precision,
        "batch": batch,
        "horizon": horizon,
        "steps": steps,
        "base_ms": base[1],
        "ms": found[1],
        "p10_p90_ms": [found[0], found[2]],
        "ratio": found[1] / base[1],
        "per_second": 1e3 * batch / found[1],
        "gflop": flop / 1e9,
        "peak_share": share(flop, found[1], peaks.get(precision)),
        "compile_s": compile_s,
        "base_compile_s": base_compile,
    }


def update(plan: Plan, peaks: dict[str, float], preset: str, precision: str) -> Row:
    """One update on a batch of the preset's size."""
    config = dataclasses.replace(train_preset(preset), precision=precision)
    model = model_of(preset)
    batch = random_batch(model, config)
    state = learner.start(model, config)
    compiled = jax.jit(learner.update, static_argnames="config")
    (ms,), (compile_s,) = timed(
        [lambda: compiled(state, batch, jr.key(0), config=config)], plan.calls
    )
    traced = jax.make_jaxpr(partial(learner.update, config=config))(state, batch, jr.key(0))
    flop = operations_of(traced.jaxpr)
    steps = config.batch_size * config.batch_length
    return {
        "preset": preset,
        "precision": precision,
        "batch": [config.batch_size, config.batch_length],
        "ms": ms[1],
        "p10_p90_ms": [ms[0], ms[2]],
        "replayed_steps_per_s": 1e3 * steps / ms[1],
        "gflop": flop / 1e9,
        "peak_share": share(flop, ms[1], peaks.get(precision)),
        "compile_s": compile_s,
    }


def convolutions(plan: Plan, depth: int, precision: str) -> Row:
    """Each layer of the official vision of that depth, in both forms, ms."""
    batch = plan.convolution_batch
    found = {name: layer(name, depth, batch, precision, min(10, plan.calls)) for name in LAYERS}
    return {"depth": depth, "precision": precision, "batch": batch} | found


def share(flop: float, ms: float, peak_tflop_s: float | None) -> float | None:
    return None if peak_tflop_s is None else flop / 1e9 / ms / peak_tflop_s


if __name__ == "__main__":
    main()
