"""Frames per second of the project's own task, alone and side by side.

Claim: the simulator is no bottleneck of training on a CPU: two busy cores give more than a
thousand decisions per second, rendering, resets and the way through shared memory included,
where the tiny agent learns from some tens per second.

Method: `VectorEnv` of 1 and 2 processes, two views, 64×64, and Gymnasium's `AsyncVectorEnv`
(shared memory) of the same environments; uniformly random actions drawn beforehand. After 50 steps
of warm-up, 30 repeats of 250 steps; each repeat holds one reset per environment. Frames are steps
times environments; wall-clock time; median and p10–p90 over the repeats. Starting is the time until
the first observation, processes and OpenGL included.

| task               | processes | `VectorEnv`, frames/s | `AsyncVectorEnv`      |
|--------------------|-----------|-----------------------|-----------------------|
| CollectGoodObjects | 1         | 1,730 (1,644-1,779)   | 1,590 (1,469-1,617)   |
| CollectGoodObjects | 2         | 2,748 (2,251-3,071)   | 2,936 (2,564-3,029)   |
| its panorama       | 1         | 770 (689-858)         | 898 (852-921)         |
| its panorama       | 2         | 1,651 (1,415-1,737)   | 1,705 (1,606-1,792)   |

Machine: two cores of an AMD EPYC, otherwise idle, Python 3.11.7, Mesa llvmpipe. Revision
a36fa4a.

Reproduce: `uv run python benchmarks/environments.py` (`--json` for one JSON object).
"""

import argparse
import contextlib
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from thinkslow.cores import cores
from thinkslow.envs import VectorEnv, make
from thinkslow.plural import plural

TASKS = ("thinkslow/CollectGoodObjects-v0", "thinkslow/CollectGoodObjectsPanorama-v0")
STEPS = 250


def ours(task: str, count: int) -> VectorEnv:
    return VectorEnv(task, count)


def gymnasiums(task: str, count: int) -> Any:
    return gymnasium.vector.AsyncVectorEnv([lambda: make(task)] * count, shared_memory=True)


def measure(
    begin: Callable[[str, int], Any], task: str, count: int, repeats: int
) -> dict[str, str | int | float]:
    """One row of the table."""
    actions = np.random.default_rng(0).integers(3, size=(STEPS, count))
    begun = time.perf_counter()
    with contextlib.closing(begin(task, count)) as envs:
        envs.reset()
        start_s = time.perf_counter() - begun
        for action in actions[:50]:
            envs.step(action)
        rates = []
        for _ in range(repeats):
            begun = time.perf_counter()
            for action in actions:
                envs.step(action)
            rates.append(STEPS * count / (time.perf_counter() - begun))
    p10, median, p90 = np.percentile(rates, [10, 50, 90]).round().tolist()
    return {
        "by": "VectorEnv" if begin is ours else "AsyncVectorEnv",
        "task": task,
        "processes": count,
        "frames_per_s": median,
        "p10": p10,
        "p90": p90,
        "start_s": round(start_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    rows = []
    for task in TASKS:
        for count, begin in itertools.product((1, 2), (ours, gymnasiums)):
            rows.append(measure(begin, task, count, options.repeats))
            print(rows[-1], file=sys.stderr)
    machine = f"{platform.machine()}, {plural(cores(), 'core')}, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}))
        return
    print(machine)
    print(f"{'by':16}{'task':44}{'processes':>10}{'frames/s':>10}{'p10–p90':>14}{'start s':>9}")
    for row in rows:
        spread = f"{row['p10']:.0f}–{row['p90']:.0f}"
        print(
            f"{row['by']:16}{row['task']:44}{row['processes']:10}{row['frames_per_s']:10.0f}"
            f"{spread:>14}{row['start_s']:9}"
        )


if __name__ == "__main__":
    main()
