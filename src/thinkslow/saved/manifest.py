"""Check the facts of a manifest, without building the agent and without JAX."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from thinkslow import registry
from thinkslow.settings import MOST_REPEAT, MOST_SIZE
from thinkslow.spaces import Space
from thinkslow.storage.faults import Damaged, line, shown

LONGEST_NAME = 200
"""Largest number of characters of a name."""
LONGEST_TEXT = 2000
"""Largest number of characters of a sentence."""
MOST_SPACES = 256
"""Largest number of observations, and of actions."""
DTYPES = frozenset(
    {
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    }
)
"""What a number of an observation or an action may be."""

Spaces = dict[str, Space]


@dataclasses.dataclass(frozen=True)
class Described:
    """The description of an agent in its manifest."""

    config: Any
    """Its sizes; their class is the architecture."""
    observations: Spaces
    actions: Spaces


def described(manifest: Mapping[str, Any], folder: Path) -> Described:
    """The sizes and spaces of an agent. Every fact that commands use is checked.

    Args:
        manifest: the result of `store.read_manifest`.
        folder: its folder, for messages.

    **Errors:** `Damaged` naming the missing or impossible fact.
    """
    if "counters" in manifest:
        raise Damaged(
            f"{folder} is the state of a training run, not an agent. "
            "Agents are in RUN/agents/STEPS."
        )
    profile = manifest.get("architecture")
    known = registry.find("architecture", profile) if isinstance(profile, str) else None
    if known is None:
        raise Damaged(
            f"This version reads agents of architecture "
            f"{' or '.join(registry.entries('architecture'))}; {folder} is {shown(profile)}. "
            "Upgrade thinkslow, or import the module that registers it (--import MODULE)."
        )
    try:
        _check(manifest)
        config = known.load().from_json(manifest["model"])
        observations, actions = (_spaces(manifest, part) for part in ("observations", "actions"))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise Damaged(f"{folder}/manifest.json does not describe an agent: {why}") from error
    return Described(config, observations, actions)


def _spaces(manifest: Mapping[str, Any], part: str) -> Spaces:
    given = manifest[part]
    if not isinstance(given, dict) or not 1 <= len(given) <= MOST_SPACES:
        raise ValueError(f"`{part}` must be 1 to {MOST_SPACES} spaces by name.")
    for name, data in given.items():
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise ValueError(
                f"a name in `{part}` must be 1 to {LONGEST_NAME} letters that can be printed; got "
                f"{shown(name)}."
            )
        sides, classes = data["shape"], data["classes"]
        if (
            not isinstance(sides, list)
            or len(sides) > 4
            or not all(type(side) is int and 1 <= side <= 2**20 for side in sides)
        ):
            raise ValueError(f"the shape of {shown(name)} cannot be {shown(sides)}.")
        if not isinstance(data["dtype"], str) or data["dtype"] not in DTYPES:
            raise ValueError(f"the dtype of {shown(name)} cannot be {shown(data['dtype'])}.")
        if classes is not None and not (type(classes) is int and 1 <= classes <= 2**20):
            raise ValueError(f"the number of classes of {shown(name)} cannot be {shown(classes)}.")
    return {name: Space.from_json(data) for name, data in given.items()}


def _check(manifest: Mapping[str, Any]) -> None:
    """**Errors:** `ValueError` for what is missing or cannot be, `KeyError`, `TypeError`."""
    parts = {
        "environment": ("id", "size", "repeat"),
        "training": ("steps", "seed", "preset"),
    }
    for part, keys in {"": ("name", "model", *parts), **parts}.items():
        inside = manifest[part] if part else manifest
        if not isinstance(inside, dict):
            raise ValueError(f"`{part}` must be a mapping; got {shown(inside)}.")
        absent = [key for key in keys if key not in inside]
        if absent:
            raise ValueError(f"{f'its {part}' if part else 'it'} lacks {', '.join(absent)}.")
    if not isinstance(manifest["model"], dict):
        raise ValueError(f"`model` must be a mapping; got {shown(manifest['model'])}.")
    name = manifest["name"]
    if not isinstance(name, str) or name != Path(name).name or name in ("", ".", ".."):
        raise ValueError(f"its name must be one that a file can have; got {shown(name)}.")
    _name("its name", name)
    environment, training = manifest["environment"], manifest["training"]
    for value in (environment["id"], environment.get("task"), training["preset"]):
        if value is not None:
            _text("an environment or a preset", value, LONGEST_NAME)
    for key in ("wrappers", "image"):
        _sentences(f"`environment.{key}`", environment.get(key, []))
    _mapping("`environment.options`", environment.get("options", {}))
    _whole("`environment.size`", environment["size"], least=1, most=MOST_SIZE)
    _whole("`environment.repeat`", environment["repeat"], least=1, most=MOST_REPEAT)
    if training["steps"] is not None:
        _whole("`training.steps`", training["steps"], least=0, most=2**60)
    if training["seed"] is not None:
        _whole("`training.seed`", training["seed"], least=-(2**63), most=2**64)
    if (returns := training.get("returns")) is not None:
        _range("`training.returns`", returns)
    for key, check in _OPTIONAL.items():
        if key in manifest:
            check(f"`{key}`", manifest[key])


def _name(what: str, value: Any) -> None:
    if not isinstance(value, str) or not value or line(value, LONGEST_NAME) != value:
        raise ValueError(
            f"{what} must be up to {LONGEST_NAME} letters that can be printed; got {shown(value)}."
        )


def _text(what: str, value: Any, most: int = LONGEST_TEXT) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise ValueError(f"{what} must be text of up to {most} letters; got {shown(value)}.")


def _whole(what: str, value: Any, *, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"{what} must be a whole number from {least} to {most}; got {shown(value)}."
        )


def _range(what: str, value: Any) -> None:
    ends = [value.get(key) for key in ("low", "high")] if isinstance(value, dict) else []
    if not ends or not all(
        isinstance(end, int | float) and type(end) is not bool and -1e30 < end < 1e30
        for end in ends
    ):
        raise ValueError(f"{what} must have numbers `low` and `high`; got {shown(value)}.")


def _texts(what: str, value: Any) -> None:
    """A mapping from names to sentences."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping; got {shown(value)}.")
    for key, text in value.items():
        _name(f"a name in {what}", key)
        _text(f"{shown(key)} in {what}", text)


