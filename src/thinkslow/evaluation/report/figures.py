"""Plotly figures of an evaluation. Each function returns None where there is nothing to draw.

Figures carry data and shape only: the page sets the colours of text, axes and grid, for they
depend on the reader's light or dark mode. Marks mean the same everywhere: filled blue circles
are refinements, open orange diamonds controls, grey is the base.
"""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from thinkslow.evaluation import metrics
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.reading import Estimate, Record, arms, comparisons, estimate, kind
from thinkslow.evaluation.records import BASE, Episode, finite
from thinkslow.evaluation.report.text import estimated, metric_name, metric_unit, number

COLOURS = {"refinement": "#3b82c4", "control": "#d9822b", "base": "#8a8f98"}
_SYMBOLS = {"refinement": "circle", "control": "diamond-open", "base": "square"}
_LINES = ["#3b82c4", "#2a9d72", "#b05fb0", "#c8553d", "#7a8f2a", "#5a6fd0", "#1f9bb0", "#a0703a"]
_DASHES = ["dot", "dash", "dashdot", "longdash"]


def forest(summary: Record, agent: str, metric: str) -> go.Figure | None:
    """Paired differences from `none` with 95% intervals, an arm a line."""
    drawn = [
        (arm, record, difference)
        for arm, record in comparisons(summary, agent, metric).items()
        if (difference := estimate(record, "difference")) is not None
    ]
    if not drawn:
        return None
    figure = go.Figure()
    for group in ("refinement", "control"):
        members = [each for each in drawn if kind(each[0]) == group]
        if not members:
            continue
        intervals = [d.interval or (d.value, d.value) for _, _, d in members]
        figure.add_scatter(
            name=group,
            x=[d.value for _, _, d in members],
            y=[arm for arm, _, _ in members],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [
                    high - d.value for (_, high), (_, _, d) in zip(intervals, members, strict=True)
                ],
                "arrayminus": [
                    d.value - low for (low, _), (_, _, d) in zip(intervals, members, strict=True)
                ],
                "thickness": 1.6,
                "width": 4,
            },
            mode="markers",
            marker=_marker(group, 9),
            text=[_tested(record, d, metric) for _, record, d in members],
            hovertemplate="<b>%{y}</b><br>%{text}<extra></extra>",
        )
    direction = metrics.metric(metric).direction
    heading = f"{metric_name(metric)}{', ' + direction if direction else ''}"
    _shape(figure, heading, _with_unit("difference from none", metric), "", len(drawn))
    figure.update_xaxes(zeroline=True, zerolinewidth=2)
    return _listed(figure, [arm for arm, _, _ in drawn])


def episodes(played: Sequence[Episode], agent: str) -> go.Figure | None:
    """Score of each episode under `none` and under an arm, joined; arms switch in the legend."""
    scores: dict[str, dict[int, float]] = {}
    for one in played:
        if one.agent == agent and one.score is not None and not one.crashed:
            scores.setdefault(one.arm, {})[one.environment_seed] = one.score
    base = scores.pop(BASE, {})
    if not base or not scores:
        return None
    order = sorted(base, key=lambda seed: (base[seed], seed))
    rank = {seed: number for number, seed in enumerate(order, start=1)}
    names = {seed: f"episode seed {seed}" for seed in order}
    figure = go.Figure()
    shown = next((arm for arm in scores if kind(arm) == "refinement"), next(iter(scores)))
    for arm, by_seed in scores.items():
        seeds = [seed for seed in order if seed in by_seed]
        legend = {"legendgroup": arm, "visible": True if arm == shown else "legendonly"}
        colour = COLOURS[kind(arm)]
        figure.add_scatter(
            x=[x for seed in seeds for x in (rank[seed], rank[seed], None)],
            y=[y for seed in seeds for y in (base[seed], by_seed[seed], None)],
            mode="lines",
            line={"color": colour, "width": 1},
            opacity=0.6,
            showlegend=False,
            hoverinfo="skip",
            **legend,
        )
        figure.add_scatter(
            name=arm,
            x=[rank[seed] for seed in seeds],
            y=[by_seed[seed] for seed in seeds],
            mode="markers",
            marker=_marker(kind(arm), 7),
            text=[f"{names[s]}<br>difference {by_seed[s] - base[s]:+g}" for s in seeds],
            hovertemplate=f"<b>{arm}</b> %{{y}}<br>%{{text}}<extra></extra>",
            **legend,
        )
    figure.add_scatter(
        name=BASE,
        x=[rank[seed] for seed in order],
        y=[base[seed] for seed in order],
        mode="markers",
        marker=_marker("base", 5),
        text=[names[seed] for seed in order],
        hovertemplate=f"<b>{BASE}</b> %{{y}}<br>%{{text}}<extra></extra>",
    )
    _shape(figure, "", "episodes, by their score under none", "score", 11)
    return _legend(figure)


