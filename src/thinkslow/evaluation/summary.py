"""Summarise the records of episodes: means of every arm, differences between arms.

The summary is a pure function of the records, finished or not. Episodes of two arms are paired by
agent and environment seed, never by their position. If one side of a pair is missing, crashed or
non-finite, the pair is left out of that measure only, and counted. Training seeds of one recipe can
be pooled: the pool is one more agent in the summary, with intervals over training seeds.
"""

import collections
import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thinkslow.evaluation import statistics
from thinkslow.evaluation.metrics import Metric, metric, scored
from thinkslow.evaluation.pairs import UNSEEDED, pairs
from thinkslow.evaluation.reading import CONTROL
from thinkslow.evaluation.records import BASE, FORMAT, Episode, Header, Records, Row
from thinkslow.plural import plural

Record = dict[str, Any]

OUT = "--out"

UNCARRIED = "control-uncarried"
"""A control of the carry. Its state at one moment is refined like that of other arms."""


def summarise(records: Records) -> Record:
    """The summary: `arms` and `comparisons` of every agent, and of the pool if there is one.

    It also holds agents, environment, protocol, the numbers of finished and planned episodes, and
    `notes`, sentences that a reader of the numbers must know.

    Args:
        records: from `read`.
    """
    header, episodes = records.header, records.episodes
    names = [agent["name"] for agent in header.agents]
    groups = {name: [name] for name in names}
    if header.pool:
        groups[plural(len(names), "training seed")] = names
    facts = {(arm["agent"], arm["arm"]): arm for arm in header.arms}
    metrics = scored({image for images in header.images.values() for image in images})
    out: Record = {"arms": [], "comparisons": []}
    for group, members in groups.items():
        arms = list(dict.fromkeys(arm["arm"] for arm in header.arms if arm["agent"] in members))
        played = {
            arm: [one for one in episodes if one.arm == arm and one.agent in members]
            for arm in arms
        }
        out["arms"] += [
            facts[next(m for m in members if (m, arm) in facts), arm]
            | {"agent": group, **_arm(played[arm], metrics, header)}
            for arm in arms
            if played[arm]
        ]
        out["comparisons"] += [
            {"agent": group, **row} for row in _comparisons(played, metrics, header.seed)
        ]
    first = header.sittings[0] if header.sittings else {}
    said = header.sittings[-1].get("command") if header.sittings else None
    command = {"command": _continuing(said, records.folder)} if header.sittings else {}
    agreed = agreement(episodes, records.whole, header.seed)
    return {
        "format": FORMAT,
        "agents": [dict(agent) for agent in header.agents],
        "environment": dict(header.environment),
        "protocol": {
            "name": header.protocol,
            "episodes": header.episodes,
            "seed": header.seed,
            "batch": header.count,
            "max_decisions": header.max_decisions,
            "versions": header.versions,
            **first,
            **command,
            "sittings": len(header.sittings),
        },
        "images": header.images,
        "finished": records.finished,
        "agreement": agreed,
        "played": len(episodes),
        "expected": header.expected,
        **out,
        "notes": [*_notes(records, out["comparisons"]), *_agreements(agreed)],
    }


def _continuing(command: str | None, folder: Path | None) -> str | None:
    """The command of the last sitting, to continue in a folder that was moved or copied since.

    >>> _continuing("thinkslow evaluate mine --out out/a --seed 1", Path("kept/a b"))
    "thinkslow evaluate mine --out 'kept/a b' --seed 1"
    """
    if folder is None or not command or not command.startswith("thinkslow "):
        return command
    words = shlex.split(command)
    place = words.index(OUT) + 1 if OUT in words[:-1] else 0
    if not place or Path(words[place]).resolve() == folder.resolve():
        return command
    return shlex.join([*words[:place], str(folder), *words[place + 1 :]])


def flat(comparisons: Sequence[Record]) -> list[Row]:
    """Comparisons without lists in them, for a data frame: `interval_low`, `interval_high`."""
    out = []
    for row in comparisons:
        cells: Row = {}
        for name, value in row.items():
            if name.endswith("interval"):
                cells[f"{name}_low"], cells[f"{name}_high"] = value or (None, None)
            else:
                cells[name] = value
        out.append(cells)
    return out


def _arm(rows: Sequence[Episode], metrics: Sequence[Metric], header: Header) -> Record:
    """Means of one arm, each with its interval."""
    whole = [row for row in rows if not row.crashed]
    return {
        "episodes": len(rows),
        "crashed": len(rows) - len(whole),
        "cut": sum(row.cut for row in whole),
        "nonfinite": sum(row.nonfinite > 0 for row in whole),
        **{
            one.name: _mean(whole, one.name, header.seed)
            for one in metrics
            if one.name not in ("thought_share", "belief_kl", "latency_ms")
        },
        "thought_share": _average(whole, "thought_share"),
        "belief_kl": _average(whole, "belief_kl"),
        "latency_ms": _latency(whole, header.count),
        "late_share": _average(whole, "late_share"),
    }


