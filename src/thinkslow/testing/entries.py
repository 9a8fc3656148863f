"""The entries of the table, and comparisons of two results."""

import dataclasses
from typing import Any

import jax
import numpy as np


class Broken(AssertionError):
    """Some entries of the contract do not hold; the message names each."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the table: the rule, its subject, and whether it holds."""

    model: str
    terms: str
    """One term, or several terms of weight 1 joined by `+`."""
    update: str
    rule: str
    holds: bool | None
    """None: not applicable, and `detail` says why."""
    detail: str = ""

    def __str__(self) -> str:
        where = " x ".join(part for part in (self.model, self.terms, self.update) if part)
        return f"{where}: {self.rule}: {self.detail}"


def same(first: Any, second: Any) -> tuple[bool, str]:
    """Whether two trees are equal bit for bit, and the difference as text."""
    equal = all(map(np.array_equal, *map(jax.tree.leaves, (first, second))))
    return equal, "" if equal else "they differ"


def close(first: Any, second: Any, tolerance: float) -> tuple[bool, str]:
    """Whether two trees differ by at most `tolerance`, relative to 1 or to the second tree, and by
    how much.
    """
    gaps = [
        float(np.max(np.abs(a - b) / (1 + np.abs(b)), initial=0.0))
        for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)
    ]
    gap = float(np.max(gaps, initial=0.0))
    return gap <= tolerance, f"differ by {gap:.2g}"