def cost(summary: Record, agent: str) -> go.Figure | None:
    """Milliseconds per decision, median with p10 to p90, and the ratio to `none`."""
    timed = [
        (arm["arm"], median, arm["latency_ms"])
        for arm in arms(summary, agent)
        if (median := finite((arm.get("latency_ms") or {}).get("median"))) is not None
    ]
    if not timed:
        return None
    base = next((median for arm, median, _ in timed if arm == BASE), None)
    figure = go.Figure()
    figure.add_bar(
        orientation="h",
        x=[median for _, median, _ in timed],
        y=[arm for arm, _, _ in timed],
        marker={"color": [COLOURS[kind(arm)] for arm, _, _ in timed], "opacity": 0.85},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [_distance(spread.get("p90"), median) for _, median, spread in timed],
            "arrayminus": [_distance(median, spread.get("p10")) for _, median, spread in timed],
            "thickness": 1.4,
            "color": COLOURS["base"],
            "width": 3,
        },
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(  # the numbers, right of the error bars
        x=[max(median, finite(spread.get("p90")) or 0.0) for _, median, spread in timed],
        y=[arm for arm, _, _ in timed],
        text=[
            f" {median:.3g} ms" + (f" (×{median / base:.2f})" if base else "")
            for _, median, _ in timed
        ],
        mode="text",
        textposition="middle right",
        cliponaxis=False,
        hoverinfo="skip",
    )
    _shape(figure, "", "milliseconds per decision (p10 to p90)", "", len(timed))
    widest = max(max(median, finite(spread.get("p90")) or 0.0) for _, median, spread in timed)
    figure.update_xaxes(range=[0, 1.5 * widest])  # room for the last number
    return _listed(figure, [arm for arm, _, _ in timed])


def open_loop(summary: Record, agent: str, metric: str) -> go.Figure | None:
    """A metric of open-loop predictions against how many steps ahead they look."""
    figure, steps = go.Figure(), set()
    drawn: dict[str, int] = {"refinement": 0, "control": 0, "base": 0}
    for arm in arms(summary, agent):
        found = {
            step: value
            for step in AHEAD
            if (value := estimate(arm.get(metrics.ahead(metric, step)))) is not None
        }
        if not found:
            continue
        steps |= set(found)
        group = kind(arm["arm"])
        turn = drawn[group]
        drawn[group] += 1
        colour = _LINES[turn % len(_LINES)] if group == "refinement" else COLOURS[group]
        dash = _DASHES[turn % len(_DASHES)] if group == "control" else "solid"
        figure.add_scatter(
            name=arm["arm"],
            x=list(found),
            y=[value.value for value in found.values()],
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 3 if group == "base" else 1.8},
            marker={"symbol": _SYMBOLS[group], "size": 7},
            text=[estimated(value, unit=metric_unit(metric)) for value in found.values()],
            hovertemplate=f"<b>{arm['arm']}</b> t+%{{x}}: %{{text}}<extra></extra>",
        )
    if not figure.data:
        return None
    label = f"{_with_unit(metric_name(metric), metric)} ({metrics.metric(metric).direction})"
    _shape(figure, "", "steps ahead of the last frame seen", label, 11)
    figure.update_xaxes(tickvals=sorted(steps))
    return _legend(figure)


