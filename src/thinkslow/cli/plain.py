"""A console that prints names and messages from files as plain text."""

from typing import Any

from rich.console import Console
from rich.table import Table

from thinkslow.cli.wording import printable


class Plain(Console):
    """A console that interprets no markup and no escape codes, and folds what does not fit a
    column, so that no number is cut.
    """

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        for table in objects:
            for column in table.columns if isinstance(table, Table) else ():
                column.overflow = "fold"
        plain = (printable(one) if isinstance(one, str) else one for one in objects)
        super().print(*plain, **options)

    def on_broken_pipe(self) -> None:
        """A reader that has seen enough is no failure, as `cli.main` knows; rich ends with 1."""
        raise BrokenPipeError
