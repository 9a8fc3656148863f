"""Figures of a study as positions on axes, each with its numbers; None if there is nothing to draw.

The marks are those of the page of an evaluation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from thinkslow.evaluation import planning
from thinkslow.evaluation.reading import (
    Estimate,
    Kind,
    Record,
    arms,
    comparisons,
    estimate,
    kind,
)
from thinkslow.evaluation.report.figures import (
    COLOURS,
    SPREAD,
    Curves,
    Intervals,
    Line,
    Point,
    bar,
    common_scale,
    differences,
    downward,
    placed,
)
from thinkslow.evaluation.report.scale import Scale, Tick
from thinkslow.evaluation.report.text import metric_name, metric_unit
from thinkslow.study.data import Data
from thinkslow.study.scatter import Scatter
from thinkslow.study.sweeps import Sweep, sweeps
from thinkslow.study.view import Played, View

EFFECTS = ["difference", "low", "high", "p (Holm)", "pairs"]
REACH = 1.0
"""The largest effect of a power curve, as a share of the baseline."""


@dataclass(frozen=True)
class Shown:
    """A figure with its numbers."""

    figure: Intervals | Curves | Scatter
    data: Data

    @property
    def drawn(self) -> str:
        """The macro of the templates that draws it."""
        return type(self.figure).__name__.lower()


def hypotheses(judged: Sequence[Record]) -> list[Shown]:
    """The effect of every hypothesis with its interval, one figure for each measure."""
    out = []
    for measure, of in dict.fromkeys((one["measure"], one["of"]) for one in judged):
        mine = [one for one in judged if (one["measure"], one["of"]) == (measure, of)]
        known = {one["name"]: found for one in mine if (found := estimate(one, "difference"))}
        if not known:
            continue
        scale = Scale.of([0.0, *ends(known.values())])
        bars = [
            replace(bar(name, found, scale, measure, ""), kind="refinement")
            for name, found in known.items()
        ]
        what, unit = _called(measure, of), metric_unit(measure).replace(" ", ", ")
        out.append(
            Shown(
                Intervals(
                    f"Effects on {what}",
                    f"difference{unit}, 95% interval",
                    bars,
                    scale.few_ticks(),
                    zero=scale.at(0.0),
                ),
                Data(
                    f"hypotheses-{measure}{'-spread' * (of == 'spread')}",
                    [
                        "hypothesis",
                        "difference",
                        "low",
                        "high",
                        "p",
                        "p (Holm)",
                        "p (within 5%)",
                        "pairs",
                        "left out",
                    ],
                    [
                        [
                            one["name"],
                            one["difference"],
                            *interval(one),
                            one["p_value"],
                            one["p_value_holm"],
                            one["p_equivalent"],
                            one["pairs"],
                            one["dropped"],
                        ]
                        for one in mine
                    ],
                ),
            )
        )
    return out


def effects(seen: View, measure: str) -> list[Shown]:
    """Differences of every arm from `none`, one figure for each agent in each setting, on one axis.

    Dots are training seeds.
    """
    seeds = [seed for one in seen.played for seed in one.seeds]
    scale = common_scale(seen.summary, [*seen.labels, *seeds], measure)
    out = []
    for one in seen.played:
        drawn = differences(seen.summary, one.label, measure, title=one.label, scale=scale)
        if drawn is None or scale is None:
            continue
        rows = comparisons(seen.summary, one.label, measure)
        own = {arm: _of_seeds(seen, one, arm, measure) for arm in rows}
        bars = [
            replace(each, dots=[scale.at(dot) for dot in own[each.name]]) for each in drawn.bars
        ]
        out.append(
            Shown(
                replace(drawn, bars=bars),
                Data(
                    f"effects-{measure}-{file_name(one.label)}",
                    ["arm", *EFFECTS],
                    [[arm, *_row(record)] for arm, record in rows.items()],
                ),
            )
        )
    return out


def over_settings(seen: View, measure: str) -> list[Shown]:
    """Differences from `none` along each setting in which arms differ only by that setting, such as
    the length of the rollout, with a line for each group.
    """
    facts = {one.label: arms(seen.summary, one.label) for one in seen.played}
    known: dict[tuple[str, tuple[float, ...]], list[tuple[str, Sweep]]] = {}
    for label, own in facts.items():
        for sweep in sweeps(own):
            values = tuple(sweep.arms.values())
            known.setdefault((sweep.setting, values), []).append((label, sweep))
    out = []
    for (setting, values), series in known.items():
        several = len({sweep.name for _, sweep in series}) > 1
        lines = {
            f"{label}, {sweep.name}" if several else label: {
                value: comparisons(seen.summary, label, measure).get(arm)
                for arm, value in sweep.arms.items()
            }
            for label, sweep in series
        }
        words = series[0][1].words
        name = series[0][1].name if not several else ""
        out.append(
            _series(
                lines,
                values,
                measure,
                title=f"{f'{name}: e' if name else 'E'}ffect against {words}",
                x_axis=words,
                file=f"{setting.replace('.', '-')}-{file_name(name or 'several')}",
            )
        )
    return [one for one in out if one is not None]


def over_budgets(seen: View, measure: str) -> list[Shown]:
    """Differences from `none` against training steps, if groups differ in them."""
    out = []
    for setting, environment in dict.fromkeys((o.setting, o.environment) for o in seen.played):
        mine = {
            one.steps: one.label
            for one in seen.played
            if (one.setting, one.environment) == (setting, environment) and one.steps is not None
        }
        if len(mine) < 2:
            continue
        rows = {steps: comparisons(seen.summary, label, measure) for steps, label in mine.items()}
        lines = {
            arm: {steps: rows[steps].get(arm) for steps in rows}
            for arm in dict.fromkeys(arm for each in rows.values() for arm in each)
        }
        out.append(
            _series(
                lines,
                tuple(sorted(rows)),
                measure,
                title=f"Effect against training, {setting}",
                x_axis="training steps (decisions)",
                file=f"budgets-{file_name(setting)}",
            )
        )
    return [one for one in out if one is not None]


def power(judged: Sequence[Record]) -> Shown | None:
    """The power of every hypothesis, against the size of a true effect."""
    known = [one for one in judged if one["deviation"] and one["baseline"] and one["units"] > 1]
    if not known:
        return None
    shares = [one["detectable"] / abs(one["baseline"]) for one in known if one["detectable"]]
    far = min(REACH, max([0.1, *(1.3 * share for share in shares)]))
    x, y, lines = Scale(0.0, 100 * far), Scale(0.0, 1.0), []
    for at, one in enumerate(known):
        points = []
        for step in range(41):
            share = far * step / 40
            chance = _chance(one, share)
            height = round(100 - y.at(chance), 2)
            points.append(Point(x.at(100 * share), height, height, height, f"{chance:.0%}"))
        lines.append(Line(one["name"], "refinement", COLOURS[at % len(COLOURS)], points))
    ticks = [Tick(tick.at, f"{float(tick.text):.0%}") for tick in y.ticks(5)]
    said = "; ".join(
        f"{one['name']}: {'–' if one['power'] is None else format(one['power'], '.0%')} for 5%"
        for one in known
    )
    drawn = Curves(
        "Power",
        "true effect, percent of the baseline's mean",
        "chance to be shown",
        x.ticks(),
        [Tick(100 - tick.at, tick.text) for tick in ticks],
        lines,
        100 - y.at(planning.POWER),
        said,
    )
    return Shown(drawn, _powers(known))


def _powers(known: Sequence[Record]) -> Data:
    """The power of every hypothesis, and what it follows from, as a table."""
    columns = {
        "hypothesis": lambda one: one["name"],
        "units": lambda one: f"{one['units']} {'training seeds' if one['several'] else 'episodes'}",
        "deviation": lambda one: one["deviation"],
        "baseline": lambda one: one["baseline"],
        "smallest detectable": lambda one: one["detectable"],
        "power for 5%": lambda one: one["power"],
        "units needed for 5%": _needed,
    }
    return Data("power", [*columns], [[read(one) for read in columns.values()] for one in known])


def _series(
    lines: Mapping[str, Mapping[float, Record | None]],
    values: Sequence[float],
    measure: str,
    *,
    title: str,
    x_axis: str,
    file: str,
) -> Shown | None:
    """Lines over categories at equal distances."""
    found = {
        name: {x: each for x, record in rows.items() if (each := estimate(record, "difference"))}
        for name, rows in lines.items()
    }
    found = {name: rows for name, rows in found.items() if rows}
    if not any(len(rows) > 1 for rows in found.values()):
        return None
    scale = Scale.of([0.0, *ends(each for rows in found.values() for each in rows.values())])
    apart = 100 / len(values)
    places = {value: apart * (at + 0.5) for at, value in enumerate(values)}
    drawn = []
    for at, (name, rows) in enumerate(found.items()):
        shift = SPREAD * apart * ((at + 0.5) / len(found) - 0.5)
        points = [placed(places[x] + shift, each, scale, measure) for x, each in rows.items()]
        role: Kind = kind(name) if name.startswith("control-") else "refinement"
        drawn.append(Line(name, role, COLOURS[at % len(COLOURS)], points))
    said = "; ".join(
        f"{line.name}: "
        + ", ".join(
            f"{x:g} {point.text}" for x, point in zip(found[line.name], line.points, strict=True)
        )
        for line in drawn
    )
    label = f"difference from none in {_called(measure, 'mean')}{metric_unit(measure)}"
    return Shown(
        Curves(
            title,
            x_axis,
            label,
            [Tick(place, f"{x:,.6g}") for x, place in places.items()],
            downward(scale),
            drawn,
            100 - scale.at(0.0),
            said,
        ),
        Data(
            file,
            ["line", x_axis, *EFFECTS],
            [
                [name, x, *_row(record)]
                for name, rows in lines.items()
                for x, record in rows.items()
            ],
        ),
    )


def _chance(one: Record, share: float) -> float:
    effect = share * abs(one["baseline"])
    return planning.power(one["deviation"], one["units"], effect, one["tests"], one["alpha"])


def _needed(one: Record) -> int:
    """Number of units that detect a true effect of 5% of the baseline, other things being equal."""
    return planning.units_needed(one["deviation"], 0.05 * abs(one["baseline"]), one["tests"])


def _of_seeds(seen: View, one: Played, arm: str, measure: str) -> list[float]:
    rows = (comparisons(seen.summary, seed, measure).get(arm) for seed in one.seeds)
    return [found.value for row in rows if (found := estimate(row, "difference")) is not None]


def _row(record: Record | None) -> list[float | int | None]:
    if record is None:
        return [None] * len(EFFECTS)
    p = None if record.get("untested") else record["p_value_holm"]
    return [record["difference"], *interval(record), p, record["pairs"]]


def interval(record: Record) -> tuple[float | None, float | None]:
    """The two ends of an interval, as columns."""
    low, high = record["interval"] or (None, None)
    return low, high


def ends(found: Iterable[Estimate]) -> list[float]:
    """All values and the ends of their intervals."""
    return [x for one in found for x in (one.value, *(one.interval or ()))]


def _called(measure: str, of: str) -> str:
    name = metric_name(measure)
    name = name if name.isupper() or name[:4].isupper() else name[:1].lower() + name[1:]
    return f"the spread of the {name}" if of == "spread" else f"the {name}"


def file_name(label: str) -> str:
    """Words joined to a file name."""
    return "-".join("".join(c if c.isalnum() else " " for c in label).split()) or "all"
