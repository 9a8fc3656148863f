"""`thinkslow doctor`: what works on this machine, and how to mend what does not."""

import dataclasses
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thinkslow.cli.common import Common
from thinkslow.cli.common import parse as parse_options

DESCRIPTION = """Say what works on this machine and how to mend what does not.

Exit code 1 if `thinkslow demo` could not run here, 0 otherwise.

example: thinkslow doctor"""

TASK = "thinkslow/CollectGoodObjects-v0"
PATIENCE = 60.0
"""Seconds that the test frame may take."""
ROOM = 1.0
"""GiB of free disk below which to warn: a run's replay takes most of it."""

RENDER = f"""
from thinkslow import envs
env = envs.make({TASK!r}, size=64)
env.reset(seed=0)
env.close()
"""
"""Run in a child process: a driver that crashes must not take the doctor with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow doctor`."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True
    """Whether the demo cannot run without it."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "doctor", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Look at everything and print it.

    **Errors:** `SystemExit` with code 1 if the demo cannot run; the result is printed before.
    """
    findings = [python(), devices(), renderer(), disk(Path.cwd()), cache(), *agents()]
    works = all(one.ok for one in findings if one.needed)
    result = {"works": works, "findings": [dataclasses.asdict(one) for one in findings]}
    if not options.json:
        _show(findings, works)
    if not works:
        if options.json:
            print(json.dumps(result))
        raise SystemExit(1)
    return result


def python() -> Finding:
    return Finding("python", True, f"{platform.python_version()} at {sys.executable}")


def devices() -> Finding:
    """What JAX computes on."""
    try:
        import jax

        kinds = [f"{device.platform} ({device.device_kind})" for device in jax.devices()]
    except (ImportError, RuntimeError) as error:
        return Finding("jax", False, _line(str(error)), "Install again: uv sync, or pip install")
    found = f"jax {jax.__version__}, {len(kinds)} device{'s' * (len(kinds) > 1)}: {kinds[0]}"
    if jax.default_backend() != "cpu":
        return Finding("jax", True, found)
    from thinkslow.envs.requirements import install

    remedy = f"No GPU: runs on the CPU. For NVIDIA: {install('jax[cuda12]')}"
    return Finding("jax", True, found, remedy)


def renderer() -> Finding:
    """A frame of the task, drawn in a child process."""
    from thinkslow.envs.rendering import missing_packages

    if missing := missing_packages() if sys.platform == "linux" else []:
        return Finding(
            "renderer", False, f"missing Debian packages {', '.join(missing)}",
            f"sudo apt-get install -y {' '.join(missing)}",
        )  # fmt: skip
    try:
        child = subprocess.run(
            [sys.executable, "-c", RENDER], capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Finding("renderer", False, f"no frame within {PATIENCE:.0f} s", _RENDER_REMEDY)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        return Finding("renderer", False, _line(last), _RENDER_REMEDY)
    return Finding("renderer", True, f"drew a frame of {TASK}")


_RENDER_REMEDY = (
    "sudo apt-get install -y libegl1 libgl1 libglu1-mesa libgl1-mesa-dri libfreetype6 "
    "libfontconfig1; if they are there, see docs/troubleshooting.md"
)


def disk(folder: Path) -> Finding:
    """Room where records and runs would go."""
    free = shutil.disk_usage(folder).free / 2**30
    found = f"{free:.1f} GiB free in {folder}"
    if free < ROOM:
        remedy = f"Free {ROOM:.0f} GiB, or pass --out and --run on another disk"
        return Finding("disk", False, found, remedy, needed=False)
    return Finding("disk", True, found, needed=False)


def cache() -> Finding:
    """Where compiled programs are kept between commands."""
    from thinkslow.cli.compilation_cache import folder

    kept = folder()
    if kept is None:
        return Finding("compiled", True, "not kept: every start compiles", needed=False)
    size = sum(file.stat().st_size for file in kept.glob("*")) if kept.is_dir() else 0
    return Finding("compiled", True, f"{size / 2**20:.0f} MiB kept in {kept}", needed=False)


def agents() -> list[Finding]:
    """The bundled agents, their weights verified by checksum."""
    from thinkslow import zoo
    from thinkslow.storage import store

    names = sorted({*zoo.names(), *zoo.DEMO})
    found = []
    for name in names:
        what, needed = f"agent {name}", name in zoo.DEMO
        try:
            weights, _, _ = store.read_whole(zoo.FOLDER / name)
        except (store.Missing, store.Damaged) as error:
            remedy = "Install thinkslow again"
            found.append(Finding(what, False, _line(str(error)), remedy, needed=needed))
        else:
            size = sum(array.size for array in weights.values())
            found.append(Finding(what, True, f"{size:,} parameters, sound", needed=needed))
    return found


def _show(findings: Sequence[Finding], works: bool) -> None:
    terminal = Console()
    table = Table("what", "state")
    table.add_column("found", overflow="fold")
    for one in findings:
        colour = "green" if one.ok else "red" if one.needed else "yellow"
        state = f"[{colour}]{'ok' if one.ok else 'missing'}[/]"
        table.add_row(one.what, state, escape(one.found))
    terminal.print(table)
    # On lines of their own, so that a command can be copied whole.
    for one in findings:
        if one.remedy:
            terminal.print(f"{one.what}: {escape(one.remedy)}", soft_wrap=True, highlight=False)
    terminal.print("`thinkslow demo` " + ("can run here." if works else "cannot run here."))


def _line(text: str) -> str:
    return " ".join(text.split())
