"""What wrote a file: versions of packages, and the revision of the source."""

import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

USUAL = {
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_default_matmul_precision": None,
}
"""JAX's settings that change numbers or random draws, and their usual values."""

PLACES = ("xla_dump", "xla_gpu_cuda_data_dir")
"""Beginnings of XLA's flags that name folders of a machine and change no number."""


def provenance() -> dict[str, Any]:
    """The versions and the git revision that write a file. Settings of JAX and XLA that change
    numbers are with the versions.
    """
    packages = ("thinkslow", "jax", "equinox", "numpy", "miniworld")
    versions = {package: metadata.version(package) for package in packages}
    return {
        "versions": versions | _unusual(),
        "revision": revision(),
    }


def _unusual() -> dict[str, str]:
    """JAX's settings that are not the usual ones, such as by JAX_ENABLE_X64=1, by name, and what
    the user asks of XLA, such as --xla_cpu_enable_fast_math=true.
    """
    import jax  # slow, and not needed to ask for the revision

    now = {name: getattr(jax.config, name, usual) for name, usual in USUAL.items()}
    found = {name: str(value) for name, value in now.items() if value != USUAL[name]}
    asked = os.environ.get("XLA_FLAGS", "").split()
    flags = " ".join(flag for flag in asked if not flag.lstrip("-").startswith(PLACES))
    return found | ({"XLA_FLAGS": flags} if flags else {})


def revision() -> str | None:
    """The git revision of the source, with `+` if there are uncommitted changes; None outside
    git.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str:
        # Without locks, so that a commit by the user at the same moment does not fail.
        command = ["git", "--no-optional-locks", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed copy is not the source
        return git("describe", "--always", "--dirty=+", "--exclude", "*")
    except (OSError, subprocess.CalledProcessError):
        return None
