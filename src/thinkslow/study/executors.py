"""Play tasks in processes of this machine, or on a Ray cluster.

Both give the same records. A task whose process died is played again, up to `TRIES` times; its
finished records are kept.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from thinkslow.storage import atomic
from thinkslow.study.tasks import Task

TRIES = 3
POLL_S = 0.2

Tick = Callable[[], None]
"""Called regularly while tasks are played."""


class Failing(RuntimeError):
    """Every try of a task failed. The message ends with its last output."""


def local(folder: Path, tasks: Sequence[Task], jobs: int, tick: Tick) -> None:
    """Play tasks in processes of this machine.

    Args:
        folder: the folder of the study, with its `study.json`.
        tasks: the unfinished tasks.
        jobs: number of processes at the same time.
        tick: called while the tasks run.

    **Errors:** `Failing`; `lock.Lost` if the folder was deleted or moved meanwhile. No process is
    left behind in any case.
    """
    waiting, running = list(tasks), dict[subprocess.Popen[bytes], Task]()
    tries: dict[Task, int] = {}
    # This end of the pipe closes when this process ends in any way, and the workers then end too.
    alive, held = os.pipe()
    try:
        while waiting or running:
            atomic.guard(atomic.absolute(folder / "study.json"))
            while waiting and len(running) < jobs:
                task = waiting.pop(0)
                running[_started(folder, task, alive)] = task
            time.sleep(POLL_S)
            tick()
            for process in [one for one in running if one.poll() is not None]:
                task = running.pop(process)
                if process.returncode == 0:
                    continue
                tries[task] = tries.get(task, 0) + 1
                if tries[task] >= TRIES or process.returncode == REFUSED:
                    raise Failing(_said(folder, task))
                waiting.insert(0, task)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            process.kill()
            process.wait()
        os.close(alive)
        os.close(held)


REFUSED = 2
"""Exit code of a task that would fail again because it cannot be played."""


def _started(folder: Path, task: Task, alive: int) -> subprocess.Popen[bytes]:
    log = folder / task.folder / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "thinkslow.study.worker", str(folder), json.dumps(vars(task))],
            stdin=alive,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def _said(folder: Path, task: Task) -> str:
    log = folder / task.folder / "log.txt"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    last = lines[-1] if lines else "nothing"
    return (
        f"Block {task.block} of {task.agent} in {task.setting} could not be played. Its last "
        "output: "
        f"{last} The whole log: {log}. The same command continues with the rest."
    )


def on_ray(folder: Path, tasks: Sequence[Task], address: str | None, tick: Tick) -> None:
    """Play tasks on a Ray cluster; records travel back to this machine.

    Every node needs thinkslow installed, and the agents at the same paths unless they are
    bundled.

    Args:
        folder: the folder of the study, with its `study.json`, on this machine.
        tasks: the unfinished tasks.
        address: the address of a running cluster; None: one is started on this machine.
        tick: called while the tasks run.

    **Errors:** `ModuleNotFoundError` without Ray, with the command that installs it; `Failing`.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "The Ray executor needs the package ray: pip install 'thinkslow[ray]'."
        ) from None
    with warnings.catch_warnings():
        # Ray forks only to start a program.
        warnings.filterwarnings("ignore", "os.fork")
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    plan = (folder / "study.json").read_bytes()
    remote = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_played)
    try:
        waiting = {remote.remote(plan, vars(task)): task for task in tasks}
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=POLL_S)
            tick()
            for one in ready:
                task = waiting.pop(one)
                try:
                    content = ray.get(one)
                except Exception as error:
                    raise Failing(
                        f"Block {task.block} of {task.agent} in {task.setting} could not be "
                        f"played: {str(error).strip().splitlines()[-1]}"
                    ) from error
                _unpacked(content, folder / task.folder)
    finally:
        ray.shutdown()


def _played(plan: bytes, task: dict[str, Any]) -> bytes:
    """On a node: play a task in a temporary folder. Returns its records as an archive."""
    from thinkslow.study.worker import play_stored

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "study.json").write_bytes(plan)
        one = Task(**task)
        play_stored(folder, one)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(folder / one.folder, arcname=".")
        return buffer.getvalue()


def _unpacked(content: bytes, folder: Path) -> None:
    """Move the complete records of a finished task into place."""
    with (
        atomic.folder(folder, replace=True) as place,
        tarfile.open(fileobj=io.BytesIO(content)) as archive,
    ):
        archive.extractall(place, filter="data")
