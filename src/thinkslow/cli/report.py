"""`thinkslow report`: build the page of an evaluation again."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from thinkslow.cli.common import Common
from thinkslow.cli.common import parse as parse_options

DESCRIPTION = """Build the table and the page of an evaluation again, from its records.

An evaluation that was interrupted is shown as far as it went.

examples:
  thinkslow report out/evaluate
  thinkslow report out/demo
  thinkslow report out/evaluate --json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow report`."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The folder that `thinkslow evaluate` or `thinkslow demo` wrote."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "report", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    import json

    from thinkslow.cli.evaluate import show_result
    from thinkslow.evaluation.report.page import build

    page = build(options.folder)
    summary = json.loads((options.folder / "summary.json").read_text())
    return show_result(summary, page, quiet=options.json)
