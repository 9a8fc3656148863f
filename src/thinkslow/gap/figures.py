"""Figures of gaps. They use the positions and templates of an evaluation's figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from thinkslow.evaluation.reading import Kind, kind
from thinkslow.evaluation.report.figures import COLOURS, SPREAD, Curves, Line, Point
from thinkslow.evaluation.report.scale import Scale, Tick
from thinkslow.gap.stored import BEST
from thinkslow.gap.words import LABELS, estimate, estimated

Row = Mapping[str, Any]
Series = dict[str, list[tuple[float, Row]]]
"""By name: positions on the axis, and an estimate at each."""


def amortisation(agent: Row) -> Curves | None:
    """The amortisation gap of every arm, from the least to the most surprising frames."""
    names = agent["deciles"][0]["amortisation"] if agent["deciles"] else {}
    series: Series = {
        name: [(float(row["decile"]), row["amortisation"][name]) for row in agent["deciles"]]
        for name in names
    }
    return _curves(
        "Amortisation gap by surprise",
        "decile of surprise, KL(posterior || prior)",
        "nats above the best belief, lower is better",
        series,
        _deciles(agent),
    )


def other_gaps(agent: Row) -> Curves | None:
    """The remaining gaps of the best belief, by surprise."""
    series: Series = {
        what: [(float(row["decile"]), row[what]) for row in agent["deciles"]]
        for what in ("approximation", "conditioning")
    }
    return _curves(
        "Remaining gaps of the best belief, by surprise",
        "decile of surprise, KL(posterior || prior)",
        "nats",
        series,
        _deciles(agent),
    )


def next_frame(agent: Row) -> Curves | None:
    """The change of the next frame's surprise by each arm, against the present surprise."""
    names = agent["deciles"][0]["next"] if agent["deciles"] else {}
    series: Series = {
        name: [(float(row["decile"]), row["next"][name]) for row in agent["deciles"]]
        for name in names
    }
    return _curves(
        "Next frame, change by surprise",
        "decile of surprise, KL(posterior || prior)",
        "nats of -log p(next frame) above none, lower is better",
        series,
        _deciles(agent),
    )


def convergence(agents: Sequence[Row]) -> Curves | None:
    """The approximation gap against the number of samples of its bound."""
    series: Series = {
        agent["name"]: [
            (math.log2(row["samples"]), row) for row in agent["approximation"]["convergence"]
        ]
        for agent in agents
    }
    places = {
        math.log2(row["samples"]): f"{row['samples']}"
        for agent in agents[:1]
        for row in agent["approximation"]["convergence"]
    }
    return _curves(
        "Convergence of the importance-weighted bound",
        "samples",
        "approximation gap, at least, nats",
        series,
        places,
    )


def budget(agents: Sequence[Row]) -> Curves | None:
    """The gaps against the training budget; None for fewer than two budgets."""
    known = sorted(
        (agent for agent in agents if agent["training_steps"] is not None),
        key=lambda agent: agent["training_steps"],
    )
    steps = [agent["training_steps"] for agent in known]
    if len(set(steps)) < 2:
        return None

    def of(agent: Row, name: str, what: str) -> Row:
        return next(row[what] for row in agent["beliefs"] if row["name"] == name)

    arms = [row["name"] for row in known[0]["beliefs"]]
    shared = [
        name
        for name in arms
        if all(any(row["name"] == name for row in agent["beliefs"]) for agent in known)
    ]
    series: Series = {
        f"amortisation, {LABELS.get(name, name)}": [
            (float(step), of(agent, name, "amortisation"))
            for step, agent in zip(steps, known, strict=True)
        ]
        for name in shared
        if name not in (BEST, "best-later")
    }
    series["conditioning, best for this frame"] = [
        (float(step), of(agent, BEST, "conditioning"))
        for step, agent in zip(steps, known, strict=True)
    ]
    series["approximation, at least"] = [
        (float(step), agent["approximation"]) for step, agent in zip(steps, known, strict=True)
    ]
    places = {float(step): f"{step:,}" for step in steps}
    return _curves("Gaps by training budget", "training decisions", "nats", series, places)


def _deciles(agent: Row) -> dict[float, str]:
    return {float(row["decile"]): str(row["decile"]) for row in agent["deciles"]}


def _curves(
    title: str, x_axis: str, y_axis: str, series: Series, places: Mapping[float, str]
) -> Curves | None:
    found = {
        name: [(x, value) for x, row in points if (value := estimate(row)) is not None]
        for name, points in series.items()
    }
    found = {name: points for name, points in found.items() if points}
    if not found:
        return None
    every = [
        x for points in found.values() for _, v in points for x in (v.value, *(v.interval or ()))
    ]
    scale = Scale.of([0.0, *every])
    order = sorted(places)
    apart = 100 / len(order)
    centres = {x: apart * (index + 0.5) for index, x in enumerate(order)}
    lines = []
    for turn, (name, points) in enumerate(found.items()):
        shift = SPREAD * apart * ((turn + 0.5) / len(found) - 0.5)
        placed = []
        for x, value in points:
            low, high = value.interval or (value.value, value.value)
            text = estimated({"mean": value.value, "interval": value.interval})
            placed.append(
                Point(
                    round(centres[x] + shift, 2),
                    round(100 - scale.at(value.value), 2),
                    round(100 - scale.at(high), 2),
                    round(100 - scale.at(low), 2),
                    text,
                )
            )
        label = LABELS.get(name, name)
        known: Kind = kind(name) if name != "none" else "base"
        lines.append(Line(label, known, COLOURS[turn % len(COLOURS)], placed))
    said = "; ".join(
        f"{line.name}: "
        + ", ".join(
            f"{places[x]}: {point.text}" for (x, _), point in zip(points, line.points, strict=True)
        )
        for line, points in zip(lines, found.values(), strict=True)
    )
    return Curves(
        title=title,
        x_axis=x_axis,
        y_axis=y_axis,
        x_ticks=[Tick(round(centres[x], 2), places[x]) for x in order],
        y_ticks=[Tick(round(100 - tick.at, 2), tick.text) for tick in scale.ticks(5)],
        lines=lines,
        zero=round(100 - scale.at(0.0), 2),
        said=said,
    )
