"""Which modules an environment may be made from.

An id `module:Name` and a wrapper `module:Class` are imported. The files of an agent may come from
anywhere, so a module that only they name is not imported, unless the user imported it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

_TRUSTED: set[str] = set()


class Stored(str):
    """A text from the files of an agent. It stays one in copies and in keyword arguments."""

    __slots__ = ()


def trust(module: str) -> None:
    """Let the files of agents name this module for their environments. `--import` does it.

    Args:
        module: its name, as in `module:Name`.
    """
    _TRUSTED.add(module)


def stored(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The description of an environment from the files of an agent, marked as such."""
    out = dict(environment)
    if isinstance(out.get("id"), str):
        out["id"] = Stored(out["id"])
    if "wrappers" in out:
        out["wrappers"] = [Stored(one) for one in out["wrappers"]]
    return out


def untrusted(names: Iterable[Any]) -> list[str]:
    """The names `module:Name` whose module the user has not imported."""
    texts = [one for one in names if isinstance(one, str) and ":" in one]
    return [one for one in texts if one.partition(":")[0] not in _TRUSTED]


def consented(making: Mapping[str, Any]) -> dict[str, Any]:
    """The description of an environment as the user's own, without marks.

    Args:
        making: arguments of `envs.make`.

    **Errors:** `ValueError` for a module that only the files of an agent name.
    """
    out, wrappers = dict(making), making.get("wrappers", ())
    if named := untrusted(x for x in (out.get("id"), *wrappers) if isinstance(x, Stored)):
        modules = ", ".join(sorted({one.partition(":")[0] for one in named}))
        raise ValueError(
            f"The agent's files ask to import {', '.join(one[:100] for one in named)} for its "
            "environment, which the files of an agent may not: they may come from anywhere. If you "
            f"know {modules}, call `thinkslow.envs.trust` with its name first, or write the "
            "environment yourself instead of `about.environment`."
        )
    if isinstance(out.get("id"), Stored):
        out["id"] = str(out["id"])
    if any(isinstance(one, Stored) for one in wrappers):
        out["wrappers"] = [str(one) for one in wrappers]
    return out
