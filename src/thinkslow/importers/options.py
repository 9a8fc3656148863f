"""The configuration beside a checkpoint: YAML of the few kinds that these projects write.

Text, whole numbers, other numbers, yes or no, nothing, lists and mappings: that is all. Aliases,
merges, tags, dates, numbers in sixties and documents behind the first are refused or stay text,
because each of them lets a small file become a large one or something that is no JSON. What is
not finite stays text too, and no number accepts it.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from thinkslow.importers.foreign import Found
from thinkslow.storage.faults import Damaged, shown
from thinkslow.storage.reading import read_bounded

LARGEST = 2**18
"""Bytes of a configuration file; real ones have 10,000."""
MOST_NODES = 20_000
"""Values of one file; real ones have 500."""
DEEPEST = 32
"""Lists and mappings inside each other; real ones have six."""

_NUMBER = re.compile(r"[-+]?(\d[\d_]*)?\.?\d+([eE][-+]?\d+)?|[-+]?\d[\d_]*\.([eE][-+]?\d+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Options:
    """A source's configuration, or its defaults where no file was found.

    With a file, an option without a default must be in it.
    """

    def __init__(self, found: Found):
        self.file = found.config
        self.data = read_options(found.config) if found.config else {}

    def __call__(self, path: str, kind: type, default: Any) -> Any:
        """The option, which is `default` where there is no file.

        **Errors:** `Damaged` naming the option.
        """
        return option(self.data, path, kind, default if self.file is None else None)

    def maybe(self, path: str, kind: type, default: Any) -> Any:
        """The option, which is `default` where it is missing."""
        return option(self.data, path, kind, default)

    def names(self, path: str) -> tuple[str, ...]:
        """A list of names, each once; empty where it is missing.

        **Errors:** `Damaged` naming the option.
        """
        given = self.maybe(path, list, [])
        if not all(isinstance(name, str) and name for name in given) or (
            len(set(given)) != len(given)
        ):
            raise Damaged(
                f"`{path}` of {self.file} must be a list of names, each once; it is {shown(given)}."
            )
        return tuple(given)

    def require(self, known: Mapping[str, Any]) -> None:
        """That options which change what weights mean are those that are known here.

        **Errors:** `Damaged` naming the first that is not.
        """
        for path, value in known.items():
            if (given := option(self.data, path, type(value), value)) != value:
                raise Damaged(
                    f"`{path}` of {self.file} must be {value!r}, which is all that is known here; "
                    f"it is {shown(given)}."
                )

    def classes(self, path: str, given: int | None, found: Found) -> int:
        """Classes of the latent, which no shape tells.

        **Errors:** `FileNotFoundError` where nothing does.
        """
        if given is not None:
            return given
        if self.file is None:
            name = path.rpartition(".")[2]
            raise FileNotFoundError(
                f"{found.file} does not say how many classes its latent has, and its configuration "
                f"is not beside it. Give the whole log folder, or pass `{name}` of its training: "
                "`classes=N`."
            )
        return option(self.data, path, int)


def read_options(path: Path) -> dict[str, Any]:
    """A YAML configuration, as JSON could hold it.

    Args:
        path: The file, of at most `LARGEST` bytes.

    **Errors:** `FileNotFoundError`; `Damaged` for anything but the kinds that this module names.
    """
    data = read_bounded(path, LARGEST, "a configuration")
    try:
        options = _parsed(data.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:
        raise Damaged(f"{path} is not YAML of a configuration: {error}.") from None
    if not isinstance(options, dict):
        raise Damaged(f"{path} is no configuration: it has no keys.")
    return options


def option(options: Mapping[str, Any], path: str, kind: type, default: Any = None) -> Any:
    """The value at `a.b.c`, references such as `${x.y}` followed, as `kind`.

    Numbers in quotes become numbers. Without a default the option must be there.

    Args:
        options: What `read_options` gave.
        path: Names from the outside in, joined by dots.
        kind: The type that it must have.
        default: What it is where it is missing; None: it must not be missing.

    **Errors:** `Damaged` naming the option.

    >>> option({"a": {"b": "${c}"}, "c": "1e-3"}, "a.b", float)
    0.001
    """
    value: Any = f"${{{path}}}"
    for _ in range(8):
        if not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
            break
        at: Any = options
        for key in value[2:-1].split("."):
            at = at.get(key) if isinstance(at, Mapping) else None
        value = at
    if value is None and default is not None:
        return default
    if kind in (int, float) and isinstance(value, int | float | str) and type(value) is not bool:
        try:
            number = float(value)
            if math.isfinite(number) and kind(number) == number:
                return kind(number)
        except (ValueError, OverflowError):
            pass
    elif isinstance(value, kind):
        return value
    raise Damaged(f"The configuration says `{path}` is {shown(value)}, expected {kind.__name__}.")


def _parsed(text: str) -> Any:
    """What the text says, built from the parser's events: without recursion, and counted.

    **Errors:** `ValueError`, `yaml.YAMLError`.
    """
    documents: list[Any] = []
    stack: list[tuple[Any, list[str]]] = []  # a list or mapping, and the key that waits
    for count, event in enumerate(_events(text)):
        if count > MOST_NODES:
            raise ValueError(f"it has over {MOST_NODES:,} values")
        if isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
            continue
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
        else:
            value = {}
        top, waiting = stack[-1] if stack else (documents, [])
        if isinstance(top, list):
            if top is documents and documents:
                raise ValueError("it has more than one document")
            top.append(value)
        elif waiting:
            top[waiting.pop()] = value
        elif not isinstance(event, yaml.ScalarEvent):
            raise ValueError("it has a list or a mapping for a name")
        elif event.value in top:
            raise ValueError(f"it gives {shown(event.value)} twice")
        elif event.value == "<<":
            raise ValueError("it merges mappings (<<)")
        else:
            waiting.append(event.value)
            continue
        if isinstance(value, list | dict):
            stack.append((value, []))
            if len(stack) > DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST}")
    return documents[0] if documents else None


def _events(text: str) -> Iterator[yaml.Event]:
    """The parser's events that are values. **Errors:** `ValueError` for aliases and tags."""
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias (*{shown(event.anchor, 40)})")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in (None, "!"):
            raise ValueError(f"it has a tag ({shown(event.tag, 60)})")  # pyright: ignore
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            yield event


def _scalar(event: yaml.ScalarEvent) -> Any:
    """Plain words and numbers are what they look like; whatever is in quotes is text."""
    text = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 40 or not _NUMBER.fullmatch(text):
        return text
    if re.fullmatch(r"[-+]?\d[\d_]*", text):
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else text
