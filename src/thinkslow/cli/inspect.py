"""`thinkslow inspect`: the sizes, spaces and provenance of an agent."""

import dataclasses
import math
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from thinkslow.cli.common import Opening
from thinkslow.cli.common import parse as parse_options
from thinkslow.zoo import located

DESCRIPTION = """Show an agent's sizes, parameters and spaces, and how it was trained.

The weights are read and checked. Nothing in the files is executed.

examples:
  thinkslow inspect collect-good
  thinkslow inspect runs/first/agents/20000 --json
  thinkslow inspect ~/logdir/pong"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Opening):
    """Options of `thinkslow inspect`."""

    agent: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="AGENT")]
    """A bundled agent by name, an agent folder, or a log folder or checkpoint of another
    project."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "inspect", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """**Errors:** those of reading; `ValueError` for weights that are non-finite."""
    path = located(options.agent)
    from thinkslow.saved.manifest import described
    from thinkslow.storage import checks, store

    if store.is_own(path):  # read without JAX, whose import takes a second
        weights, members, manifest = store.read_whole(path)
        described(manifest, path)
        bad = checks.check_finite(weights, path, allow=options.allow_nonfinite)
        checks.check_finite(members or {}, path, allow=options.allow_nonfinite)
        if bad:
            manifest["nonfinite"] = bad
    else:
        from thinkslow.weights import named

        saved = options.open(path)
        weights, manifest = named(saved.model), saved.manifest
    parameters: Counter[str] = Counter()
    for name, array in weights.items():
        parameters[name.split("/")[0]] += math.prod(array.shape)
    facts = {key: value for key, value in manifest.items() if key != "weights"}
    facts["parameters"] = {**parameters, "total": parameters.total()}
    if not options.json:
        print(_text(facts))
    return facts


def _said(value: Any) -> str:
    """A value without the marks of Python.

    >>> _said({"shape": [64, 64, 3], "dtype": "uint8", "classes": None})
    'shape 64 64 3, dtype uint8'
    >>> _said({"low": 0.123456789, "by": {"members": [1.0, 2.0]}})
    'low 0.123457, by (members 1 2)'
    >>> _said(None)
    '–'
    """
    if isinstance(value, dict):
        parts = ((name, part) for name, part in value.items() if part not in (None, [], {}))
        return ", ".join(
            f"{name} {f'({_said(part)})' if isinstance(part, dict) else _said(part)}"
            for name, part in parts
        )
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " ".join(map(_said, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(facts: dict[str, Any]) -> str:
    """Print one fact on each line, wrapped and without escape codes."""
    from thinkslow.storage.faults import line as printable

    rows = []
    for key, value in facts.items():
        for name, part in value.items() if isinstance(value, dict) else [("", value)]:
            if name not in ("curve", "weights") and (key, name) != ("source", "options"):
                rows.append((printable(f"{key} {name}".strip(), 60), printable(_said(part), 2000)))
    if facts.get("model", {}).get("value", ...) is None:
        rows.append(("critic", "left out: the agent can act, but cannot be trained further"))
    width = max(len(name) for name, _ in rows) + 2
    room = max(shutil.get_terminal_size().columns - width, 40)
    lines = []
    for name, part in rows:
        first, *more = textwrap.wrap(part, room) or [""]
        lines += [f"{name:{width}}{first}", *(" " * width + line for line in more)]
    return "\n".join(lines)
