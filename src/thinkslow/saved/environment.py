"""The environment of a saved agent, as its manifest gives it. Nothing here needs JAX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from thinkslow.consent import untrusted
from thinkslow.saved.manifest import described
from thinkslow.storage import store
from thinkslow.storage.faults import line, shown


@runtime_checkable
class Trained(Protocol):
    """An agent that says its name and the environment that it was trained on."""

    @property
    def name(self) -> str: ...

    @property
    def environment(self) -> dict[str, Any]: ...


class Facts(NamedTuple):
    """An agent of which only the manifest was read."""

    name: str
    environment: dict[str, Any]


def facts(folder: Path) -> Facts:
    """The name and the environment of an agent folder. Its weights are not read.

    **Errors:** `store.Missing`, `store.Damaged`.
    """
    manifest = store.read_manifest(folder)
    described(manifest, folder)
    return Facts(manifest["name"], manifest["environment"])


def environment_of(
    agent: Trained, id: str | None = None, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The environment that an agent will play, without modules that only its files name.

    An id `module:Name` and a wrapper `module:Class` are imported. The files of an agent may come
    from anywhere, so only the user may name a module, here or by `--import`.

    Args:
        agent: the agent, whole or as its manifest describes it.
        id: the environment that the user asks for; None: the one that the agent was trained on.
        changes: other settings from the user, such as `wrappers` and `options`.

    Returns: The stored description with these changes; `options` are merged. Its `id` is None if
        neither gives one.

    **Errors:** `ValueError` with the remedy if the agent's files name a module.
    """
    stored = dict(agent.environment)
    # Options and wrappers belong to the stored environment.
    if id is not None and id != stored["id"]:
        stored = {"id": id, "size": stored["size"], "repeat": stored["repeat"]}
    asked = {} if id is None else {"id": id}  # the user's own word, also if it is the stored id
    environment = {**stored, **asked, **(changes or {})}
    if stored.get("options") and environment["options"] is not stored["options"]:
        environment["options"] = {**stored["options"], **environment["options"]}
    flags: dict[str, str] = {}
    if id is None:
        flags |= dict.fromkeys(untrusted([environment["id"]]), "environment")
    if not (changes or {}).get("wrappers"):
        flags |= dict.fromkeys(untrusted(stored.get("wrappers", ())), "wrappers")
    if flags:
        raise ValueError(
            f"{agent.name} asks to import {shown(next(iter(flags)))} for its environment, which "
            "the files of an agent may not: they may come from anywhere. If you know the module, "
            f"pass {' '.join(f'`{flag}={line(name, 100)}`' for name, flag in flags.items())}"
        )
    return environment
