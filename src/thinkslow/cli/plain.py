"""A console that prints names and messages from files as plain text."""

from typing import Any

from rich.console import Console

from thinkslow.cli.wording import printable


class Plain(Console):
    """A console that interprets no markup and no escape codes."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        plain = (printable(one) if isinstance(one, str) else one for one in objects)
        super().print(*plain, **options)