def _mean(rows: Sequence[Episode], column: str, seed: int) -> Record | None:
    known = [(row, value) for row in rows if (value := row.value(column)) is not None]
    if not known:
        return None
    found = statistics.mean_interval(
        [value for _, value in known], [row.agent for row, _ in known], seed=seed, name=column
    )
    return {"mean": found.mean, "interval": _plain(found.interval), "episodes": len(known)}


def _average(rows: Sequence[Episode], column: str) -> float | None:
    known = [value for row in rows if (value := row.value(column)) is not None]
    return float(np.mean(known)) if known else None


def _latency(rows: Sequence[Episode], batch: int) -> Record | None:
    """Medians over episodes of the median and percentiles of each; the mean over decisions."""
    known = [row for row in rows if row.latency_ms is not None]
    if not known:
        return None
    columns = {"median": "latency_ms", "p10": "latency_ms_p10", "p90": "latency_ms_p90"}
    return {
        "mean": float(
            np.average(
                [row.latency_ms_mean or 0.0 for row in known], weights=[row.length for row in known]
            )
        ),
        **{
            name: float(np.median([row.value(column) or 0.0 for row in known]))
            for name, column in columns.items()
        },
        "batch": batch,
    }


def _comparisons(
    played: dict[str, list[Episode]], metrics: Sequence[Metric], seed: int
) -> Iterator[Record]:
    """Every arm against `none`, and every refinement against every control, pair by pair.

    Holm's correction runs over the arms of one measure and baseline.
    """
    controls = [arm for arm in played if arm.startswith(CONTROL)]
    for measure in metrics:
        if measure.effect is None:
            continue
        for baseline in (BASE, *controls):
            against = [
                arm for arm in played if arm != BASE and (baseline == BASE or arm not in controls)
            ]
            if measure.of_states and baseline == UNCARRIED:
                continue
            if measure.of_states:
                against = [arm for arm in against if arm != UNCARRIED]
            family = [
                row
                for arm in against
                if (row := _compared(played[arm], played[baseline], measure, seed)) is not None
            ]
            tested = [row for row in family if row["p_value"] is not None]
            adjusted = statistics.holm([row["p_value"] for row in tested]) if tested else []
            for row, p in zip(tested, adjusted, strict=True):
                row["p_value_holm"] = float(p)
            yield from family


def _compared(
    mine: Sequence[Episode], base: Sequence[Episode], measure: Metric, seed: int
) -> Record | None:
    """One arm against one baseline; None if neither has the measure, or nothing was played."""
    joined = pairs(mine, base, measure)
    if joined is None:
        return None
    out: Record = {
        "arm": mine[0].arm,
        "baseline": base[0].arm,
        "metric": measure.name,
        "difference": None,
        "interval": None,
        "trimmed_mean": None,
        "trimmed_interval": None,
        "p_improve": None,
        "p_improve_interval": None,
        "p_value": None,
        "p_value_holm": None,
        "correlation": None,
        "p_equivalent": None,
        "deviation": None,
        "pairs": len(joined.differences),
        "clusters": None,
        "unit": None,
        "untested": None,
        "dropped": joined.dropped,
        "paired": joined.same_start,
    }
    if not len(joined.differences):
        return out
    after, before, clusters = joined.after, joined.before, joined.agents
    name = f"{measure.name} of {mine[0].arm}"
    if not joined.same_start:
        return out | _independent(after, before, clusters, measure, name)
    found = statistics.paired(joined.differences, clusters, seed=seed, name=name)
    facts = dataclasses.asdict(found)
    facts["difference"] = facts.pop("mean")
    if not measure.higher:
        low, high = found.p_improve_interval
        facts |= {"p_improve": 1 - found.p_improve, "p_improve_interval": (1 - high, 1 - low)}
    if measure.name == "score":
        facts["p_equivalent"] = statistics.equivalence(before, after, clusters).p_value
    facts["correlation"] = statistics.correlation(before, after)
    return out | {key: _plain(value) for key, value in facts.items()}


def _independent(
    after: np.ndarray, before: np.ndarray, clusters: Sequence[str], measure: Metric, name: str
) -> Record:
    """The comparison of unpaired episodes: of the means of two samples."""
    wins = np.sign(after[:, None] - before[None, :])
    better = float((wins.mean() + 1) / 2)
    out: Record = {
        "difference": float(after.mean() - before.mean()),
        "p_improve": better if measure.higher else 1 - better,
    }
    if len(set(clusters)) < 2 and len(after) < 2:
        return out
    found = statistics.interaction(after, before, clusters, clusters, name=name)
    return out | {
        "difference": found.difference,
        "interval": _plain(found.interval),
        "p_value": found.p_value,
        "unit": found.unit,
        "untested": found.untested,
        "clusters": len(set(clusters)),
    }


