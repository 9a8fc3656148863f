"""`thinkslow inspect`: what an agent is."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from thinkslow.cli.common import Opening
from thinkslow.cli.common import parse as parse_options
from thinkslow.storage import store

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
    from thinkslow import importers
    from thinkslow.dreamer.nets import named

    if importers.is_own(options.agent):
        weights, _, manifest = store.read_whole(options.agent)
        if bad := importers.check_finite(weights, options.agent, allow=options.allow_nonfinite):
            manifest["nonfinite"] = bad
    else:
        saved = options.open(options.agent)
        weights, manifest = named(saved.model), saved.manifest
    parameters: Counter[str] = Counter()
    for name, array in weights.items():
        parameters[name.split("/")[0]] += int(np.prod(array.shape))
    facts = {key: value for key, value in manifest.items() if key != "weights"}
    facts["parameters"] = {**parameters, "total": parameters.total()}
    if not options.json:
        table = Table("what", "value", show_header=False)
        for key, value in facts.items():
            for name, part in value.items() if isinstance(value, dict) else [("", value)]:
                if name not in ("curve", "options", "weights"):
                    table.add_row(f"{key} {name}".strip(), str(part))
        if facts.get("model", {}).get("value", ...) is None:
            table.add_row("critic", "left out: it acts, and cannot be trained further")
        Console().print(table)
    return facts
