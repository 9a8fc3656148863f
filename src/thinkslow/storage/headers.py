"""The settings that a folder of records was begun with, as one JSON file.

Another process reads them, and continues with the same settings or refuses. A header is a frozen
dataclass of plain values.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from thinkslow.storage import atomic, jsontext, reading
from thinkslow.storage.faults import Damaged
from thinkslow.storage.typed import built

Header = TypeVar("Header")


RESULTS = {
    "evaluation.json": "evaluate",
    "study.json": "study",
    "bank.json": "bank",
    "moments.jsonl": "gap",
}
"""Commands by a file that their results have."""
KINDS = {
    "metrics.jsonl": "a training run",
    "weights.safetensors": "an agent",
    **{file: f"a result of `thinkslow {command}`" for file, command in RESULTS.items()},
}
"""A file by which each kind of folder is recognised, and what the folder then holds."""


class Occupied(ValueError):
    """The folder holds other records, or these are finished."""


def refuse_other(folder: Path, own: str) -> None:
    """Check that no other kind of result is in a folder: it would refuse to continue there.

    Args:
        folder: the folder.
        own: the file of `KINDS` of what is to be written.

    **Errors:** `Occupied`.
    """
    for name, what in KINDS.items():
        if name != own and (folder / name).exists():
            raise Occupied(f"{folder} holds {name}, of {what}. Give another folder.")


def write(path: Path, header: Any, *, format: int) -> None:
    write_json(path, dataclasses.asdict(header), format=format)


def write_json(path: Path, content: Mapping[str, Any], *, format: int) -> None:
    atomic.write_text(path, jsontext.dumps({"format": format, **content}, indent=1) + "\n")


def read(path: Path, kind: type[Header], *, format: int, again: str) -> Header:
    """The header in a file.

    Args:
        path: the file.
        kind: the class of the header.
        format: the only version that is read.
        again: the remedy for a damaged file, as a sentence.

    **Errors:** `Damaged` for another version, or a file that is not what was written.
    """
    content = read_json(path, format=format, again=again)
    del content["format"]
    try:
        return built(kind, content)
    except (TypeError, ValueError) as error:
        raise Damaged(f"{path}: {str(error).rstrip('.')}. {again}") from error


def read_json(path: Path, *, format: int, again: str) -> dict[str, Any]:
    """The content of a file that `write_json` wrote; arguments and errors as for `read`."""
    content = reading.read_json(path, "a header", again=again)
    if not isinstance(content, dict) or content.get("format") != format:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise Damaged(f"{path} must be of format {format}; got {found!r}. {again}")
    return content


def as_read(header: Header) -> Header:
    """The header in the form that `read` returns: with lists instead of tuples."""
    plain = dataclasses.asdict(header)  # pyright: ignore[reportArgumentType]
    return type(header)(**json.loads(jsontext.dumps(plain)))


def differences(ours: Any, theirs: Any, *, apart: Collection[str] = ()) -> list[str]:
    """The settings in which two headers differ, each as a clause.

    Args:
        ours: the header of the folder.
        theirs: the header of what would continue it.
        apart: the names of fields that may differ.
    """
    return [
        _difference(field.name, getattr(ours, field.name), getattr(theirs, field.name))
        for field in dataclasses.fields(ours)
        if field.name not in apart and getattr(ours, field.name) != getattr(theirs, field.name)
    ]


def unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The facts in which two mappings differ, each as a clause.

    >>> unlike({"jax": "0.10.1", "numpy": "2.4"}, {"jax": "0.10.2", "numpy": "2.4"})
    ['jax is 0.10.1, not 0.10.2']
    """
    return [
        f"{fact} is {ours.get(fact)}, not {theirs.get(fact)}"
        for fact in {**ours, **theirs}
        if ours.get(fact) != theirs.get(fact)
    ]


def _difference(name: str, ours: Any, theirs: Any) -> str:
    """One setting. Lists are facts of agents or of arms, which have names."""
    if isinstance(ours, Mapping):
        verb = "differ" if name.endswith("s") else "differs"
        return f"its {name} {verb} ({', '.join(unlike(ours, theirs))})"
    if isinstance(ours, list):
        key = "arm" if name == "arms" else "name"
        old, new = ([one.get(key) for one in x] for x in (ours, theirs))
        if old != new:
            return f"its {name} are {', '.join(map(str, old))}, not {', '.join(map(str, new))}"
        changed = [
            f"{fact} of {mine[key]}"
            for mine, other in zip(ours, theirs, strict=True)
            for fact in {**mine, **other}
            if mine.get(fact) != other.get(fact)
        ]
        return f"its {name} differ ({', '.join(changed)})"
    return f"its {name.replace('_', '-')} is {ours}, not {theirs}"