def agreement(windows: Sequence[Episode], whole: Sequence[Episode], seed: int) -> list[Record]:
    """By agent and arm: the score of windows minus the score of whole episodes of the same
    environment seeds. Both are compared with the same base episode, which cancels.

    Args:
        windows: the episodes of `paired-v2`.
        whole: the episodes among them that were also played whole.
        seed: the random seed of the bootstrap.

    `interval` is the 95% interval of Student's t over episodes; `agree` is whether it contains 0.
    Both are None for a single pair.
    """
    out = []
    score = metric("score")
    for agent, arm in dict.fromkeys((one.agent, one.arm) for one in whole):
        mine, other = (
            [one for one in some if (one.agent, one.arm) == (agent, arm)]
            for some in (windows, whole)
        )
        joined = pairs(mine, other, score)
        if joined is None or not len(joined.differences):
            continue
        # Student's t: for so few episodes, bootstrap percentiles are too narrow.
        each = list(range(len(joined.differences)))
        found = statistics.paired(joined.differences, each, seed=seed, name=f"agreement of {arm}")
        interval = _plain(found.interval) if len(joined.differences) > 1 else None
        out.append(
            {
                "agent": agent,
                "arm": arm,
                "episodes": len(joined.differences),
                "difference": found.mean,
                "interval": interval,
                "agree": None if interval is None else interval[0] <= 0 <= interval[1],
            }
        )
    return out


def _agreements(agreed: Sequence[Record]) -> Iterator[str]:
    for row in agreed:
        if row["interval"] is None:
            continue
        low, high = row["interval"]
        verdict = "they agree" if row["agree"] else "they do NOT agree: trust whole episodes"
        yield (
            f"{row['agent']}, {row['arm']}: windows score {row['difference']:+.2f} "
            f"[{low:.2f}, {high:.2f}] above {plural(row['episodes'], 'whole episode')} of the "
            f"same seeds, so {verdict}."
        )


def _plain(value: Any) -> Any:
    """The value in the form of JSON, without tuples and NaN."""
    if isinstance(value, tuple):
        return None if any(_plain(one) is None for one in value) else list(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _sittings(header: Header) -> Iterator[str]:
    """What differs between the processes that played."""
    told = {
        key: list(dict.fromkeys(one[key] for one in header.sittings if one.get(key)))
        for key in ("machine", "revision")
    }
    if len(told["machine"]) > 1:
        yield (
            f"Milliseconds were measured on different machines ({'; '.join(told['machine'])}), so "
            "those of two arms may differ for this reason alone."
        )
    if len(told["revision"]) > 1:
        yield (
            f"Episodes were played by different revisions ({', '.join(told['revision'])}). Whether "
            "these compute the same is not known."
        )


def _notes(records: Records, comparisons: Sequence[Record]) -> Iterator[str]:
    """Notes that are needed to read the numbers correctly, one sentence each."""
    header, episodes = records.header, records.episodes
    if not records.finished:
        done, total, what = len(episodes), header.expected, "episodes"
        if done == total:
            done, total = len(records.whole), header.expected_whole
            what = "whole episodes, which check the windows,"
        yield (
            f"Not finished: {done} of {total} {what} were played. The same command continues with "
            "the rest."
        )
    yield from _sittings(header)
    if any(not row["paired"] for row in comparisons):
        yield (
            f"With the same seed, episodes of two arms of {header.environment['id']} began "
            f"differently, so {UNSEEDED}. Episodes are therefore not paired, and arms are compared "
            "as independent samples."
        )
    yield from [one["unrepeated"] for one in header.sittings if one.get("unrepeated")][:1]
    seeds = {one.environment_seed for one in episodes}
    if len(seeds) > 1 and len({one.first_observation for one in episodes}) == 1:
        yield (
            f"Every episode of {header.environment['id']} began with the same observation, "
            "whatever its seed. If it should begin in several ways, it ignores its seed, and so "
            "many episodes tell less than they seem to."
        )
    for arm in header.arms:
        mine = [one for one in episodes if (one.agent, one.arm) == (arm["agent"], arm["arm"])]
        late = _average([one for one in mine if not one.crashed], "late_share")
        if late is not None:
            yield (
                f"{arm['agent']}, {arm['arm']}: {late:.0%} of the decisions took longer than the "
                f"deadline of {arm['deadline_ms']:g} ms."
            )
    if crashed := [one for one in episodes if one.crashed]:
        error, times = collections.Counter(
            one.error or "its process died" for one in crashed
        ).most_common(1)[0]
        yield (
            f"{len(crashed)} of {len(episodes)} episodes ended because the environment failed. "
            "They are left out with their pairs. "
            f"{'All' if times == len(crashed) else 'Most'}: {error}."
        )
    if cut := sum(one.cut for one in episodes):
        yield (
            f"{cut} of {len(episodes)} episodes {'was' if cut == 1 else 'were'} cut after "
            f"{plural(header.max_decisions or 0, 'decision')}: the score counts only what was "
            "played until then."
        )
    if strange := [one for one in episodes if one.nonfinite]:
        yield (
            f"{len(strange)} of {len(episodes)} episodes had non-finite rewards or observations. "
            f"Scores of such rewards are left out with their pairs. The first: "
            f"{strange[0].nonfinite_first}, episode {strange[0].episode} (environment seed "
            f"{strange[0].environment_seed}) of {strange[0].arm}."
        )
