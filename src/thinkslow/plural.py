"""Counts of things in messages, in the singular and in the plural."""

from typing import SupportsFloat


def plural(number: SupportsFloat, one: str, several: str = "") -> str:
    """A count and its noun.

    Args:
        number: the count; it is rounded, and has commas between thousands.
        one: the noun in the singular.
        several: the noun in the plural, unless it is `one` with an s.

    >>> plural(1, "minute"), plural(1200, "step"), plural(0, "hypothesis", "hypotheses")
    ('1 minute', '1,200 steps', '0 hypotheses')
    """
    rounded = f"{float(number):,.0f}"
    return f"{rounded} {one if rounded == '1' else several or one + 's'}"
