"""Progress of a command that plays, and the printed result of an evaluation."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from thinkslow.cli.common import console, log_to, output
from thinkslow.cli.progress import block_lines
from thinkslow.cli.wording import printable

Show = Callable[[str, int, int], None]
"""Called with the present part (`agent: arm, doing`), the amount done, and the total."""
LABEL = 46
"""Number of letters before the bar; a longer label would push it off the terminal."""
HELPS = "Where thinking is known to help"


@contextmanager
def progress() -> Iterator[Show]:
    """A bar on a terminal, otherwise a line for each arm, on standard error below the log."""
    if not (plain := console()).is_terminal:
        with log_to(plain), block_lines(plain.print) as lines:
            yield lines
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn(f"{{task.description:{LABEL}}}", markup=False),
        bars.BarColumn(bar_width=None),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    # The pace of the last half minute alone would be that of compiling, or of one arm.
    whole = bars.Progress(
        *columns, console=console(), transient=True, expand=True, speed_estimate_period=3600
    )
    with whole as bar, log_to(bar.console):
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            said = printable(what)
            if len(said) > LABEL:
                said = f"…{said[1 - LABEL :]}"  # the arm is at the end
            bar.update(task, description=said, completed=done, total=total)

        yield show


def show_result(
    summary: Mapping[str, Any], page: Path, *, quiet: bool, brief: bool = False
) -> dict[str, Any]:
    """Print the result of an evaluation: the table with a legend of its arms, notes, a headline
    with its numbers for each agent, and the path of the page.

    Args:
        summary: the summary of the evaluation.
        page: its page.
        quiet: print nothing.
        brief: print one sentence below each headline; the page has the others.
    """
    from rich.padding import Padding
    from rich.text import Text

    from thinkslow.evaluation.report.beside import known_beside
    from thinkslow.evaluation.report.conclusion import conclusion, scopes, verdicts
    from thinkslow.evaluation.report.table import table

    known = known_beside(page.parent)
    if not quiet:
        terminal = output()
        terminal.print(table(dict(summary), terminal.width))
        for arm, about in legend(summary):
            line = Text.assemble((printable(f"  {arm}"), "bold"), f": {about}")
            terminal.print(line)
        for note in summary["notes"]:
            terminal.print(note)
        said = verdicts(dict(summary))
        if known is not None:
            terminal.print()
            terminal.print(Text(f"{HELPS}: {known.said.headline}", style="bold"))
            terminal.print(Padding.indent(Text(f"{known.what} {' '.join(known.said.details)}"), 2))
        for one in said:
            terminal.print()
            terminal.print(Text(printable(f"{one.agent}: {one.headline}"), style="bold"))
            shown = one.details[:1] if brief else one.details
            for command, sentences in groupby(shown, key=lambda each: "`" in each):
                line = Text(printable(" ".join(sentences)))
                # A command is not broken, so that it can be copied.
                terminal.print(Padding.indent(line, 2) if not command else line, soft_wrap=command)
        for scope in scopes(said):
            terminal.print()
            terminal.print(scope)
        terminal.print(f"The page: {page}", soft_wrap=True)
    more = {} if known is None else {"known": known.summary}
    sentence = conclusion(dict(summary))
    return {**summary, **more, "conclusion": sentence, "report": str(page)}


def legend(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One line for each known arm, with its description."""
    about = {arm["arm"]: arm.get("description") or "" for arm in summary["arms"]}
    return [(arm, said) for arm, said in about.items() if said]
