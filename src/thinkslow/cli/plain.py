"""A terminal that shows names and messages of others as they are."""

from typing import Any

from rich.console import Console

from thinkslow.cli.wording import printable


class Plain(Console):
    """A console that takes every text as it is, without its markup and its escape codes."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        plain = (printable(one) if isinstance(one, str) else one for one in objects)
        super().print(*plain, **options)
