"""`thinkslow doctor`: what works on this machine, and how to fix what does not."""

import dataclasses
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from thinkslow.cli.common import Common, output
from thinkslow.cli.common import parse as parse_options
from thinkslow.plural import plural
from thinkslow.settings import setting
from thinkslow.storage import jsontext

if TYPE_CHECKING:
    from thinkslow.envs.families.family import Family

DESCRIPTION = """Check what works on this machine, and say how to fix what does not.

The exit code is 1 if `thinkslow demo` could not run here, and 0 otherwise.

examples:
  thinkslow doctor
  thinkslow doctor --json
  thinkslow doctor --json > doctor.json"""

TASK = "thinkslow/CollectGoodObjects-v0"
ROOM = 1.0
"""Warn below this many GiB of free disk. The replay of a run uses most of it."""
AT_ONCE = 4
"""Environments that are tried at the same time, at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow doctor`."""

    limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = setting(60.0, above=0)
    """Give each environment this time to start and to make three steps."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True
    """Whether the demo cannot run without it."""

    @property
    def state(self) -> str:
        return "ok" if self.ok else "missing" if self.needed else "absent"


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "doctor", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Make all checks and print the results.

    **Errors:** `SystemExit` with code 1, after the results are printed, if the demo cannot run.
    """
    findings = [
        python(),
        devices(),
        *drawing(options.limit),
        disk(Path.cwd()),
        cache(),
        *agents(),
    ]
    works = all(one.ok for one in findings if one.needed)
    result = {"works": works, "findings": [dataclasses.asdict(one) for one in findings]}
    if not options.json:
        _show(findings, works)
    if not works:
        if options.json:
            print(jsontext.dumps(result))
        raise SystemExit(1)
    return result


def python() -> Finding:
    return Finding("python", True, f"{platform.python_version()} at {sys.executable}")


def devices() -> Finding:
    """The devices of JAX."""
    try:
        import jax

        found = [f"{device.platform} ({device.device_kind})" for device in jax.devices()]
    except (ImportError, RuntimeError) as error:
        return Finding("jax", False, _line(str(error)), "Install again: uv sync, or pip install")
    count = plural(len(found), "device")
    backend = jax.default_backend()
    text = f"jax {jax.__version__}, backend {backend}, {count}: {', '.join(dict.fromkeys(found))}"
    if backend != "cpu":
        return Finding("jax", True, text)
    from thinkslow.envs.requirements import install

    cuda = install("jax[cuda12]")
    remedy = f"No GPU: runs on the CPU. For NVIDIA: {cuda}"
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        remedy = "JAX_PLATFORMS=cpu is set: a GPU would not be used."
    elif shutil.which("nvidia-smi"):
        remedy = f"There is an NVIDIA driver, but jax was installed without CUDA: {cuda}"
    return Finding("jax", True, text, remedy)


def drawing(limit_s: float) -> list[Finding]:
    """Renderers, and every family of environments, stepped in parallel."""
    from thinkslow.envs.families import FAMILIES, miniworld

    packages: set[str] = set()
    others = []
    for family in FAMILIES:
        known = family.packages in packages and not family.installed
        if family is not miniworld.OURS and not known:
            others.append(family)
            packages.add(family.packages)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ours = pool.submit(renderer, limit_s)
        rest = [pool.submit(stepped, family, limit_s) for family in others]
        first = ours.result()
        return [first, *renderers(first), *(one.result() for one in rest)]


def renderer(limit_s: float) -> Finding:
    """A frame of the task, drawn in a child process."""
    from thinkslow.envs import rendering
    from thinkslow.envs.trial import tried

    if missing := rendering.missing_packages() if sys.platform == "linux" else []:
        found = f"missing Debian packages {', '.join(missing)}"
        return Finding("renderer", False, found, rendering.command(missing))
    trial = tried(TASK, limit_s)
    if trial.works:
        return Finding("renderer", True, trial.found)
    install = rendering.command([*rendering.OPENGL.values(), rendering.DRIVER_PACKAGE])
    remedy = f"{install}; if they are there, see docs/troubleshooting.md"
    return Finding("renderer", False, trial.found, remedy)


def renderers(first: Finding) -> list[Finding]:
    """The ways to render without a display. One that works is enough."""
    if sys.platform != "linux":
        return []
    from thinkslow.envs import rendering

    egl = all(map(rendering.loads, rendering.EGL))
    driver = "an NVIDIA driver" if rendering.loads(rendering.NVIDIA) else "Mesa"
    ways = [
        (
            "EGL",
            egl,
            f"by {driver}" if rendering.has_driver() else "no driver was found",
            f"libegl1 libgl1 {rendering.DRIVER_PACKAGE}",
        ),
        (
            "OSMesa",
            any(map(rendering.loads, rendering.OSMESA)),
            "for MuJoCo: MUJOCO_GL=osmesa",
            "libosmesa6",
        ),
        (
            "Xvfb",
            shutil.which("Xvfb") is not None,
            "a display in memory: xvfb-run thinkslow …",
            "xvfb",
        ),
    ]
    return [
        Finding(
            f"renderer {name}",
            there,
            found if there else "not installed",
            "" if there or first.ok else rendering.command([packages]),
            needed=False,
        )
        for name, there, found, packages in ways
    ]


def stepped(family: "Family", limit_s: float) -> Finding:
    """An example of a family, stepped in a child process."""
    from thinkslow.envs.requirements import how_to_install
    from thinkslow.envs.trial import tried

    what = f"family {family.name}"
    if not family.installed:
        return Finding(what, False, "not installed", how_to_install(family), needed=False)
    trial = tried(family.example, limit_s)
    if trial.works:
        return Finding(what, True, trial.found, needed=False)
    told, _, command = trial.found.partition("Install ")
    if command:  # what is missing names what installs it
        remedy = command.partition(": ")[2]
    elif trial.found.startswith("no step within"):
        remedy = f"give it longer: thinkslow doctor --limit {5 * limit_s:g}"
    else:
        remedy = f"see where: thinkslow train {family.example} --steps 1 --debug"
    return Finding(what, False, told.strip(), remedy, needed=False)


def disk(folder: Path) -> Finding:
    """Free disk space for records and runs."""
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
            found.append(Finding(what, True, f"{plural(size, 'parameter')}, sound", needed=needed))
    return found


def _show(findings: Sequence[Finding], works: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    terminal = output()
    table = Table("what", "state", "found")
    for one in findings:
        colour = "green" if one.ok else "red" if one.needed else "yellow"
        table.add_row(one.what, Text(one.state, style=colour), one.found)
    terminal.print(table)
    # On lines of their own, so that a command can be copied whole.
    for one in findings:
        if one.remedy:
            terminal.print(f"{one.what}: {one.remedy}", soft_wrap=True)
    terminal.print("`thinkslow demo` " + ("can run here." if works else "cannot run here."))


def _line(text: str) -> str:
    return " ".join(text.split())
