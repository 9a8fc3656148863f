"""What wrote a file: versions of packages, and the revision of the source."""

import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """The versions and the git revision that write a file."""
    packages = ("thinkslow", "jax", "equinox", "numpy", "miniworld")
    return {
        "versions": {package: metadata.version(package) for package in packages},
        "revision": revision(),
    }


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
