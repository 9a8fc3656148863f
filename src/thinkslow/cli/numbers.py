"""Whole numbers as people write them on a command line: 100000, 100_000, 1e5."""

from decimal import Decimal, InvalidOperation

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

WHOLE = ConstructorRegistry()
"""Lets every option that is an `int` be written so: `with WHOLE: tyro.cli(...)`."""


def whole(text: str) -> int:
    """The number that a text says.

    **Errors:** `ValueError` for one that is not whole, or no number.

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


@WHOLE.primitive_rule
def _rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: whole(texts[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )
