"""Revisit error of an agent's arms: is what comes into view again predicted?

Method: `thinkslow.evaluation.revisit`. The base agent plays; every `--every` decisions it turns
away `--away` times and back as often. All arms are led through these episodes, so they see the same
frames. Each measure is a PSNR in dB, a mean over the situations of an episode; the table shows the
difference from `none`, its 95% bootstrap interval over episodes, and `*` where p < .05 after Holm's
correction over the arms of one agent and measure.

Beside the arms there are rows for scale. `blank` is the base agent whose memory is erased at every
turning point: what the present frame and the model alone predict. `hold` predicts that the view
stays as it is at the turning point. For an arm that smooths there are three controls with the same
program: its fixed lag (0 nats), and both with the later frames of each window in a wrong order.
`--particles N` adds that many, to compare at equal cost; ms are medians of a decision of a batch.

Reproduce: `uv run python scripts/revisit.py collect-good collect-half` (`--json FILE` keeps all
numbers of every episode). Any agent and environment will do where two discrete actions undo each
other: `--there`, `--back`. Needs OpenGL for the bundled agents.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import thinkslow
from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.thinking import Thinking
from thinkslow.envs import VectorEnv, arguments
from thinkslow.evaluation.images import psnr
from thinkslow.evaluation.protocol import machine
from thinkslow.evaluation.revisit import MEASURES, Turns, returned, revisits
from thinkslow.evaluation.scoring import visible
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.statistics import holm, paired
from thinkslow.evaluation.walks import Walk, walked

ARMS = "none,smooth-5,control-lag-3,control-soft,control-mode,control-particles-16"
Found = dict[str, np.ndarray]
Change = Callable[[Walk], Callable[[Any, int], Any]]


@dataclasses.dataclass(frozen=True)
class Row:
    """An arm or a control, and what is done to it."""

    agent: AbstractAgent
    change: Change | None = None
    forgets: bool = False


def shuffled(lag: int) -> Change:
    """The frames between the oldest and the present one of each window in a wrong order.

    The carry holds `lag` frames; the oldest leaves when the present one comes.
    """
    order = np.arange(lag)
    order[2:] = np.roll(order[2:], 1)

    def change(walk: Walk) -> Callable[[Any, int], Any]:
        def of(carry: Any, decision: int) -> Any:
            if carry.past is None or decision < lag:
                return carry
            kept = carry.past.observations
            wrong = {
                name: np.stack([walk.observations[name][decision - lag + at] for at in order], 1)
                for name in kept
            }
            past = dataclasses.replace(carry.past, observations=wrong)
            return dataclasses.replace(carry, past=past)

        return of

    return change


def rows_of(base: Any, names: list[str], particles: int | None) -> dict[str, Row]:
    """Every row by its name, the base agent first."""
    where, rows = base.about.environment, {"none": Row(base)}
    rows["blank"] = Row(base, forgets=True)
    for name in names:
        if name == "none":
            continue
        agent = thinkslow.calibrated(base.thinking(name), where)
        rows[name] = Row(agent)
        settings = agent.inner.settings if agent.inner is not None else Thinking()
        if settings.smoothing:
            still = base.thinking(dataclasses.replace(settings, smoothing_nats=0.0))
            wrong = shuffled(settings.lag)
            rows[f"{name}, 0 nats"] = Row(still)
            rows[f"{name}, shuffled"] = Row(agent, wrong)
            rows[f"{name}, shuffled, 0 nats"] = Row(still, wrong)
    if particles:
        rows[f"particles-{particles}"] = Row(base.thinking(Thinking(particles=particles)))
    return rows


def held(walk: Walk, turns: Turns, image: str) -> Found:
    """The prediction that the view stays as it is at the turning point."""
    shown, points = walk.observations[image], turns.points(len(walk))
    counts = returned(walk, turns, image)
    steps = range(1, turns.away + 1)
    ways = np.array([[psnr(shown[at], shown[at + by]) for by in steps] for at in points])
    ways[~np.broadcast_to(counts[:, None], ways.shape)] = np.nan
    out = {measure: np.full(walk.going.shape[1], np.nan) for measure in MEASURES}
    return out | {"return": np.nanmean(ways[:, -1], 0), "way back": np.nanmean(ways, (0, 1))}


def measured(
    name: str, given: argparse.Namespace
) -> tuple[dict[str, Found], dict[str, float], int]:
    """Of one agent every row's numbers by episode, its milliseconds, and how many situations
    counted.
    """
    base: Any = thinkslow.load(name)
    classes = dict(base.model.action_spaces)
    kinds = [space.classes for space in classes.values()]
    if len(kinds) != 1 or kinds[0] is None or max(given.there, given.back) >= kinds[0]:
        raise SystemExit(
            f"`there` and `back` must be two of the classes of one discrete action; {name} has "
            f"{classes}, and {given.there} and {given.back} were given."
        )
    vectors = np.eye(kinds[0], dtype=np.float32)
    turns = Turns(vectors[given.there], vectors[given.back], given.away, given.every)
    rows = rows_of(base, given.arms.split(","), given.particles)
    parts: dict[str, list[Found]] = {row: [] for row in [*rows, "hold"]}
    spent: dict[str, list[float]] = {row: [] for row in rows}
    timed, situations = {}, 0
    with VectorEnv(**arguments(base.about.environment), count=given.batch) as envs:
        image = given.image or visible(base.model, envs.observation_space)[0]
        for block in range(given.episodes // given.batch):
            numbers = range(block * given.batch, (block + 1) * given.batch)
            seeds = [episode_seed(given.seed, number) for number in numbers]
            walk = walked(
                base, envs, seeds, given.seed, script=turns.script, decisions=given.decisions
            )
            situations += int(returned(walk, turns, image).sum())
            parts["hold"].append(held(walk, turns, image))
            for row, how in rows.items():
                begun = time.monotonic()
                change = None if how.change is None else how.change(walk)
                parts[row].append(
                    revisits(how.agent, walk, turns, image, changed=change, forgets=how.forgets)
                )
                spent[row].append(1e3 * (time.monotonic() - begun) / len(walk))
                print(
                    f"{name}, block {block}, {row}: {spent[row][-1]:.1f} ms a decision",
                    file=sys.stderr,
                    flush=True,
                )
            timed = {row: latency(how.agent, walk) for row, how in rows.items()}
    found = {
        row: {measure: np.concatenate([one[measure] for one in blocks]) for measure in MEASURES}
        for row, blocks in parts.items()
    }
    return found, timed, situations


def latency(agent: AbstractAgent, walk: Walk, repeats: int = 20) -> float:
    """Median milliseconds of a decision of the whole batch, compiled before."""
    carry, times = agent.start(walk.going.shape[1]), []
    for decision in range(repeats + 2):
        keys = jax.block_until_ready(walk.keys(decision))
        first = np.full(walk.going.shape[1], decision == 0)
        begun = time.perf_counter()
        carry, _, _ = jax.block_until_ready(agent.act(carry, walk.seen(decision), first, keys=keys))
        times.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(times[2:]))


def difference(one: Found, other: Found, measure: str) -> Any:
    """Paired over the episodes that have a situation; None without any."""
    apart = one[measure] - other[measure]
    apart = apart[~np.isnan(apart)]
    return paired(apart, seed=0) if len(apart) else None


def shown(found: Mapping[str, Found], timed: Mapping[str, float]) -> None:
    """The tables of one agent."""
    print("| row | " + " | ".join(MEASURES) + " | ms |\n|" + "---|" * (len(MEASURES) + 2))
    means = [f"{np.nanmean(found['none'][measure]):.2f}" for measure in MEASURES]
    print("| none | " + " | ".join(means) + f" | {timed['none']:.1f} |")
    others = [row for row in found if row != "none"]
    tests = {
        measure: {row: difference(found[row], found["none"], measure) for row in others}
        for measure in MEASURES
    }
    stars = {}
    for measure, each in tests.items():
        known = [row for row in others if each[row] is not None and row not in ("blank", "hold")]
        corrected = holm([each[row].p_value for row in known])
        stars |= {(measure, row): p < 0.05 for row, p in zip(known, corrected, strict=True)}
    for row in others:
        cells = [
            written(tests[measure][row], stars.get((measure, row), False)) for measure in MEASURES
        ]
        print(f"| {row} | " + " | ".join(cells) + f" | {timed.get(row, float('nan')):.1f} |")
    smooth = [row for row in found if f"{row}, shuffled, 0 nats" in found]
    for row in smooth:
        print("\n| difference | " + " | ".join(MEASURES) + " |\n|" + "---|" * (len(MEASURES) + 1))
        gain = {m: found[row][m] - found[f"{row}, 0 nats"][m] for m in MEASURES}
        false = {
            m: found[f"{row}, shuffled"][m] - found[f"{row}, shuffled, 0 nats"][m] for m in MEASURES
        }
        nothing = {m: np.zeros_like(gain[m]) for m in MEASURES}
        pairs = {"its fixed lag": (gain, nothing), "the same, shuffled": (gain, false)}
        pairs |= {
            other: (found[row], found[other])
            for other in found
            if other.startswith(("control-", "particles-"))
        }
        for other, (left, right) in pairs.items():
            cells = [written(difference(left, right, m), False) for m in MEASURES]
            print(f"| {row} − {other} | " + " | ".join(cells) + " |")


def written(found: Any, starred: bool) -> str:
    if found is None:
        return "–"
    low, high = found.interval
    text = f"{found.mean:+.2f} [{low:.2f}, {high:.2f}]{'*' if starred else ''}"
    return text.replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agents", nargs="+")
    parser.add_argument("--arms", default=ARMS, help="joined by commas")
    parser.add_argument("--particles", type=int, help="also this many particles")
    parser.add_argument("--episodes", type=int, default=40, help="a multiple of the batch")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decisions", type=int, help="of an episode; by default to its end")
    parser.add_argument("--there", type=int, default=0, help="the action that turns away")
    parser.add_argument("--back", type=int, default=1, help="the action that turns back")
    parser.add_argument("--away", type=int, default=4, help="times that it turns away")
    parser.add_argument("--every", type=int, default=30, help="decisions between situations")
    parser.add_argument("--image", help="by default the first that the agent decodes")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    given = parser.parse_args()
    if given.episodes < given.batch or given.episodes % given.batch:
        parser.error(f"--episodes must be a multiple of --batch; got {given.episodes}")
    report: dict[str, Any] = {"machine": machine(), "arguments": dict(vars(given), json=None)}
    for name in given.agents:
        found, timed, situations = measured(name, given)
        print(f"\n{name}: {situations} situations in {given.episodes} episodes\n")
        shown(found, timed)
        report[name] = {
            "situations": situations,
            "ms": timed,
            "episodes": {
                row: {measure: values.tolist() for measure, values in each.items()}
                for row, each in found.items()
            },
        }
        if given.json:
            given.json.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
