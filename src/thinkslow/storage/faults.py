"""Errors about files, and texts for their messages: one line, of bounded length, safe to print."""

from typing import Any

LONGEST = 1000
"""Largest number of characters of a message."""
REST = 300
"""Number of characters kept from the end of a message, which has the remedy."""


def line(text: object, most: int = LONGEST) -> str:
    r"""One line that is safe to print: no line ends, no escape codes, at most `most` characters.

    >>> line("a\x1b[31m\nb")
    'a\\x1b[31m b'
    >>> len(line("a" * 10**6, 100))
    100
    """
    whole = str(text)
    if len(whole) > 4 * most:  # the rest is cut off below
        whole = whole[: 2 * most] + whole[-2 * most :]
        shortened = True
    else:
        shortened = False
    out = " ".join(whole.split())
    out = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in out.encode("utf-8", "backslashreplace").decode()
    )
    if len(out) <= most and not shortened:
        return out
    rest = min(REST, most // 3)
    return f"{out[: most - rest - 5]} ... {out[-rest:]}"


def shown(value: Any, most: int = 80) -> str:
    """A value from a file, for a message: its `repr`, of bounded length for every value.

    >>> shown("a" * 10**6, 20)
    "'aaaaaaaa ... aaaaa'"
    """
    if isinstance(value, str):
        short = value if len(value) <= 4 * most else value[: 2 * most] + value[-2 * most :]
        return line(repr(short), most)
    if value is None or isinstance(value, bool | int | float):
        return line(repr(value) if not _long(value) else "a number of too many digits", most)
    if isinstance(value, list | tuple | dict):
        few = list(value)[:8]
        inside = ", ".join(
            f"{shown(key, most // 4)}: {shown(value[key], most // 4)}"
            if isinstance(value, dict)
            else shown(key, most // 4)
            for key in few
        )
        more = ", ..." if len(value) > len(few) else ""
        start, end = "{}" if isinstance(value, dict) else "[]" if isinstance(value, list) else "()"
        return line(f"{start}{inside}{more}{end}", most)
    return line(f"a {type(value).__name__}", most)


def _long(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 1024


class Missing(FileNotFoundError):
    """The folder, or a file that belongs in it, does not exist."""

    def __init__(self, message: str):
        super().__init__(line(message))


class Damaged(ValueError):
    """The files exist but are not what was written."""

    def __init__(self, message: str):
        super().__init__(line(message))


class Misfit(ValueError):
    """The arrays are valid but have other names or shapes than expected."""

    def __init__(self, message: str):
        super().__init__(line(message))
