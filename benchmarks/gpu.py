"""What an accelerator does in a few minutes: updates, decisions, and how a decision grows.

    uv run --extra cuda python benchmarks/gpu.py --minutes 8 --cache programs --compile-only
    uv run --extra cuda python benchmarks/gpu.py --minutes 8 --cache programs --out gpu.json
    uv run --extra cuda python benchmarks/gpu.py --presets size50m --cache programs
    uv run python benchmarks/gpu.py --quick        # anywhere, two minutes: that it runs

**Claim.** None of its own: docs/performance.md quotes the rows, with the machine.

**Method.** Random weights, random 64x64 images, three actions. Rows in the order of what they
are worth, each in a process of its own. A wave of them compiles side by side (`--at-once`); when
all of it is compiled, they are timed one after another, each alone: two calls of each program,
then in turn until three seconds or 100 calls have passed, each waited for: median, 10th and 90th
percentile. A base decision and a thinking one take turns. `first_s` is the first call, compilation
and its neighbours included. `gflop` counts the multiplications and additions of products and
convolutions, loops included; `peak_share` is what that makes of `peak_tflop_s`, which a product
of two large matrices reaches in the same precision (float32 is whatever the backend's default is:
TF32 on NVIDIA). Rows that are not timed when the minutes end are listed as skipped. Each row is
printed and written to `--out` when it is known, so nothing is lost. `--compile-only` times nothing
and keeps every core busy until all programs are in the cache: after it all rows fit into 8 minutes.
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from decision import Setting, decision, operations, operations_of
from timing import first, timed
from update import random_batch

from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.cores import cores
from thinkslow.dreamer.config import PRESETS, model_preset, train_preset
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.training import learner
from thinkslow.objectives import SIG
from thinkslow.plural import plural
from thinkslow.saved.provenance import revision
from thinkslow.spaces import Space
from thinkslow.weights import shaped

PRECISIONS = ("bfloat16", "float32")
Row = dict[str, Any]
Measure = partial[Iterator[Row]]
"""Compiles, and yields what is known then; timed, it yields the row."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure."""

    presets: tuple[str, ...] = ("size12m", "tiny", "size50m")
    batches: tuple[int, ...] = (1, 64, 256)
    horizon: int = 8
    horizons: tuple[int, ...] = (1, 2, 4, 16)
    steps: tuple[int, ...] = (2, 4, 8)
    side: int = 8192
    calls: int = 100
    seconds: float = 3.0


