"""`thinkslow inspect`: what an agent is."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from thinkslow import store
from thinkslow.cli.common import Common
from thinkslow.cli.common import parse as parse_options

DESCRIPTION = """Say what an agent is: sizes, parameters, spaces, how it was made.

The weights are read and their checksum verified.

example: thinkslow inspect runs/first/agents/60000"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow inspect`."""

    agent: tyro.conf.Positional[Path]
    """Agent folder."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "inspect", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    weights, manifest = store.read(options.agent)
    parameters: Counter[str] = Counter()
    for name, array in weights.items():
        parameters[name.split("/")[0]] += math.prod(array.shape)
    facts = {key: value for key, value in manifest.items() if key != "weights"}
    facts["parameters"] = {**parameters, "total": parameters.total()}
    if not options.json:
        table = Table("what", "value", show_header=False)
        for key, value in facts.items():
            for name, part in value.items() if isinstance(value, dict) else [("", value)]:
                if name != "curve":
                    table.add_row(f"{key} {name}".strip(), str(part))
        Console().print(table)
    return facts