def _conventions(what: str, value: Any) -> None:
    _texts(what, value)
    for key, known in {"action": ("sample", "mode"), "logits": ("raw", "mixed")}.items():
        if value.get(key, known[0]) not in known:
            raise ValueError(
                f"{what} of {key} must be {' or '.join(known)}; got {shown(value[key])}."
            )


def _source(what: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping; got {shown(value)}.")
    for key in ("format", "project", "file"):
        _text(f"{what} `{key}`", value.get(key))
    if value.get("config") is not None:
        _text(f"{what} `config`", value["config"])
    if not isinstance(value.get("options", {}), dict):
        raise ValueError(f"{what} `options` must be a mapping.")


def _sentences(what: str, value: Any) -> None:
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list; got {shown(value)}.")
    for text in value:
        _text(what, text)


def _counts(what: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping; got {shown(value)}.")
    for key, count in value.items():
        _text(f"a name in {what}", key)
        _whole(f"{what} of {shown(key)}", count, least=0, most=2**60)


def _mapping(what: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping; got {shown(value)}.")


_OPTIONAL: dict[str, Callable[[str, Any], None]] = {
    "conventions": _conventions,
    "cannot": _texts,
    "source": _source,
    "assumed": _sentences,
    "nonfinite": _counts,
    "ensemble": _mapping,
    "versions": _texts,
}
"""Check the facts that not every agent has."""
