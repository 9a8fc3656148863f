"""Draw the paths of beliefs on a plane common to all beliefs of a moment, and on simplices.

The plane has the two principal directions of the square roots of the beliefs' probabilities.
Distances in it approximate Hellinger distances. A simplex shows one factor; its three most likely
classes are the corners.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thinkslow.evaluation.reading import Kind, kind
from thinkslow.evaluation.report.figures import COLOURS
from thinkslow.gap.paths import Stored
from thinkslow.gap.stored import BEST, BEST_LATER
from thinkslow.gap.words import LABELS
from thinkslow.plural import plural

FACTORS = 3
"""Number of simplices of a moment, for its most uncertain factors."""
MARGIN = 8.0
"""Margin of a figure, in percent."""
HEIGHT = float(np.sqrt(3) / 2)


@dataclass(frozen=True)
class Way:
    """The path of a belief: positions in percent, from the left and from the top."""

    name: str
    kind: Kind
    colour: str
    places: list[tuple[float, float]]


@dataclass(frozen=True)
class Drawn:
    """One figure of the paths of a moment."""

    title: str
    ways: list[Way]
    said: str
    """The content as text, for screen readers."""
    corners: tuple[str, ...] = ()
    """The names of the corners of a simplex."""


def plane(stored: Stored) -> Drawn | None:
    """All paths in their two principal directions; None if nothing moves."""
    flat = {name: way.reshape(len(way), -1) for name, way in stored.ways.items()}
    if _is_categorical(stored):
        flat = {name: np.sqrt(np.maximum(way, 0)) for name, way in flat.items()}
    every = np.concatenate(list(flat.values()))
    centre = every.mean(0)
    if not np.isfinite(every).all() or np.ptp(every, axis=0).max() < 1e-6:
        return None
    _, sizes, directions = np.linalg.svd(every - centre, full_matrices=False)
    two = np.zeros((2, every.shape[1]))
    two[: min(2, len(directions))] = directions[:2]
    placed = {name: (way - centre) @ two.T for name, way in flat.items()}
    shown = (sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-12)
    low, high = (f(np.concatenate(list(placed.values())), axis=0) for f in (np.min, np.max))
    size = max((high - low).max(), 1e-9)
    middle = (low + high) / 2
    ways = [
        _way(
            name,
            at,
            [
                (50 + (100 - 2 * MARGIN) * x / size, 50 - (100 - 2 * MARGIN) * y / size)
                for x, y in way - middle
            ],
        )
        for at, (name, way) in enumerate(placed.items())
    ]
    ends = ", ".join(f"{way.name} in {plural(len(way.places) - 1, 'step')}" for way in ways)
    return Drawn(
        f"{stored.agent}, episode {stored.episode}, decision {stored.decision}: two main "
        f"directions ({shown:.0%} of the variation)",
        ways,
        f"Beliefs on a common plane: {ends}",
    )


def simplices(stored: Stored) -> list[Drawn]:
    """The most uncertain factors, each on the simplex of its three most likely classes. Only for
    categorical latents.
    """
    if not _is_categorical(stored):
        return []
    ways = stored.ways
    ends = np.stack([ways[name][0] for name in ways])
    entropy = -np.sum(ends * np.log(np.maximum(ends, 1e-12)), -1)
    uncertain = np.argsort(-entropy.max(0), kind="stable")[:FACTORS]
    out = []
    for factor in uncertain:
        largest = np.max(np.concatenate([way[:, factor] for way in ways.values()]), 0)
        if len(largest) < 3:
            continue
        classes = np.argsort(-largest, kind="stable")[:3]
        drawn = [
            _way(name, at, [_place(step) for step in way[:, factor][:, classes]])
            for at, (name, way) in enumerate(ways.items())
        ]
        said = "; ".join(
            f"{way.name} ends at " + ", ".join(f"{p:.0%}" for p in ways[name][-1, factor][classes])
            for way, name in zip(drawn, ways, strict=True)
        )
        out.append(
            Drawn(
                f"factor {factor}",
                drawn,
                f"Factor {factor}, classes {classes.tolist()}: {said}",
                tuple(f"class {one}" for one in classes),
            )
        )
    return out


def legend(stored: Mapping[str, np.ndarray]) -> list[Way]:
    """The names of paths with their colours."""
    return [_way(name, at, []) for at, name in enumerate(stored)]


def _is_categorical(stored: Stored) -> bool:
    return next(iter(stored.ways.values())).ndim == 3


def _place(three: np.ndarray) -> tuple[float, float]:
    """A point of a simplex; the probability of other classes is distributed in proportion."""
    _, b, c = three / max(three.sum(), 1e-9)
    side = 100 - 2 * MARGIN
    return float(MARGIN + side * (b + c / 2)), float(
        MARGIN + side * (HEIGHT - HEIGHT * c) + side * (1 - HEIGHT) / 2
    )


def _way(name: str, at: int, places: list[tuple[float, float]]) -> Way:
    colour = {"prior": "#868c94", "none": "currentColor"}.get(name, COLOURS[at % len(COLOURS)])
    known: Kind = "base" if name in ("prior", "none", BEST, BEST_LATER) else kind(name)
    rounded = [(round(x, 2), round(y, 2)) for x, y in places]
    return Way(LABELS.get(name, name), known, colour, rounded)
