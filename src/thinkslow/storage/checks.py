"""Check that arrays have the expected names and shapes, and are finite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thinkslow.storage.faults import Misfit, line

LARGEST = 1e6
"""Largest allowed weight. The largest in trained agents is 90. With a random exponent, a number
exceeds the limit in two of five cases.
"""


def match(
    weights: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    *,
    what: str,
    remedy: str = "",
) -> None:
    """Check that names and shapes are the expected ones, in any order.

    `what` opens the sentence of the error and `remedy` closes it.

    **Errors:** `Misfit` with the first wrong shape, and the counts of missing and of unexpected
    names.

    >>> match({"a": np.zeros(3)}, {"a": (4,)}, what="Checkpoint x does not fit y")
    Traceback (most recent call last):
    thinkslow.storage.faults.Misfit: Checkpoint x does not fit y: a is (3,), expected (4,).
    """
    wrong = [n for n in expected if n in weights and weights[n].shape != tuple(expected[n])]
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    faults = []
    if wrong:
        name = wrong[0]
        more = f" (and {len(wrong) - 1} more of another shape)" if len(wrong) > 1 else ""
        faults.append(f"{name} is {weights[name].shape}, expected {tuple(expected[name])}{more}")
    if missing:
        faults.append(f"missing {len(missing)} of {len(expected)} names, first {missing[0]}")
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected names, first {unexpected[0]}")
    if faults:
        raise Misfit(f"{what}: {'; '.join(faults)}. {remedy}".rstrip())


def check_finite(weights: Mapping[str, Any], file: Path, *, allow: bool) -> dict[str, int]:
    """The number of values of each weight that are non-finite or beyond `LARGEST`; empty if there
    are none.

    **Errors:** `ValueError` if there are any, unless they are allowed.
    """
    bad = {}
    for name, array in weights.items():
        # false for NaN; a plain float would become infinite next to an array of float16
        sound = np.abs(np.asarray(array)) <= np.float32(LARGEST)
        if count := int(array.size - sound.sum()):
            bad[name] = count
    if bad and not allow:
        name = next(iter(bad))
        what = f"{bad[name]} of {weights[name].size} values of {line(name, 200)}"
        raise ValueError(
            f"{file}: {what} are non-finite, or beyond {LARGEST:,.0f}"
            f"{f', and some of {len(bad) - 1} more weights' * (len(bad) > 1)}: the training broke "
            "down, or the file was altered. Take another checkpoint, or pass "
            "`allow_nonfinite=True`."
        )
    return bad
