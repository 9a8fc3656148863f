"""Reader for the configuration of a checkpoint: the part of YAML that these projects write.

It accepts text, integers, floats, booleans, null, lists and mappings. Aliases, merges, tags, dates,
base-60 numbers and further documents are refused or stay text: with them a small file can become a
large one, or something that is not JSON. Non-finite numbers also stay text, and no number option
accepts them.
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
"""Largest size of a configuration file, in bytes; real ones have 10,000."""
MOST_NODES = 20_000
"""Largest number of values in one file; real ones have 500."""
DEEPEST = 32
"""Largest nesting of lists and mappings; real files have six levels."""

_NUMBER = re.compile(r"[-+]?(\d[\d_]*)?\.?\d+([eE][-+]?\d+)?|[-+]?\d[\d_]*\.([eE][-+]?\d+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Options:
    """A project's configuration, or its defaults if no file was found.

    If there is a file, it must contain every option that has no default.
    """

    def __init__(self, found: Found):
        self.file = found.config
        self.data = read_options(found.config) if found.config else {}

    def __call__(self, path: str, kind: type, default: Any) -> Any:
        """The option; `default` if there is no file.

        **Errors:** `Damaged` naming the option.
        """
        return option(self.data, path, kind, default if self.file is None else None)

    def maybe(self, path: str, kind: type, default: Any) -> Any:
        """The option; `default` if it is missing."""
        return option(self.data, path, kind, default)

    def names(self, path: str) -> tuple[str, ...]:
        """A list of distinct names; empty if it is missing.

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
        """Check the options that change the meaning of the weights: each must have its supported
        value.

        **Errors:** `Damaged` naming the first option that has another value.
        """
        for path, value in known.items():
            if (given := option(self.data, path, type(value), value)) != value:
                raise Damaged(
                    f"`{path}` of {self.file} must be {value!r}, which is all that is known here; "
                    f"it is {shown(given)}."
                )

    def classes(self, path: str, given: int | None, found: Found) -> int:
        """The classes of the latent, which no shape determines.

        **Errors:** `FileNotFoundError` if neither the configuration nor the caller gives them.
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
    """A YAML configuration, as values that JSON can hold.

    Args:
        path: the file, of at most `LARGEST` bytes.

    **Errors:** `FileNotFoundError`; `Damaged` for anything that this module does not accept.
    """
    data = read_bounded(path, LARGEST, "a configuration")
    try:
        options = _parsed(data.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:
        raise Damaged(
            f"{path} is not YAML of a configuration: {error}. Restore it as its project wrote it."
        ) from None
    if not isinstance(options, dict):
        raise Damaged(f"{path} is no configuration: it has no keys.")
    return options


def option(options: Mapping[str, Any], path: str, kind: type, default: Any = None) -> Any:
    """The value at `a.b.c` as `kind`. References such as `${x.y}` are followed.

    Numbers in quotes become numbers. Without a default the option is required.

    Args:
        options: the result of `read_options`.
        path: keys from the outermost to the innermost, joined by dots.
        kind: the required type.
        default: the value if the option is missing; None: the option is required.

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
    """The content of the text, built from the parser's events, without recursion and with limits.

    **Errors:** `ValueError`, `yaml.YAMLError`.
    """
    documents: list[Any] = []
    stack: list[tuple[Any, list[str]]] = []  # a list or mapping, and the key whose value comes next
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


_PLAIN_TAGS = {None, "!"} | {
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "set", "omap", "seq", "str", "timestamp", "binary")
}
"""Tags that do not change how a node is read. A set is a mapping to nothing; a date is text."""


def _events(text: str) -> Iterator[yaml.Event]:
    """The parser's events for values. **Errors:** `ValueError` for aliases, and for tags that ask
    for more than text, lists and mappings."""
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias (*{shown(event.anchor, 40)})")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in _PLAIN_TAGS:
            raise ValueError(f"it has a tag ({shown(event.tag, 60)})")  # pyright: ignore
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            yield event


def _scalar(event: yaml.ScalarEvent) -> Any:
    """Unquoted words and numbers are read by their form; anything in quotes is text."""
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