def learning(
    curves: Mapping[str, Record], agents: Sequence[Mapping[str, object]]
) -> go.Figure | None:
    """Score over training, a line a run, with the evaluated agents marked.

    Agents of one training seed are of one run: the longest of their curves is drawn.
    """
    runs: dict[object, tuple[str, Record]] = {}
    seeds = {agent["name"]: agent.get("training_seed") for agent in agents}
    for name, curve in curves.items():
        seed = seeds.get(name)
        if seed not in runs or len(curve["step"]) > len(runs[seed][1]["step"]):
            runs[seed] = (name, curve)
    if not any(curve["step"] for _, curve in runs.values()):
        return None
    figure = go.Figure()
    for turn, (seed, (name, run)) in enumerate(runs.items()):
        colour, curve = _LINES[turn % len(_LINES)], _curve(run)
        figure.add_scatter(
            name=name if seed is None else f"training seed {seed}",
            x=list(curve),
            y=list(curve.values()),
            mode="lines",
            line={"color": colour, "width": 1.8},
            hovertemplate="step %{x}: %{y:.3g}<extra></extra>",
        )
        marked = {
            str(agent["name"]): step
            for agent in agents
            if agent.get("training_seed") == seed
            and (step := finite(agent.get("training_steps"))) is not None
        }
        if marked and curve:
            figure.add_scatter(
                x=list(marked.values()),
                y=[_at(curve, step) for step in marked.values()],
                text=list(marked),
                mode="markers+text",
                textposition="top left",
                marker={"color": colour, "size": 11, "symbol": "star"},
                hovertemplate="<b>%{text}</b>, step %{x}<extra></extra>",
                showlegend=False,
                cliponaxis=False,
            )
    _shape(figure, "", "training steps (decisions)", "score of training episodes", 11)
    return _legend(figure)


def _curve(run: Record) -> dict[float, float]:
    """Score by step; several environments may end an episode at one step, which is averaged."""
    scores: dict[float, list[float]] = {}
    for step, score in zip(run["step"], run["score"], strict=True):
        if (value := finite(score)) is not None:
            scores.setdefault(float(step), []).append(value)
    return {step: sum(found) / len(found) for step, found in sorted(scores.items())}


def _at(curve: dict[float, float], step: int | float) -> float:
    """The score of the recorded point nearest to a step: nothing is interpolated."""
    return curve[min(curve, key=lambda recorded: abs(recorded - step))]


def _tested(record: Record, difference: Estimate, metric: str) -> str:
    """What a comparison says, for the pointer."""
    said = [estimated(difference, signed=True, unit=metric_unit(metric))]
    if (improved := finite(record.get("p_improve"))) is not None:
        said.append(f"P(improve) {number(improved)}")
    if (p := finite(record.get("p_value_holm"))) is not None:
        said.append(f"p (Holm) {p:.2g}")
    said.append(f"{record.get('pairs', '?')} pairs")
    return "<br>".join(said)


def _distance(high: object, low: object) -> float:
    """An error bar's length; none where either end was not recorded."""
    top, bottom = finite(high), finite(low)
    return 0.0 if top is None or bottom is None else max(0.0, top - bottom)


def _marker(group: str, size: int) -> dict:
    outline = 2 if _SYMBOLS[group].endswith("open") else 0
    colour, symbol = COLOURS[group], _SYMBOLS[group]
    return {"color": colour, "symbol": symbol, "size": size, "line": {"width": outline}}


def _with_unit(name: str, metric: str) -> str:
    unit = metric_unit(metric).strip()
    return f"{name}, {unit}" if unit else name


def _shape(figure: go.Figure, heading: str, x: str, y: str, lines: int) -> None:
    figure.update_layout(
        template="none",
        title={"text": heading, "font": {"size": 15}, "x": 0, "xref": "container"},
        height=(60 if heading else 25) + 75 + 26 * lines,
        margin={"l": 8, "r": 12, "t": 44 if heading else 10, "b": 50},
        showlegend=False,
        hovermode="closest",
        dragmode=False,  # a finger on a plot scrolls the page
    )
    plain = {"automargin": True, "zeroline": False, "exponentformat": "none"}
    figure.update_xaxes(title=x, **plain)
    figure.update_yaxes(title=y, **plain)


def _listed(figure: go.Figure, names: list[str]) -> go.Figure:
    """Names down the left, the first on top."""
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=names[::-1], ticksuffix=" "
    )
    return figure


def _legend(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        showlegend=True,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
    )
    return figure
