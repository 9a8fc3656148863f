"""Figures of an evaluation as positions on axes, in percent. Each function returns None if there is
nothing to draw.

`templates/figures.jinja` draws them as SVG. A browser stretches them to the available width, while
text and bars keep their size. Marks mean the same in all figures: a filled bar is a refinement, an
outlined bar a control, a grey bar the base. The bar is a 95% interval, and the tick inside it is
the mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from thinkslow.evaluation import metrics
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.reading import (
    Estimate,
    Kind,
    Record,
    arms,
    comparisons,
    decision_ms,
    estimate,
    kind,
)
from thinkslow.evaluation.records import BASE, Episode, finite
from thinkslow.evaluation.report.conclusion import Mark, marked
from thinkslow.evaluation.report.scale import Scale, Tick
from thinkslow.evaluation.report.text import estimated, metric_name, metric_unit, number

COLOURS = ("#2f78bd", "#2a9d72", "#b05fb0", "#c8553d", "#7a8f2a", "#5a6fd0", "#1f9bb0", "#a0703a")
"""Colours of lines that share a figure, in turn."""
SPREAD = 0.6
"""Share of the distance between two positions over which arms are spread."""
DOTS = 200
"""The largest number of dots in a row; with more episodes, evenly spaced quantiles are shown."""
MEANS = 15
"""Number of points in the running mean of a learning curve."""


@dataclass(frozen=True)
class Bar:
    """A value with its interval: positions in percent, and the numbers as text."""

    name: str
    kind: Kind
    at: float
    low: float
    high: float
    text: str
    mark: Mark = ""
    """How its difference is marked, as in the table."""
    dots: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Intervals:
    """Bars of several arms on one axis."""

    title: str
    axis: str
    bars: list[Bar]
    ticks: list[Tick]
    zero: float | None = None
    """The position of zero difference."""
    lines: list[Tick] = field(default_factory=list)
    """Reference values."""


@dataclass(frozen=True)
class Point:
    """A point of a line: percent from the left and from the top."""

    x: float
    y: float
    low: float
    high: float
    text: str
    below: bool = False
    """Whether the text stands below the point, where the line leaves more room."""


@dataclass(frozen=True)
class Line:
    """The joined points of one name."""

    name: str
    kind: Kind
    colour: str
    points: list[Point]
    faint: list[Point] = field(default_factory=list)
    """The raw values behind running means."""
    stars: list[Point] = field(default_factory=list)


@dataclass(frozen=True)
class Curves:
    """Several lines on common axes."""

    title: str
    x_axis: str
    y_axis: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    zero: float | None
    said: str
    """The content as text, for screen readers."""


def common_scale(summary: Record, names: Sequence[str], metric: str) -> Scale | None:
    """The axis on which the differences of several agents can be compared."""
    values = [0.0] if names else []
    for agent in names:
        for record in comparisons(summary, agent, metric).values():
            found = estimate(record, "difference")
            values += [] if found is None else [found.value, *(found.interval or ())]
    return Scale.of(values) if len(values) > 1 else None


def differences(
    summary: Record, agent: str, metric: str, *, title: str = "", scale: Scale | None = None
) -> Intervals | None:
    """Paired differences from `none`, one row for each arm."""
    scale = scale or common_scale(summary, [agent], metric)
    bars = [
        bar(arm, found, scale, metric, marked(record))
        for arm, record in comparisons(summary, agent, metric).items()
        if (found := estimate(record, "difference")) is not None and scale is not None
    ]
    if not bars or scale is None:
        return None
    about = metrics.metric(metric)
    direction = f" ({about.direction})" if about.direction else ""
    return Intervals(
        title=title or f"Δ {metric_name(metric)}",
        axis=f"difference from none{f', {about.unit}' if about.unit else ''}{direction}",
        bars=bars,
        ticks=scale.few_ticks(),
        zero=scale.at(0.0),
    )


def improvements(summary: Record, agent: str) -> Intervals | None:
    """Probability that an episode scores higher than its pair under `none`."""
    scale = Scale(0.0, 1.0)
    bars = []
    for arm, record in comparisons(summary, agent, "score").items():
        known = {"mean": record.get("p_improve"), "interval": record.get("p_improve_interval")}
        if (found := estimate(known)) is not None:
            bars.append(bar(arm, found, scale, "", "", signed=False))
    if not bars:
        return None
    return Intervals(
        "Probability of improvement",
        "share of pairs above none",
        bars,
        scale.few_ticks(),
        zero=50.0,
    )


def scores(
    played: Sequence[Episode], summary: Record, agent: str, known: Mapping[str, float]
) -> Intervals | None:
    """Score of every episode, with the mean of each arm and the scores of reference players."""
    own: dict[str, list[float]] = {arm["arm"]: [] for arm in arms(summary, agent)}
    for one in played:
        if one.agent == agent and one.score is not None and not one.crashed:
            own.setdefault(one.arm, []).append(one.score)
    found = {arm["arm"]: estimate(arm["score"]) for arm in arms(summary, agent)}
    shown = {arm: value for arm, value in found.items() if value is not None and own[arm]}
    if not shown:
        return None
    scale = Scale.of([*known.values(), *(score for arm in shown for score in own[arm])])
    bars = [
        bar(arm, value, scale, "", "", signed=False, dots=_some(own[arm]))
        for arm, value in shown.items()
    ]
    lines = [Tick(scale.at(value), f"{name} {number(value)}") for name, value in known.items()]
    return Intervals(
        "Score", "score of each episode, and mean", bars, scale.few_ticks(), lines=lines
    )


def cost(summary: Record, agent: str) -> Intervals | None:
    """Milliseconds per decision, as in the table (`decision_ms`), with p10 to p90, and the ratio to
    `none`."""
    timed = [
        (arm["arm"], usual, arm["latency_ms"])
        for arm in arms(summary, agent)
        if (usual := decision_ms(arm)) is not None
    ]
    if not timed:
        return None
    base = next((usual for arm, usual, _ in timed if arm == BASE), None)
    ends = {
        arm: (finite(spread.get("p10")) or usual, finite(spread.get("p90")) or usual)
        for arm, usual, spread in timed
    }
    scale = Scale(0.0, 1.05 * max(max(usual, ends[arm][1]) for arm, usual, _ in timed))
    bars = [
        Bar(
            arm,
            kind(arm),
            scale.at(usual),
            scale.at(ends[arm][0]),
            scale.at(ends[arm][1]),
            f"{usual:.3g} ms" + (f" (×{usual / base:.1f})" if base else ""),
        )
        for arm, usual, _ in timed
    ]
    measure = "ms per decision, p10 to p90"
    return Intervals("Cost", measure, bars, scale.few_ticks())


def ahead(summary: Record, agent: str, metric: str = "psnr") -> Curves | None:
    """Gains over `none` on the same frames, now and in open-loop predictions."""
    steps = (0, *AHEAD)
    found = {
        arm: {step: value for step in steps if (value := _gain(summary, agent, arm, metric, step))}
        for arm in (arm["arm"] for arm in arms(summary, agent))
        if arm != BASE
    }
    found = {arm: gains for arm, gains in found.items() if gains}
    if not any(set(gains) - {0} for gains in found.values()):
        return None
    every = [value for gains in found.values() for value in gains.values()]
    scale = Scale.of([0.0, *(x for v in every for x in (v.value, *(v.interval or ())))])
    apart = 100 / len(steps)
    places = {step: apart * (index + 0.5) for index, step in enumerate(steps)}
    lines, count = [], len(found)
    for index, (arm, gains) in enumerate(found.items()):
        shift = SPREAD * apart * ((index + 0.5) / count - 0.5)
        points = [
            placed(places[step] + shift, value, scale, metric) for step, value in gains.items()
        ]
        lines.append(Line(arm, kind(arm), COLOURS[index % len(COLOURS)], points))
    label = metric_name(metric)
    said = "; ".join(
        f"{line.name}: "
        + ", ".join(
            f"{'now' if step == 0 else f't+{step}'} {point.text}"
            for step, point in zip(found[line.name], line.points, strict=True)
        )
        for line in lines
    )
    return Curves(
        title=f"Gain in {label} against steps ahead",
        x_axis="steps ahead of the last frame seen",
        y_axis=f"Δ {label}{metric_unit(metric)} from none on the same frames, higher is better",
        x_ticks=[
            Tick(place, "now" if step == 0 else f"t+{step}") for step, place in places.items()
        ],
        y_ticks=downward(scale),
        lines=lines,
        zero=100 - scale.at(0.0),
        said=said,
    )


MIDDLE, LABEL, TOP = 50.0, 25.0, 10.0
"""Percent: right of the middle a text ends at its point; how wide it is at most; where it has no
room above."""


def learning(curves: Mapping[str, Record], agents: Sequence[Mapping[str, object]]) -> Curves | None:
    """Score over training, one line for each run: running means, with the evaluated agents marked.

    Agents with one training seed come from one run; the longest of their curves is drawn.
    """
    runs: dict[object, tuple[str, dict[float, float]]] = {}
    seeds = {agent["name"]: agent.get("training_seed") for agent in agents}
    for name, run in curves.items():
        seed, curve = seeds.get(name), _curve(run)
        if curve and (seed not in runs or len(curve) > len(runs[seed][1])):
            runs[seed] = (name, curve)
    if not runs:
        return None
    x = Scale.of([step for _, curve in runs.values() for step in curve], room=0.02)
    y = Scale.of([score for _, curve in runs.values() for score in curve.values()])
    lines = []
    for turn, (seed, (name, curve)) in enumerate(runs.items()):
        mean = _smoothed(curve)

        def point(step: float, score: float) -> Point:
            height = 100 - y.at(score)
            return Point(x.at(step), height, height, height, "")

        points = [point(*one) for one in mean.items()]
        stars = []
        for agent, step in _evaluated(agents, seed).items():
            score = mean[_nearest(mean, step)]
            star = replace(point(step, score), text=f"{agent}: {score:.3g}")
            stars.append(replace(star, below=_below(star, points)))
        lines.append(
            Line(
                name if seed is None else f"training seed {seed}",
                "refinement",
                COLOURS[turn % len(COLOURS)],
                points,
                faint=[point(*one) for one in curve.items()],
                stars=stars,
            )
        )
    said = "; ".join(
        f"{line.name}: {', '.join(star.text for star in line.stars) or 'no agent marked'}"
        for line in lines
    )
    return Curves(
        title="Score over training",
        x_axis="training steps (decisions)",
        y_axis="score of training episodes",
        x_ticks=x.ticks(5),
        y_ticks=downward(y),
        lines=lines,
        zero=None,
        said=said,
    )


def _evaluated(agents: Sequence[Mapping[str, object]], seed: object) -> dict[str, float]:
    """Training steps of the evaluated agents of one training seed, where known."""
    steps = {
        str(one["name"]): finite(one.get("training_steps"))
        for one in agents
        if one.get("training_seed") == seed
    }
    return {name: step for name, step in steps.items() if step is not None}


def bar(
    arm: str,
    found: Estimate,
    scale: Scale,
    metric: str,
    mark: Mark,
    *,
    signed: bool = True,
    dots: Sequence[float] = (),
) -> Bar:
    """An estimate as a bar on a scale; `mark` and `dots` as in `Bar`."""
    low, high = found.interval or (found.value, found.value)
    return Bar(
        arm,
        kind(arm),
        scale.at(found.value),
        scale.at(low),
        scale.at(high),
        estimated(found, signed=signed, unit=metric_unit(metric) if metric else ""),
        mark,
        [scale.at(dot) for dot in dots],
    )


def _some(values: Sequence[float]) -> list[float]:
    """All values, or evenly spaced quantiles if there are too many to draw."""
    ordered = sorted(values)
    if len(ordered) <= DOTS:
        return ordered
    return [ordered[round(n * (len(ordered) - 1) / (DOTS - 1))] for n in range(DOTS)]


def _gain(summary: Record, agent: str, arm: str, metric: str, step: int) -> Estimate | None:
    name = metrics.ahead(metric, step) if step else metric
    return estimate(comparisons(summary, agent, name).get(arm), "difference")


def placed(x: float, found: Estimate, scale: Scale, metric: str) -> Point:
    """An estimate as a point at `x` percent, its height on a scale."""
    low, high = found.interval or (found.value, found.value)
    text = estimated(found, signed=True, unit=metric_unit(metric))
    return Point(
        round(x, 2),
        round(100 - scale.at(found.value), 2),
        round(100 - scale.at(high), 2),
        round(100 - scale.at(low), 2),
        text,
    )


def downward(scale: Scale) -> list[Tick]:
    """The ticks of a vertical axis, from the top."""
    return [Tick(round(100 - tick.at, 2), tick.text) for tick in scale.ticks(5)]


def _curve(run: Record) -> dict[float, float]:
    """Score by step. If several episodes end at one step, their scores are averaged."""
    scores: dict[float, list[float]] = {}
    for step, score in zip(run["step"], run["score"], strict=True):
        if (value := finite(score)) is not None:
            scores.setdefault(float(step), []).append(value)
    return {step: sum(found) / len(found) for step, found in sorted(scores.items())}


def _smoothed(curve: dict[float, float]) -> dict[float, float]:
    """The mean of the points around each, fewer of them at the ends."""
    values, reach = list(curve.values()), MEANS // 2
    near = [values[max(0, index - reach) : index + reach + 1] for index in range(len(values))]
    return {step: math.fsum(some) / len(some) for step, some in zip(curve, near, strict=True)}


def _below(star: Point, line: Sequence[Point]) -> bool:
    """Whether the line lies rather above a text beside a point, so that it belongs below."""
    way = 1 if star.x > MIDDLE else -1
    beside = [star.y - one.y for one in line if 0 <= (star.x - one.x) * way <= LABEL]
    return star.y < TOP or sum(beside) > 0


def _nearest(curve: dict[float, float], step: float) -> float:
    """The nearest recorded step; nothing is interpolated."""
    return min(curve, key=lambda recorded: abs(recorded - step))
