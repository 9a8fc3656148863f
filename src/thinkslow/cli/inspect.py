"""`thinkslow inspect`: what an agent is."""

import dataclasses
import math
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from thinkslow.cli.common import Opening
from thinkslow.cli.common import parse as parse_options

DESCRIPTION = """Say what an agent is: sizes, parameters, spaces, how it was made.

Takes an agent folder, or what another project wrote: a log folder, a checkpoint folder or a
checkpoint. The weights are read and checked.

example: thinkslow inspect runs/first/agents/60000"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Opening):
    """Options of `thinkslow inspect`."""

    agent: tyro.conf.Positional[Path]
    """Agent folder, or what another project wrote."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "inspect", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """**Errors:** those of reading; `ValueError` for weights that are not finite."""
    from thinkslow.dreamer.manifest import described
    from thinkslow.storage import store

    if store.is_own(options.agent):  # read without JAX, which takes a second to import
        weights, members, manifest = store.read_whole(options.agent)
        described(manifest, options.agent)
        bad = store.check_finite(weights, options.agent, allow=options.allow_nonfinite)
        store.check_finite(members or {}, options.agent, allow=options.allow_nonfinite)
        if bad:
            manifest["nonfinite"] = bad
    else:
        from thinkslow.dreamer.nets import named

        saved = options.open(options.agent)
        weights, manifest = named(saved.model), saved.manifest
    parameters: Counter[str] = Counter()
    for name, array in weights.items():
        parameters[name.split("/")[0]] += math.prod(array.shape)
    facts = {key: value for key, value in manifest.items() if key != "weights"}
    facts["parameters"] = {**parameters, "total": parameters.total()}
    if not options.json:
        print(_text(facts))
    return facts


def _text(facts: dict[str, Any]) -> str:
    """One fact a line, long ones wrapped; without the escape codes that a file may hold."""
    from thinkslow.storage.faults import line as printable

    rows = []
    for key, value in facts.items():
        for name, part in value.items() if isinstance(value, dict) else [("", value)]:
            if name not in ("curve", "options", "weights"):
                rows.append((printable(f"{key} {name}".strip(), 60), printable(part, 2000)))
    if facts.get("model", {}).get("value", ...) is None:
        rows.append(("critic", "left out: it acts, and cannot be trained further"))
    width = max(len(name) for name, _ in rows) + 2
    room = max(shutil.get_terminal_size().columns - width, 40)
    lines = []
    for name, part in rows:
        first, *more = textwrap.wrap(part, room) or [""]
        lines += [f"{name:{width}}{first}", *(" " * width + line for line in more)]
    return "\n".join(lines)
