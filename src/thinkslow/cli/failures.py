"""What a command says of an exception: one line with the cause, where it is, and a remedy."""

import errno
import os
import re

from thinkslow.cli.places import place_of
from thinkslow.storage.faults import line

EXHAUSTED = re.compile("RESOURCE_EXHAUSTED|out of memory", re.IGNORECASE)
"""What JAX says where a device has no memory left."""

STRICT = (
    "JAX_DEBUG_NANS",
    "JAX_DEBUG_INFS",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_NUMPY_RANK_PROMOTION",
    "JAX_TRANSFER_GUARD",
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE",
    "JAX_TRANSFER_GUARD_DEVICE_TO_HOST",
    "JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE",
    "JAX_CHECK_TRACER_LEAKS",
)
"""Variables that let JAX refuse what is right elsewhere: an unknown number is NaN here."""
USUAL = ("", "0", "false", "off", "no", "f", "n", "standard", "allow")
"""Their values that let JAX refuse nothing more."""


def one_line(error: Exception) -> str:
    """The message of an expected error; an unexpected one is named and points at --debug."""
    text = " ".join(str(error).split())
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    said = type(error).__module__ == "thinkslow.storage.atomic"  # its message names the file
    if full and not said:
        return (
            f"The disk is full ({text}). What was saved before is untouched. Free some space and "
            "run the command again."
        )
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        if error.filename is None:
            return error.strerror
        place = " and ".join(str(one) for one in (error.filename, error.filename2) if one)
        barred = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        other = ", or allow access to this one" if barred else ""
        return f"{place}: {error.strerror}. Give another path{other}."
    by_jax = type(error).__module__.startswith("jax")
    if isinstance(error, MemoryError) or (by_jax and EXHAUSTED.search(text)):
        said = line(text, 200) or "for Python"
        return (
            f"There is not enough memory ({said}). Compute less at once: fewer episodes in "
            "parallel (--batch), smaller batches of training (--learning.batch-size, "
            "--learning.imagination-starts), fewer samples of an arm. On a GPU, another process "
            "may hold its memory (nvidia-smi)."
        )
    asked = os.environ.get("JAX_PLATFORMS")
    kinds = (AssertionError, RuntimeError)
    if asked and isinstance(error, kinds) and _raised_by(error).endswith("xla_bridge.py"):
        return (
            f"JAX found no device of JAX_PLATFORMS={asked}. Unset the variable to compute on what "
            "there is, or install JAX for that device; `thinkslow doctor` shows what it finds."
        )
    text = text.partition(" -------------------- For simplicity, JAX")[0]  # its note on tracebacks
    expected = (ValueError, OSError, RuntimeError)
    if isinstance(error, expected) and text and not by_jax:
        place = place_of(error, deepest=True)
        return f"{text.rstrip('.')} ({place})." if place else text
    place = place_of(error)
    at = f" ({place})" if place else ""
    said = f"{type(error).__name__}: {text.rstrip('.') or 'no message'}{at}."
    strict = [f"{name}={os.environ[name]}" for name in STRICT if _is_strict(name)]
    if strict and (by_jax or isinstance(error, FloatingPointError)):
        said += f" JAX may refuse this because of {', '.join(strict)}: unset it, or"
        return f"{said} pass --debug for the traceback."
    return f"{said} Pass --debug for the traceback."


def _raised_by(error: Exception) -> str:
    """The file in which an exception was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_code.co_filename


def _is_strict(name: str) -> bool:
    return os.environ.get(name, "").lower() not in USUAL
