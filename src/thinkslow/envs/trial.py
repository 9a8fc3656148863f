"""Make and step an environment in a separate process with a time limit.

A simulator that crashes or hangs ends only that process.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from thinkslow.envs.worker import COMPUTING

STEPS = 3
CALL = "from thinkslow.envs.trial import main; main()"


class Trial(NamedTuple):
    """The result of a trial."""

    works: bool
    found: str
    """A description: the renderer and the time it took, or the failure."""


def tried(id: str, limit_s: float) -> Trial:
    """Make an environment and take a few steps in it.

    Args:
        id: as `make` takes it.
        limit_s: time limit for the whole trial, in seconds.
    """
    with tempfile.TemporaryDirectory() as folder:  # simulators write files where they are started
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", CALL, id],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**COMPUTING, **os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        try:
            out, err = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return Trial(False, f"no step within {limit_s:g} s")
        finally:
            _end(child)
    try:
        told = json.loads((out.strip().splitlines() or [""])[-1])
    except ValueError:
        return Trial(False, _last(err, child.returncode))
    if "fault" in told:
        return Trial(False, told["fault"])
    by = f" ({told['renderer']})" if told["renderer"] else ""
    drawn = f", draws {told['drawn']}{by}" if told["drawn"] else ""
    return Trial(True, f"{STEPS} steps of {id} in {told['seconds']:.1f} s{drawn}")


def main() -> None:
    """The main function of the child process."""
    import warnings

    from thinkslow.envs import Unavailable, make

    warnings.simplefilter("ignore")
    begun = time.monotonic()
    try:
        env = make(sys.argv[-1])
    except Unavailable as error:
        print(json.dumps({"fault": str(error)}), flush=True)
        return
    env.reset(seed=0)
    for _ in range(STEPS):
        _, _, terminated, truncated, _ = env.step(nothing(env.actions))
        if terminated or truncated:
            env.reset(seed=1)
    told = {
        "drawn": env.drawn,
        "seconds": time.monotonic() - begun,
        "renderer": _renderer(),
    }
    env.close()
    print("\n" + json.dumps(told), flush=True)  # a simulator may have left a line unfinished


def nothing(actions: Mapping[str, Any]) -> dict[str, Any]:
    """For each action, the first class or the middle of its range."""
    return {
        name: 0 if space.classes is not None else np.zeros(space.shape, np.float32)
        for name, space in actions.items()
    }


def _renderer() -> str:
    """The OpenGL renderer that pyglet uses, if any, such as `llvmpipe`."""
    if "pyglet.gl" not in sys.modules:
        return ""
    from pyglet.gl import gl_info

    return str(gl_info.get_renderer()).split(" (")[0] if gl_info.have_context() else ""


def _last(err: str, code: int) -> str:
    """Why a process ended, from its last output."""
    lines = err.strip().splitlines()
    if code < 0:
        cause = f"ended by {signal.Signals(-code).name}"
        return f"{cause}: {lines[-1]}" if lines else cause
    return " ".join((lines or [f"exit code {code}"])[-1].split())


def _end(child: subprocess.Popen) -> None:
    """End the process and its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
