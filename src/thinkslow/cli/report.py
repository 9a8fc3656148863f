"""`thinkslow report`: build the page of an evaluation again."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from thinkslow.cli.common import Common
from thinkslow.cli.common import parse as parse_options

DESCRIPTION = """Show an evaluation again, from its records: table, summary.json, report.html.

One that was interrupted is shown as far as it went.

example: thinkslow report out/evaluate"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow report`."""

    folder: tyro.conf.Positional[Path]
    """What `thinkslow evaluate --out` wrote."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "report", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    import json

    from thinkslow.cli.evaluate import show_result
    from thinkslow.evaluation.report.page import build

    page = build(options.folder)
    summary = json.loads((options.folder / "summary.json").read_text())
    return show_result(summary, page, quiet=options.json)
