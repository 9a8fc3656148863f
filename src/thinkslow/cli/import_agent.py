"""`thinkslow import`: an agent of another project as one of ours."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from thinkslow.cli.common import Opening, Usage
from thinkslow.cli.common import parse as parse_options

DESCRIPTION = """Make an agent of another project one of ours.

SOURCE is a log folder, a checkpoint folder or a checkpoint; of several checkpoints the newest is
taken. Nothing in the files is executed. Every other command takes SOURCE as it is, too.

example: thinkslow import ~/logdir/crafter agents/crafter"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Opening):
    """Options of `thinkslow import`."""

    source: tyro.conf.Positional[Path]
    """What another project wrote."""
    dest: tyro.conf.Positional[Path]
    """Agent folder to write."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "import", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Read, check and write.

    **Errors:** `Usage` if SOURCE is ours already.
    """
    from thinkslow import importers

    if importers.is_own(options.source):
        raise Usage(f"{options.source} is an agent of ours already. Copy the folder.")
    saved = options.open(options.source)
    importers.write(saved, options.dest)
    if not options.json:
        Console().print(
            f"The agent is in {options.dest}", soft_wrap=True, highlight=False, markup=False
        )
    return {"agent": str(options.dest), "source": saved.manifest["source"]["file"]}
