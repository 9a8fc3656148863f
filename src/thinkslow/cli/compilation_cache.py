"""A cache of compiled programs, so that the second start of a command does not compile again.

The folder is `thinkslow/jax` in the user's cache ($XDG_CACHE_HOME, or ~/.cache).
THINKSLOW_CACHE=off disables it. If JAX_COMPILATION_CACHE_DIR is set, JAX's own variables apply and
this module does nothing. JAX reads the variables at import, so call `enable` before.
"""

import contextlib
import os
import warnings
from pathlib import Path

LEAST_SECONDS = 0.0
"""Programs that compile faster than this, in seconds, are not kept. To read the smallest takes a
tenth of compiling it."""
MOST_BYTES = 2**30
"""Largest size of the cache; above it, the oldest programs are removed."""


def folder() -> Path | None:
    """The folder of compiled programs; None if none are kept.

    **Errors:** `ValueError` for another THINKSLOW_CACHE than `off`.
    """
    asked = os.environ.get("THINKSLOW_CACHE", "")
    if asked not in ("", "off"):
        raise ValueError(
            f"THINKSLOW_CACHE must be off or unset; got {asked!r}. To keep compiled programs in "
            "another folder, set JAX_COMPILATION_CACHE_DIR."
        )
    if (theirs := os.environ.get("JAX_COMPILATION_CACHE_DIR")) is not None:
        return Path(theirs) if theirs else None
    if asked == "off":
        return None
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with contextlib.suppress(RuntimeError):  # no home folder
        return (base if base.is_absolute() else Path.home() / ".cache") / "thinkslow" / "jax"
    return None


def enable() -> None:
    """Let JAX keep compiled programs, in this process and in its child processes.

    A folder that cannot be written is not an error: every start then compiles.

    **Errors:** those of `folder`.
    """
    kept = folder()
    if kept is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        kept.mkdir(parents=True, exist_ok=True)
        prune(kept, MOST_BYTES)
    except OSError:
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(kept)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(LEAST_SECONDS))
    # If a killed process left a program half written, JAX warns and compiles it again.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def prune(folder: Path, most: int) -> None:
    """Remove the oldest files of a folder until at most `most` bytes are left."""
    files = sorted(
        (
            (entry.stat().st_mtime, entry.stat().st_size, entry.path)
            for entry in os.scandir(folder)
            if entry.is_file()
        ),
        reverse=True,
    )
    total = 0
    for _, size, path in files:
        total += size
        if total > most:
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                os.unlink(path)
