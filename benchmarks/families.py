"""Decisions per second of every family of environments that is installed, one process each.

Claim: which of them can feed a learner on a CPU, and which are its bottleneck.

Method: a `VectorEnv` of one process, 64x64, uniformly random actions drawn beforehand, resets and
the way through shared memory included. After 20 decisions of warm-up, as many as fit into
`--seconds` (30 at least). Starting is the time until the first two decisions: processes, imports
and, of those written in JAX, compiling, which a cache of compiled programs shortens.

The table is in docs/environments.md. Reproduce, once in each of two environments, because `pygame`
and `pygame-ce` overwrite each other:

    uv pip install -e '.[atari,minigrid,vizdoom,dm-control,crafter,memory-maze,procgen]'
    python benchmarks/families.py
    uv pip install -e '.[craftax,popgym-arcade]'
    python benchmarks/families.py --only Craftax 'POPGym Arcade'
"""

import argparse
import json
import platform
import time
from typing import Any

import numpy as np

from thinkslow.cores import cores
from thinkslow.envs import VectorEnv
from thinkslow.envs.families import FAMILIES
from thinkslow.plural import plural


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", nargs="*", default=[family.name for family in FAMILIES])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args()
    machine = f"{platform.machine()}, {plural(cores(), 'core')}, Python {platform.python_version()}"
    rows = []
    for family in FAMILIES:
        if family.installed and family.name in given.only:
            rows.append(measure(family.name, family.example, given.seconds))
            if not given.json:
                row = "{family:20} {id:40} {per_s:8.0f}/s  start {start_s:5.1f} s"
                print(row.format(**rows[-1]), flush=True)
    print(json.dumps({"machine": machine, "rows": rows}) if given.json else machine)


def measure(family: str, id: str, seconds: float) -> dict[str, Any]:
    """One row of the table."""
    rng = np.random.default_rng(0)
    begun = time.perf_counter()
    with VectorEnv(id, 1, step_limit_s=600.0) as envs:
        actions = [
            {
                name: rng.integers(space.classes, size=1)
                if space.classes
                else rng.uniform(-1, 1, (1, *space.shape))
                for name, space in envs.action_spaces.items()
            }
            for _ in range(997)
        ]
        envs.reset()
        for action in actions[:2]:
            envs.step(action)
        start_s = time.perf_counter() - begun
        for action in actions[:20]:
            envs.step(action)
        begun, count = time.perf_counter(), 0
        while count < 30 or time.perf_counter() - begun < seconds:
            envs.step(actions[count % len(actions)])
            count += 1
        per_s = count / (time.perf_counter() - begun)
    return {"family": family, "id": id, "per_s": per_s, "start_s": start_s}


if __name__ == "__main__":
    main()
