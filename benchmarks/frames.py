"""Frames of MiniWorld: by its own path, and as this project draws them.

    taskset -c 0 uv run python benchmarks/frames.py

**Claim.** A decision of CollectGoodObjects takes at most two thirds of the processor time that it
takes with MiniWorld's own drawing.

**Method.** Each side in a process of its own, in turn, `--repeats` times: the same seed and random
actions, 64x64, 250 decisions to warm up and 2,000 measured, episodes begun again included.
Processor milliseconds of a decision, median [least, most] over the processes. "Stock" is MiniWorld
with pyglet's own options (a check of errors after each call, Mesa's threads), its own camera,
drawing, reading back and test of walls; MiniWorld's tasks come from `gymnasium.make`, in the same
size. Ours come from `thinkslow.envs.make`, with all that checks what an environment shows. "OpenGL"
is the drawing and reading back of one frame from a fixed camera, without depths. Frames that differ
between the two sides are counted: our boxes turn by `math.degrees`, MiniWorld's by a product with
180 / pi, so that a pixel may round to another value.

docs/performance.md has the table.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from thinkslow.evaluation.protocol import machine
from thinkslow.saved.provenance import revision

COLLECT = "thinkslow/CollectGoodObjects-v0"
TASKS = (COLLECT, "MiniWorld-Hallway-v0", "MiniWorld-FourRooms-v0", "MiniWorld-PickupObjects-v0")
WARM, COUNTED = 250, 2_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", choices=("stock", "ours"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        begin = stock if given.one == "stock" else ours
        print(json.dumps(measured(begin(given.tasks[0]))))
        return
    print("| task | stock, ms | ours, ms | stock / ours | OpenGL, ms | frames that differ |")
    print("|---|---|---|---|---|---|")
    for task in given.tasks:
        rows: dict[str, list[Any]] = {"stock": [], "ours": []}
        for _ in range(given.repeats):
            for side, found in rows.items():
                found.append(apart(side, task))
        times = {side: np.sort([one["ms"] for one in found]) for side, found in rows.items()}
        cells = [f"{np.median(ms):.3f} [{ms[0]:.3f}, {ms[-1]:.3f}]" for ms in times.values()]
        ratio = np.median(times["stock"]) / np.median(times["ours"])
        floor = np.median([one["opengl_ms"] for one in rows["ours"]])
        pairs = zip(*(found[0]["frames"] for found in rows.values()), strict=True)
        differ = sum(one != other for one, other in pairs)
        print(
            f"| {task} | {' | '.join(cells)} | {ratio:.2f} | {floor:.3f} | {differ} |", flush=True
        )
    print(f"\n{machine()}, revision {revision()}")


def apart(side: str, task: str) -> Any:
    """What `measured` finds for one side, in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", side, "--tasks", task],
        env={**os.environ, "PYGLET_HEADLESS": "true"},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def stock(task: str) -> Any:
    """The task by MiniWorld alone."""
    if task != COLLECT:
        sides = dict.fromkeys(("obs_width", "obs_height", "window_width", "window_height"), 64)
        return gymnasium.make(f"miniworld:{task}", disable_env_checker=True, **sides)
    from miniworld.math import intersect_circle_segs
    from miniworld.miniworld import MiniWorldEnv

    from thinkslow.envs.tasks import collect

    class Stock(collect.CollectGoodObjects):
        render_obs = MiniWorldEnv.render_obs
        _render_world = MiniWorldEnv._render_world
        _render_static = MiniWorldEnv._render_static

        def _move(self, action: int) -> None:
            if action != collect.FORWARD:
                return super()._move(action)
            position = self.agent.pos + collect.STEP * self.agent.dir_vec
            if not intersect_circle_segs(position, self.agent.radius, self.wall_segs):
                self.agent.pos = position

    return Stock()


def ours(task: str) -> Any:
    from thinkslow.envs import make

    return make(task)


def measured(env: Any) -> dict[str, Any]:
    """Processor milliseconds of a decision and of its OpenGL alone; the hash of each frame."""
    actions = np.random.default_rng(0).integers(int(env.action_space.n), size=WARM + COUNTED)
    hashes, spent = [], 0.0
    env.reset(seed=0)
    for index, action in enumerate(actions.tolist()):
        begun = time.process_time()
        seen, _, *ends = env.step(action)
        if any(ends[:2]):
            env.reset(seed=index)
        if index >= WARM:
            spent += time.process_time() - begun
        frame = seen["image"] if isinstance(seen, dict) else seen
        hashes.append(hashlib.sha256(frame.tobytes()).hexdigest())
    return {
        "ms": 1e3 * spent / COUNTED,
        "opengl_ms": opengl_ms(getattr(env, "env", env).unwrapped),
        "frames": hashes,
    }


def opengl_ms(world: Any) -> float:
    """Processor milliseconds of one frame of the world from where its camera is."""
    from pyglet import gl

    from thinkslow.envs.tasks.collect import read

    buffer = world.obs_fb
    buffer.resolve = partial(read, buffer)
    begun = time.process_time()
    for _ in range(COUNTED):
        buffer.bind()
        gl.glClear(gl.GL_COLOR_BUFFER_BIT | gl.GL_DEPTH_BUFFER_BIT)
        world._render_world(buffer, render_agent=False)
    return 1e3 * (time.process_time() - begun) / COUNTED


if __name__ == "__main__":
    main()