QUICK = Plan(("tiny",), (1, 4), 2, (1,), (2,), 512, 5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="in which to end")
    parser.add_argument("--out", type=Path, help="a JSON file, written after each row")
    parser.add_argument("--cache", type=Path, help="where compiled programs are kept and found")
    parser.add_argument(
        "--at-once",
        type=int,
        default=max(1, cores() * 3 // 4),
        help="programs that compile side by side",
    )
    parser.add_argument(
        "--presets", nargs="+", default=list(Plan.presets), choices=list(PRESETS), help="in order"
    )
    parser.add_argument("--compile-only", action="store_true", help="fill the cache; time nothing")
    parser.add_argument("--quick", action="store_true", help="few and small rows")
    given = parser.parse_args()
    if given.compile_only and given.cache is None:
        parser.error("--compile-only needs --cache, where the programs are kept.")
    deadline = time.monotonic() + 60 * given.minutes
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # many processes share it
    report = Report(given.out)
    todo = rows(QUICK if given.quick else Plan(presets=tuple(given.presets)))
    if given.compile_only:
        compile_only(todo, given.cache, given.at_once, deadline)
        return
    while todo and time.monotonic() < deadline:
        run(todo[: given.at_once], given.cache, report, deadline)
        todo = todo[given.at_once :]
    for name, _ in todo:
        report.add("skipped", {"name": name})
    report.end()


def compile_only(
    todo: list[tuple[str, Measure]], cache: Path, at_once: int, deadline: float
) -> None:
    """Compiles all, always so many side by side; what failed, for memory perhaps, once more."""
    running: dict[Any, tuple[str, Measure, BaseProcess]] = {}
    failed: set[str] = set()
    while (todo or running) and time.monotonic() < deadline:
        while todo and len(running) < at_once:
            process, end = begun(todo[0][1], cache)
            running[end] = *todo.pop(0), process
        for end in wait(list(running), max(0.0, deadline - time.monotonic())):
            name, measure, process = running.pop(end)
            kind, found = said(cast(Connection, end))
            end_of(process)
            print(f"{kind}: {json.dumps({'name': name} | found)}", flush=True)
            if kind == "failed" and name not in failed:
                failed.add(name)
                todo.append((name, measure))
    for _, _, process in running.values():
        end_of(process)
    for name in [*(name for name, _, _ in running.values()), *(name for name, _ in todo)]:
        print(f"skipped: {json.dumps({'name': name})}")


class Report:
    """The rows so far, written down as soon as they are known."""

    def __init__(self, out: Path | None):
        self.out = out
        self.peaks: dict[str, float] = {}
        self.content: dict[str, Any] = {
            "machine": f"{platform.machine()}, {plural(cores(), 'core')}",
            "versions": {name: version(name) for name in ("jax", "jaxlib", "equinox", "optax")}
            | {"python": platform.python_version()},
            "revision": revision(),
            "rows": [],
            "skipped": [],
            "failed": [],
            "complete": False,
        }

    def add(self, kind: str, entry: Row) -> None:
        if "peak_tflop_s" in entry:
            self.peaks[entry["precision"]] = entry["peak_tflop_s"]
        peak = self.peaks.get(entry.get("precision", ""))
        if peak and "gflop" in entry:
            entry["peak_share"] = entry["gflop"] / entry["ms"] / peak
        self.content[kind].append(entry)
        print(f"{kind}: {json.dumps(entry)}", flush=True)
        self.write()

    def end(self) -> None:
        self.content["complete"] = not self.content["skipped"] and not self.content["failed"]
        self.write()

    def write(self) -> None:
        if self.out is not None:
            draft = self.out.with_suffix(".part")
            draft.write_text(json.dumps(self.content, indent=1))
            draft.replace(self.out)


def run(
    wave: list[tuple[str, Measure]], cache: Path | None, report: Report, deadline: float
) -> None:
    """Compiles a wave side by side, then times one after another; what failed is tried alone."""
    ends: dict[str, Connection] = {}
    started: dict[str, BaseProcess] = {}
    for name, measure in wave:
        started[name], ends[name] = begun(measure, cache)
    compiling = dict(ends)
    while compiling:
        ready = wait(compiling.values(), max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        compiling = {name: end for name, end in compiling.items() if end not in ready}
    for name in compiling:
        end_of(started[name])  # what is timed now is alone
        report.add("skipped", {"name": name})
    failed = []
    for name in [name for name in ends if name not in compiling]:
        kind, found = said(ends[name])
        if kind == "rows":
            kind, timings = said(ends[name], "now")
            found |= timings
        end_of(started[name])
        if kind == "failed" and len(wave) > 1:
            failed.append(name)
        else:
            report.add(kind, {"name": name} | found)
    for name in failed:  # beside the others its memory may have been too small
        run([(name, dict(wave)[name])], cache, report, deadline)


def begun(measure: Measure, cache: Path | None) -> tuple[BaseProcess, Connection]:
    """A row in a process of its own, and what to hear it by."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=row, args=(measure, cache, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def end_of(process: BaseProcess) -> None:
    process.kill()
    process.join()


def said(end: Connection, word: str | None = None) -> tuple[str, Row]:
    """What the process says, or answers to a word; it may have been killed for its memory."""
    try:
        if word is not None:
            end.send(word)
        return end.recv()
    except (EOFError, OSError):
        return "failed", {"error": "the process ended without a word"}


def row(measure: Measure, cache: Path | None, end: Connection) -> None:
    """One row, in its own process: what is known when it is compiled, then the times."""
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        found = measure()
        end.send(("rows", next(found)))
        end.recv()
        end.send(("rows", next(found)))
    except Exception as error:  # the other rows are still worth having
        end.send(("failed", {"error": f"{type(error).__name__}: {error}"[:500]}))


def rows(plan: Plan) -> list[tuple[str, Measure]]:
    """What to measure, the most telling first."""

    def work(preset: str, precision: str) -> Iterator[tuple[str, Measure]]:
        for batch in plan.batches:
            yield (
                f"decision {preset} {precision} batch {batch}",
                partial(decisions, plan, preset, precision, batch, plan.horizon, 1),
            )
        yield f"update {preset} {precision}", partial(update, plan, preset, precision)

    def growth(horizon: int, steps: int) -> tuple[str, Measure]:
        return (
            f"growth horizon {horizon} steps {steps}",
            partial(decisions, plan, first_preset, "bfloat16", batch, horizon, steps),
        )

    first_preset, *others = plan.presets
    batch = sorted(plan.batches)[1]
    return [
        *((f"peak {precision}", partial(peak, plan, precision)) for precision in PRECISIONS),
        *(one for precision in PRECISIONS for one in work(first_preset, precision)),
        *(one for preset in others for one in work(preset, "bfloat16")),
        *(growth(horizon, 1) for horizon in reversed(plan.horizons)),
        *(growth(plan.horizon, steps) for steps in reversed(plan.steps)),
        *(one for preset in others for one in work(preset, "float32")),
    ]


def peak(plan: Plan, precision: str) -> Iterator[Row]:
    """Teraflops a second of a product of large square matrices."""
    matrix = jr.normal(jr.key(0), (plan.side, plan.side)).astype(precision)
    product = jax.jit(lambda x: x @ x)
    calls = [lambda: product(matrix)]
    (first_s,) = first(calls)
    yield {"precision": precision, "side": plan.side, "first_s": first_s}
    (ms,) = timed(calls, plan.calls, plan.seconds)
    yield {
        "peak_tflop_s": 2 * plan.side**3 / 1e9 / ms[1],
        "device": jax.devices()[0].device_kind,
    }


def model_of(preset: str, precision: str = "float32") -> Dreamer:
    """Random weights, drawn by NumPy: JAX would compile a program for each of their shapes."""
    draw = np.random.default_rng(0).standard_normal

    def weights(leaf: Any) -> Any:
        drawn = draw(leaf.shape, np.float32) / math.sqrt(math.prod(leaf.shape[:-1]))
        return jnp.asarray(drawn.astype(jnp.dtype(precision)))

    observation = {"image": Space((64, 64, 3), "uint8")}
    action = {"action": Space((), "int32", 3)}
    build = partial(Dreamer, observation, action, model_preset(preset))
    return jax.tree.map(weights, shaped(lambda key: build(key=key)))


def descending(horizon: int, steps: int) -> Thinking:
    """Down the state information gain."""
    return Thinking({SIG(): 1.0}, steps=steps, horizon=horizon, record=False)


def decisions(
    plan: Plan, preset: str, precision: str, batch: int, horizon: int, steps: int
) -> Iterator[Row]:
    """The base decision and one that descends the state information gain, in turn."""
    model = model_of(preset, precision)
    agents = [Agent(model, how) for how in (Thinking(), descending(horizon, steps))]
    calls = [partial(decision(agent, Setting(batch=batch)), 0) for agent in agents]
    base_first_s, first_s = first(calls)
    yield {
        "preset": preset,
        "precision": precision,
        "batch": batch,
        "horizon": horizon,
        "steps": steps,
        "first_s": first_s,
        "base_first_s": base_first_s,
    }
    base, found = timed(calls, plan.calls, plan.seconds)
    yield {
        "base_ms": base[1],
        "base_p10_p90_ms": [base[0], base[2]],
        "ms": found[1],
        "p10_p90_ms": [found[0], found[2]],
        "ratio": found[1] / base[1],
        "per_second": 1e3 * batch / found[1],
        "gflop": operations(agents[1], Setting(batch=batch)) / 1e9,
    }


def update(plan: Plan, preset: str, precision: str) -> Iterator[Row]:
    """One update on a batch of the preset's size."""
    config = dataclasses.replace(train_preset(preset), precision=precision)
    model = model_of(preset)
    batch = random_batch(model, config)
    state = jax.jit(learner.start, static_argnums=1)(model, config)
    compiled = jax.jit(learner.update, static_argnames="config")
    calls = [lambda: compiled(state, batch, jr.key(0), config=config)]
    (first_s,) = first(calls)
    size = [config.batch_size, config.batch_length]
    yield {"preset": preset, "precision": precision, "batch": size, "first_s": first_s}
    (ms,) = timed(calls, plan.calls, plan.seconds)
    traced = jax.make_jaxpr(partial(learner.update, config=config))(state, batch, jr.key(0))
    yield {
        "ms": ms[1],
        "p10_p90_ms": [ms[0], ms[2]],
        "replayed_steps_per_s": 1e3 * config.batch_size * config.batch_length / ms[1],
        "gflop": operations_of(traced.jaxpr) / 1e9,
    }


if __name__ == "__main__":
    main()
