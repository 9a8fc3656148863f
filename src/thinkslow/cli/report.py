"""`thinkslow report`: build the page of an evaluation again."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from thinkslow.cli.common import Common
from thinkslow.cli.common import parse as parse_options

DESCRIPTION = """Build report.html of an evaluation folder from its records.

example: thinkslow report out/evaluate"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow report`."""

    folder: tyro.conf.Positional[Path]
    """What `thinkslow evaluate --out` wrote."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "report", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    from thinkslow.evaluation.report.page import build

    page = build(options.folder)
    if not options.json:
        Console().print(f"The page: {page}", soft_wrap=True, highlight=False)
    return {"report": str(page)}
