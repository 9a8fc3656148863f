"""What an environment needs from this machine, and how to get what is missing.

Environments come in families, recognised by the start of their ids. A family is a Python
package to import and, for some, system libraries to draw with. Whatever is missing is
named, with the command that installs it, before the simulator is touched.
"""

import ctypes
import dataclasses
import difflib
import glob
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import gymnasium


class Unavailable(ValueError):
    """An environment that cannot be made here; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Environments that come from one Python package."""

    prefix: str
    """How the family's ids begin."""
    module: str
    """What to import so that Gymnasium knows the ids."""
    install: str
    """What pip has to install."""
    options: Callable[[int], dict[str, Any]] = lambda size: {}
    """Arguments that make the simulator itself draw at a given size."""
    opengl: bool = False
    """Whether it draws with OpenGL."""


FAMILIES = (
    Family("thinkslow/", "miniworld", "miniworld", lambda size: {"size": size}, opengl=True),
    Family(
        "MiniWorld-",
        "miniworld",
        "miniworld",
        lambda size: dict.fromkeys(
            ("obs_width", "obs_height", "window_width", "window_height"), size
        ),
        opengl=True,
    ),
    Family("ALE/", "ale_py", "ale-py"),
)

# The library that must load, and the Debian package that has it.
OPENGL = {
    "libEGL.so.1": "libegl1", "libGL.so.1": "libgl1", "libGLU.so.1": "libglu1-mesa",
    "libfreetype.so.6": "libfreetype6", "libfontconfig.so.1": "libfontconfig1",
}  # fmt: skip
# Where Mesa keeps its drivers. An NVIDIA driver serves as well and lies elsewhere.
DRIVER_PACKAGE = "libgl1-mesa-dri"
DRIVERS = ("/usr/lib/*/dri/*_dri.so", "/usr/lib*/dri/*_dri.so", "/usr/lib*/**/libgallium*.so")
NVIDIA = "libEGL_nvidia.so.0"


def prepare(id: str, *, size: int) -> dict[str, Any]:
    """Import what registers `id`, and say how to make it draw `size` × `size` images.

    Raises `Unavailable` if a package or a library is missing, or if nobody registered
    the id.
    """
    family = next((family for family in FAMILIES if id.startswith(family.prefix)), None)
    if family is not None:
        if importlib.util.find_spec(family.module) is None:
            raise Unavailable(
                f"{id} needs the Python package {family.module}, which is not installed here. "
                f"Install it: pip install {family.install}"
            )
        if family.opengl:
            require_opengl(id)
        importlib.import_module(family.module)
    require_registered(id)
    return {} if family is None else family.options(size)


def require_registered(id: str) -> None:
    """Raise `Unavailable`, with the nearest ids, unless Gymnasium knows `id`.

    Of `module:id`, the module is imported first: that registers the id.
    """
    module, _, name = id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        gymnasium.spec(name)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        near = difflib.get_close_matches(name, sorted(gymnasium.registry), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "No registered id is like it."
        raise Unavailable(
            f"There is no environment {id!r}. {hint} Environments of your own are reached as "
            "`module:id`, where importing the module registers the id."
        ) from error


def closest(task: str, *, count: int = 3) -> list[str]:
    """Registered ids whose names are like that of another project's task, likest first.

    >>> closest("gym_cartpole")[:2]
    ['CartPole-v0', 'CartPole-v1']
    """

    def bare(name: str) -> str:
        name = name.rpartition("/")[2].lower().replace("_", "")
        return name.rpartition("-v")[0] or name

    family, _, rest = task.partition("_")
    ids: dict[str, list[str]] = {}
    for id in sorted(gymnasium.registry):
        ids.setdefault(bare(id), []).append(id)
    wanted = (bare(task), bare(rest), bare(family))
    near = [name for want in wanted for name in difflib.get_close_matches(want, ids, cutoff=0.75)]
    return [id for name in dict.fromkeys(near) for id in ids[name]][:count]


def require_opengl(id: str) -> None:
    """Set up drawing without a display; raise `Unavailable` if a library is missing.

    Must run before anything imports miniworld: pyglet reads its options once.
    """
    if sys.platform != "linux":
        return
    missing = missing_packages()
    if missing:
        raise Unavailable(no_renderer(id, missing))
    import pyglet

    pyglet.options["headless"] = True
    pyglet.options["debug_gl"] = False  # an error check per call costs a quarter of the speed


def missing_packages() -> list[str]:
    """The Debian packages that drawing needs and this machine lacks.

    The driver counts only beside a missing library: where a driver lies differs between
    systems, so that not finding one is no proof by itself.
    """
    missing = [package for library, package in OPENGL.items() if not loads(library)]
    return [*missing, DRIVER_PACKAGE] if missing and not has_driver() else missing


def has_driver() -> bool:
    """Whether a driver for EGL is found at one of the usual places."""
    return any(glob.glob(pattern) for pattern in DRIVERS) or loads(NVIDIA)


def failure(id: str, error: Exception) -> str | None:
    """The message for an environment that failed while it was being made; None if there is
    nothing to add to the simulator's own words."""
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        return f"{id} needs a package that is not installed here. {error}"
    if any(family.opengl and id.startswith(family.prefix) for family in FAMILIES):
        return (
            f"{id} could not open a renderer here ({type(error).__name__}: {error}). "
            "`thinkslow doctor` tries each step of drawing and says how to mend it."
        )
    return None


def no_renderer(id: str, packages: list[str]) -> str:
    """The message for a machine that lacks Debian packages to draw with."""
    return (
        f"{id} draws with OpenGL and this machine lacks {', '.join(packages)}. "
        f"Install on Debian or Ubuntu: sudo apt-get install -y {' '.join(packages)}"
    )


def loads(library: str) -> bool:
    """Whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
