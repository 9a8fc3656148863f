"""`thinkslow report`: rebuild the page of an evaluation or of a study."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.exports import Showing, of_evaluation, of_study

DESCRIPTION = """Rebuild the table and the page of an evaluation or a study from its records.

If it was interrupted, the finished episodes are shown.

examples:
  thinkslow report out/evaluate
  thinkslow report out/study/quick
  thinkslow report out/evaluate --csv"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Showing):
    """Options of `thinkslow report`."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The folder that `thinkslow evaluate`, `demo` or `study` wrote."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "report", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Write the page again, and print the result.

    **Errors:** `FileNotFoundError` for a folder without records; `lock.Locked` while another
    process writes in it; those of reading.
    """
    options.check_exports()
    from thinkslow.storage.lock import writing
    from thinkslow.storage.reading import is_file

    if not options.folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {options.folder}. Give the --out of an evaluation or a study."
        )
    if is_file(options.folder / "study.json"):
        from thinkslow.cli.study import show_study
        from thinkslow.study.run import finish

        with writing(options.folder):
            result = finish(options.folder)
            options.export(of_study(result, options.folder))
        return show_study(result, options.folder, quiet=options.json)
    from thinkslow.cli.results import show_result
    from thinkslow.evaluation import Evaluation

    with writing(options.folder):
        found = Evaluation(options.folder)
        page = found.report()
        options.export(of_evaluation(found))
    return show_result(found.summary, page, quiet=options.json)
