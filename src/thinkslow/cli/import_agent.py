"""`thinkslow import`: convert an agent of another project to our format."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from thinkslow.cli.common import Opening, output
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.usage import Usage

DESCRIPTION = """Convert a checkpoint from another DreamerV3 code base to our format.

If there are several checkpoints, the newest is used. Nothing in the files is executed. You do not
need to convert an agent to use it: every other command reads SOURCE directly.

examples:
  thinkslow import ~/logdir/crafter agents/crafter
  thinkslow import logs/dreamer_v3/CartPole-v1/version_0 agents/cartpole
  thinkslow import ~/logdir/walker agents/walker --format r2dreamer"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Opening):
    """Options of `thinkslow import`."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """A log folder, a checkpoint folder or a checkpoint of another project."""
    dest: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DEST")]
    """The agent folder to write."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "import", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Read, check and write.

    **Errors:** `Usage` if SOURCE is already in our format; `FileExistsError` if DEST holds the
    agent of another source.
    """
    options.locate()
    from thinkslow import importers
    from thinkslow.storage.faults import line
    from thinkslow.storage.lock import writing
    from thinkslow.storage.manifest import read_manifest
    from thinkslow.zoo import located

    if importers.is_own(located(options.source)):
        raise Usage(
            f"{options.source} is already an agent of thinkslow. Use it directly, or copy "
            f"{located(options.source)}."
        )
    saved = options.open(options.source)
    with writing(options.dest):
        if importers.is_own(options.dest):
            there = read_manifest(options.dest)
            before = (there.get("source") or {}).get("file")
            if before != saved.manifest["source"]["file"]:
                raise FileExistsError(
                    f"{options.dest} holds another agent, {line(there.get('name'), 100)}, of "
                    f"{line(before or 'a training run', 300)}. Give another folder, or delete that "
                    "one."
                )
        importers.write(saved, options.dest)
    if not options.json:
        output().print(f"The agent is in {options.dest}", soft_wrap=True)
    return {"agent": str(options.dest), "source": saved.manifest["source"]["file"]}
