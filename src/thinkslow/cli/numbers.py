"""Values as people write them on a command line: 100000, 1e5, true, runs/first."""

from decimal import Decimal, InvalidOperation
from pathlib import Path

from thinkslow.storage.paths import expanded


def whole(text: str) -> int:
    """The number in a text.

    **Errors:** `ValueError` for a text that is not a whole number.

    >>> whole("100_000"), whole("1e5"), whole("2.5e3"), whole("-1")
    (100000, 100000, 2500, -1)
    """
    try:
        number = Decimal(text)
        if number.is_finite() and abs(number) < 1e18 and number == int(number):
            return int(number)
    except InvalidOperation:
        pass
    raise ValueError(f"must be a whole number, such as 20000, 20_000 or 2e4; got {text!r}.")


def number(text: str) -> float:
    """The number in a text.

    **Errors:** `ValueError` for a text that is not a number.

    >>> number("1e-3"), number("4_000")
    (0.001, 4000.0)
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"must be a number, such as 0.5, 30 or 1e-3; got {text!r}.") from None


def truth(text: str) -> bool:
    """The truth value in a text.

    **Errors:** `ValueError` for anything but true and false.

    >>> truth("True"), truth("false")
    (True, False)
    """
    try:
        return {"true": True, "false": False}[text.lower()]
    except KeyError:
        raise ValueError(f"must be True or False; got {text!r}.") from None


def path(text: str) -> Path:
    """The path in a text; `~` is the home folder, which a shell leaves as it is in `--out=~/runs`.

    **Errors:** `ValueError` for an empty text, such as an unset variable of a shell; it would be
    the working folder. Those of `expanded`.
    """
    if not text.strip():
        raise ValueError(f"must be a path; got {text!r}. The working folder is a dot.")
    return expanded(text)
