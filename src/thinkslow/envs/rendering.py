"""Choose and set the renderer before any simulator is imported.

MiniWorld renders with OpenGL through pyglet, DeepMind Control and Memory Maze through MuJoCo.
Without a display both render into memory, by EGL (on a GPU, or Mesa on the CPU); MuJoCo also by
OSMesa, on the CPU. Missing libraries are named, with the command that installs them.
"""

import ctypes
import glob
import os
import sys
from collections.abc import Callable

# The library that must load, and the Debian package that has it.
OPENGL = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLU.so.1": "libglu1-mesa",
    "libfreetype.so.6": "libfreetype6",
    "libfontconfig.so.1": "libfontconfig1",
}
EGL, OSMESA = ("libEGL.so.1", "libGL.so.1"), ("libOSMesa.so.8", "libOSMesa.so.6")
# Where Mesa stores its drivers. An NVIDIA driver also works and is stored elsewhere.
DRIVER_PACKAGE = "libgl1-mesa-dri"
DRIVERS = ("/usr/lib/*/dri/*_dri.so", "/usr/lib*/dri/*_dri.so", "/usr/lib*/**/libgallium*.so")
NVIDIA = "libEGL_nvidia.so.0"
WITHOUT_DISPLAY = "without a display, by"


class Missing(Exception):
    """Debian packages that rendering needs are missing; `packages` names them."""

    def __init__(self, packages: list[str]):
        super().__init__(", ".join(packages))
        self.packages = packages


def pyglet() -> str:
    """Choose pyglet's renderer, and return it as text.

    Call it before anything imports miniworld, because pyglet reads its options once. Without EGL it
    renders on a display, such as that of `xvfb-run`, if there is one.

    **Errors:** `Missing` if a library is missing.
    """
    import pyglet as library

    # A small image is one tile for Mesa, which renders it faster without a second thread.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    library.options["debug_gl"] = False  # an error check per call costs a quarter of the speed
    if sys.platform != "linux":
        return "on the screen"
    missing = missing_packages()
    if not missing:
        library.options["headless"] = True
        return f"{WITHOUT_DISPLAY} EGL"
    if missing == [OPENGL[EGL[0]]] and os.environ.get("DISPLAY"):
        return f"on the display {os.environ['DISPLAY']}"
    raise Missing(missing)


def mujoco() -> str:
    """Choose MuJoCo's renderer by MUJOCO_GL, and return it as text. A value set by the user is
    kept.

    Call it before dm_control is imported.

    **Errors:** `Missing` if there is no renderer.
    """
    if sys.platform != "linux":
        return "on the screen"
    if "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = _for_mujoco()
    chosen = os.environ["MUJOCO_GL"]
    names = {"egl": "EGL", "osmesa": "OSMesa"}
    if chosen not in names:
        return f"as MUJOCO_GL={chosen} says"
    return f"{WITHOUT_DISPLAY} {names[chosen]}"


def _for_mujoco() -> str:
    if all(map(loads, EGL)):
        return "egl"
    if any(map(loads, OSMESA)):
        return "osmesa"
    if os.environ.get("DISPLAY"):
        return "glfw"
    raise Missing([*(OPENGL[name] for name in EGL if not loads(name)), DRIVER_PACKAGE])


RENDERERS: dict[str, Callable[[], str]] = {"pyglet": pyglet, "mujoco": mujoco}
"""By renderer, the function that chooses it and returns a description."""


def missing_packages() -> list[str]:
    """The Debian packages that pyglet needs to render and that this machine lacks.

    A missing driver is reported only together with a missing library: its path differs between
    systems, so it may exist although it is not found.
    """
    missing = [package for library, package in OPENGL.items() if not loads(library)]
    return [*missing, DRIVER_PACKAGE] if missing and not has_driver() else missing


def has_driver() -> bool:
    """Whether a driver for EGL is found at one of the usual places."""
    return any(glob.glob(pattern) for pattern in DRIVERS) or loads(NVIDIA)


def command(packages: list[str]) -> str:
    """The command that installs Debian packages."""
    return f"sudo apt-get install -y {' '.join(packages)}"


def loads(library: str) -> bool:
    """Whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
