"""Records of episodes to what they say: means of every arm, paired differences between arms.

A record is one episode of one arm of one agent, a plain dictionary as in `episodes.jsonl`.
Agents that are training seeds of one recipe can be pooled: the pool stands in the summary like
one more agent, whose intervals are over training seeds.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from thinkslow.agent.presets import Arm
from thinkslow.evaluation import metrics, statistics

IMAGE = {"psnr": metrics.psnr, "ssim": metrics.ssim, "mse": metrics.mse}
"""Measures of an image against the one that came."""
AHEAD = (1, 3, 8)
"""Steps ahead of the open-loop predictions."""
LOWER_IS_BETTER = ("mse",)
MEASURES = ("score", "length", *IMAGE)
"""Measures with a mean per arm."""
PREDICTED = {f"psnr+{steps}": str(steps) for steps in AHEAD}
"""Differences of predictions: the PSNR so many steps ahead."""
CONTROL = "control-"
"""How the names of control arms begin."""
UNCARRIED = "control-uncarried"
"""A control of what is carried; what it sees at a moment is a refined state like another."""

Record = dict[str, Any]


def summarise(
    records: Sequence[Record],
    arms: Mapping[str, Arm],
    latencies: Mapping[tuple[str, str], Sequence[float]],
    *,
    batch: int,
    seed: int,
    pool: bool = False,
) -> Record:
    """`{"arms": [...], "comparisons": [...]}` of every agent, and of all of them if pooled.

    `latencies` holds milliseconds per decision by agent and arm, for a batch of `batch`; `seed`
    is the bootstrap's.
    """
    names = list(dict.fromkeys(row["agent"] for row in records))
    groups = {name: [name] for name in names}
    if pool:
        groups[f"{len(names)} training seeds"] = names
    out: Record = {"arms": [], "comparisons": []}
    for group, members in groups.items():
        mine = [row for row in records if row["agent"] in members]
        for name, arm in arms.items():
            taken = [ms for member in members for ms in latencies[member, name]]
            out["arms"].append(
                {"agent": group, "arm": name, "description": arm.description,
                 "thinking": dataclasses.asdict(arm.thinking), "gate": arm.gate, "share": arm.share,
                 "deadline_ms": arm.deadline_ms,
                 **_arm(_of(mine, name), seed), "latency_ms": _spread(taken) | {"batch": batch}}
            )  # fmt: skip
        out["comparisons"] += [{"agent": group, **row} for row in _comparisons(mine, arms, seed)]
    return out


def _arm(rows: list[Record], seed: int) -> Record:
    """Means of one arm, each with its interval."""
    ahead = {steps: [r for r in rows if steps in r["open_loop"]] for steps in PREDICTED.values()}
    return {
        "episodes": len(rows),
        "crashed": sum(row["crashed"] for row in rows),
        **{measure: _mean(rows, [row[measure] for row in rows], seed) for measure in MEASURES},
        "open_loop": {
            steps: {
                name: _mean(long, [row["open_loop"][steps][name] for row in long], seed)
                for name in IMAGE
            }
            for steps, long in ahead.items()
            if long
        },
        "thought_share": float(np.mean([row["thought_share"] for row in rows])),
        "belief_kl": float(np.mean([row["belief_kl"] for row in rows])),
    }


def _comparisons(records: list[Record], arms: Mapping[str, Arm], seed: int) -> Iterator[Record]:
    """Every arm against `none`, and every refinement against every control, pair by pair.

    Holm's correction runs over the arms of one measure and baseline.
    """
    controls = [arm for arm in arms if arm.startswith(CONTROL)]
    for measure in (*MEASURES, *PREDICTED):
        of_states = measure not in ("score", "length")
        for baseline in ("none", *controls):
            against = [
                arm for arm in arms if arm != "none" and (baseline == "none" or arm not in controls)
            ]
            if of_states and baseline == UNCARRIED:
                continue
            if of_states:
                against = [arm for arm in against if arm != UNCARRIED]
            family = list(_family(records, against, baseline, measure, seed))
            adjusted = statistics.holm([row["p_value"] for row in family]) if family else []
            for row, p in zip(family, adjusted, strict=True):
                yield row | {"p_value_holm": float(p)}


def _family(
    records: list[Record], arms: Sequence[str], baseline: str, measure: str, seed: int
) -> Iterator[Record]:
    rows = _of(records, baseline)
    base = _effects(rows, measure)
    for arm in arms:
        values = _effects(_of(records, arm), measure)
        if values is None or base is None:
            continue
        found = statistics.paired(
            np.subtract(values, base), _clusters(rows), seed=seed, name=f"{arm} {measure}"
        )
        better, better_interval = found.p_improve, list(found.p_improve_interval)
        if measure in LOWER_IS_BETTER:
            better, better_interval = 1 - better, [1 - end for end in reversed(better_interval)]
        same = (
            statistics.equivalence(base, values, _clusters(rows)).p_value
            if measure == "score"
            else None
        )
        yield {
            "arm": arm, "baseline": baseline, "metric": measure,
            "difference": found.mean, "interval": list(found.interval),
            "trimmed_mean": found.trimmed_mean, "trimmed_interval": list(found.trimmed_interval),
            "p_improve": better, "p_improve_interval": better_interval,
            "p_value": found.p_value, "correlation": statistics.correlation(base, values),
            "p_equivalent": same, "deviation": found.deviation,
            "pairs": found.pairs, "clusters": found.clusters, "unit": found.unit,
            "untested": found.untested,
        }  # fmt: skip


def _of(records: Sequence[Record], arm: str) -> list[Record]:
    return [row for row in records if row["arm"] == arm]


def _effects(rows: list[Record], measure: str) -> list[float] | None:
    """What arms are compared by: the measure itself, or for images its gain on the same frames.

    None if an episode has it not: no images, or too short to look so far ahead.
    """
    if measure in PREDICTED:
        values = [row["open_loop_gain"].get(PREDICTED[measure], {}).get("psnr") for row in rows]
    elif measure in IMAGE:
        values = [row["gain"][measure] for row in rows]
    else:
        values = [row[measure] for row in rows]
    return None if None in values else [float(value) for value in values]


def _mean(rows: list[Record], values: list[Any], seed: int) -> Record | None:
    if None in values:
        return None
    found = statistics.mean_interval(values, _clusters(rows), seed=seed)
    return {"mean": found.mean, "interval": list(found.interval)}


def _clusters(rows: list[Record]) -> list[str]:
    return [row["agent"] for row in rows]


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return {
        "mean": float(np.mean(values)), "median": float(middle), "p10": float(low),
        "p90": float(high),
    }  # fmt: skip
