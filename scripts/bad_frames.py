"""Decisions on bad observations, for every arm: are actions valid, is it said, does it heal?

Claim: whatever an agent is shown, every action is a valid one and every carry finite; what cannot
be read is flagged (`thought.seen`), and what has other names or shapes is refused with both; and
18 clean frames later the belief is as near to that of an agent which never saw a bad frame as the
belief of one that was reset when the clean frames came back.

Method: the bundled agent `collect-half` on frames of its own episodes, eight environments side by
side. Every arm that is registered, and `evidence` with a deadline of 30 ms. Of each trajectory of
30 decisions those from 6 to 11 are bad; all arms are told the actions that were really taken, so
that frames and carries belong together. `reset` plays the same and begins a new episode at
decision 12. Nats are KL(belief || belief without bad frames), the mean over environments, two
draws of latents and the last six decisions; "farther than reset" lists where the 95% interval of
the paired difference lies above 0. `other` shows six clean frames of another moment in place of
the bad ones.

Reproduce: `uv run python scripts/bad_frames.py` (`--arms A,B`, `--json`). Needs OpenGL, as the
demo does.
"""

import argparse
import collections
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import thinkslow
from thinkslow import registry
from thinkslow.agent.presets import Arm, evidence
from thinkslow.envs import VectorEnv, arguments
from thinkslow.evaluation.protocol import machine
from thinkslow.trees import all_finite

BATCH, LENGTH, BAD, LAST = 8, 30, range(6, 12), range(24, 30)
DRAWS = 2
"""Of latents: keys of a trajectory."""

Frames = Callable[[np.ndarray, int], Any]


def garbled(frames: np.ndarray, at: int) -> np.ndarray:
    return np.random.default_rng(at).permuted(frames[at], axis=2)


def one_nan(frames: np.ndarray, at: int) -> np.ndarray:
    out = frames[at].astype(np.float32) / 255
    out[:, 7, 9, 1] = np.nan
    return out


def filled(value: float, kind: Any) -> Frames:
    return lambda frames, at: np.full_like(frames[at], value, dtype=kind)


READABLE: dict[str, Frames] = {
    "other": lambda frames, at: frames[(at + 12) % LENGTH],
    "black": filled(0, np.uint8),
    "white": filled(255, np.uint8),
    "noise": lambda frames, at: np.random.default_rng(at).integers(
        0, 256, frames[at].shape, np.uint8
    ),
    "garbled": garbled,
    "float in [0, 1]": lambda frames, at: frames[at].astype(np.float32) / 255,
}
"""What may be a picture: nothing can tell, and nothing is flagged."""
UNREADABLE: dict[str, Frames] = {
    "NaN": filled(np.nan, np.float32),
    "one NaN": one_nan,
    "+Inf": filled(np.inf, np.float32),
    "-Inf": filled(-np.inf, np.float32),
    "1e30": filled(1e30, np.float32),
    "float of 0 to 255": lambda frames, at: frames[at].astype(np.float32),
}
REFUSED: dict[str, Callable[[np.ndarray], dict[str, Any]]] = {
    "missing": lambda frame: {},
    "another name": lambda frame: {"picture": frame},
    "channels first": lambda frame: {"image": frame.transpose(0, 3, 1, 2)},
    "half the size": lambda frame: {"image": frame[:, ::2, ::2]},
    "grey": lambda frame: {"image": frame[..., :1]},
    "no batch": lambda frame: {"image": frame[0]},
    "another batch": lambda frame: {"image": frame[:3]},
    "text": lambda frame: {"image": np.full(len(frame), "x")},
    "objects": lambda frame: {"image": frame.astype(object)},
}


def recorded(agent: Any) -> tuple[np.ndarray, np.ndarray]:
    """Frames `[time, batch, ...]` and action vectors of the base agent's own episodes."""
    frames, actions = [], []
    with VectorEnv(**arguments(agent.about.environment), count=BATCH) as envs:
        step, carry = envs.reset(range(BATCH)), agent.start(BATCH)
        for at in range(LENGTH):
            keys = jr.split(jr.key(at), BATCH)
            carry, action, _ = agent.act(carry, step.observation, step.is_first, keys=keys)
            frames.append(step.observation["image"])
            actions.append(np.asarray(action))
            taken = agent.model.split(np.asarray(action))
            step = envs.step(next(iter(taken.values())))
    return np.array(frames), np.array(actions)


def spoilt(frames: np.ndarray, bad: Frames) -> Callable[[int], Any]:
    """What is shown at each decision."""
    return lambda at: bad(frames, at) if at in BAD else frames[at]


@dataclasses.dataclass
class Played:
    beliefs: list[Any]
    invalid: int
    """Actions that are not one of the classes."""
    broken: int
    """Decisions after which a carry was not finite."""
    flagged: int
    """Of the bad decisions."""


def played(
    agent: Any, actions: np.ndarray, shown: Callable[[int], Any], draw: int, reset: int = -1
) -> Played:
    carry, out = agent.start(BATCH), Played([], 0, 0, 0)
    for at in range(LENGTH):
        first = np.full(BATCH, at in (0, reset))
        carry, action, thought = agent.act(
            carry, {"image": shown(at)}, first, keys=jr.split(jr.key(100 * (1 + draw) + at), BATCH)
        )
        vector = np.asarray(action)
        valid = ((vector == 0) | (vector == 1)).all(-1) & (vector.sum(-1) == 1)
        out.invalid += int((~valid).sum())
        numbers = [x for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.floating)]
        out.broken += int(not all_finite(numbers))
        if at in BAD:
            out.flagged += int((~np.asarray(thought.seen)).sum())
        out.beliefs.append(thought.after)
        carry = dataclasses.replace(carry, action=jnp.asarray(actions[at]))
    return out


def apart(one: Played, other: Played) -> np.ndarray:
    """Nats between the beliefs of the last decisions, of each environment."""
    found = [
        np.asarray(jax.vmap(lambda a, b: a.kl(b))(one.beliefs[at], other.beliefs[at]))
        for at in LAST
    ]
    return np.mean(found, 0)


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Of the mean, 95%, by 2,000 resamples of environments and draws."""
    drawn = np.random.default_rng(0).choice(differences, (2000, len(differences)))
    low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
    return float(low), float(high)


def refused(agent: Any, frames: np.ndarray) -> dict[str, str]:
    """What is said of each observation that cannot be the agent's; `accepted` where nothing is."""
    out = {}
    for name, spoil in REFUSED.items():
        carry = agent.start(BATCH)
        try:
            agent.act(
                carry, spoil(frames[0]), np.ones(BATCH, bool), keys=jr.split(jr.key(0), BATCH)
            )
        except (ValueError, TypeError) as error:
            out[name] = f"{type(error).__name__}: {error}"
        else:
            out[name] = "accepted"
    return out


def poisoned(agent: Any, actions: np.ndarray, frames: np.ndarray) -> dict[str, int]:
    """Invalid actions and broken carries after a carry of NaN, without a new episode."""
    carry = jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        agent.start(BATCH),
    )
    carry, action, _ = agent.act(
        carry, {"image": frames[0]}, np.zeros(BATCH, bool), keys=jr.split(jr.key(0), BATCH)
    )
    numbers = [x for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.floating)]
    vector = np.asarray(action)
    invalid = int((~((vector.sum(-1) == 1) & np.isin(vector, (0, 1)).all(-1))).sum())
    return {"invalid": invalid, "broken": int(not all_finite(numbers))}


def arm_of(base: Any, name: str) -> Any:
    """An arm of the bundled agent, its gate open for every decision."""
    how = Arm(evidence(), deadline_ms=30.0) if name == "deadline-30" else registry.make("arm", name)
    agent = base.thinking(how)
    return agent.opening_above(-np.inf) if hasattr(agent, "opening_above") else agent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arms", help="joined by commas; by default all")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args()
    base = thinkslow.load("collect-half")
    frames, actions = recorded(base)
    names = given.arms.split(",") if given.arms else [*registry.entries("arm"), "deadline-30"]
    total: collections.Counter[str] = collections.Counter()
    nats: dict[str, dict[str, np.ndarray]] = {}
    skipped: dict[str, str] = {}
    for name in names:
        begun = time.monotonic()
        try:
            agent = arm_of(base, name)
        except ValueError as error:
            skipped[name] = str(error)
            continue
        found: dict[str, list[np.ndarray]] = collections.defaultdict(list)
        for draw in range(DRAWS):
            clean = played(agent, actions, lambda at: frames[at], draw)
            for kind, bad in {**READABLE, **UNREADABLE}.items():
                one = played(agent, actions, spoilt(frames, bad), draw)
                found[kind].append(apart(one, clean))
                total["decisions"] += LENGTH * BATCH
                total["bad"] += len(BAD) * BATCH
                total["invalid actions"] += one.invalid
                total["carries not finite"] += one.broken
                if kind in UNREADABLE:
                    total["unreadable"] += len(BAD) * BATCH
                    total["unreadable, flagged"] += one.flagged
                else:
                    total["readable, flagged"] += one.flagged
            anew = played(agent, actions, spoilt(frames, UNREADABLE["NaN"]), draw, BAD.stop)
            found["reset"].append(apart(anew, clean))
        nats[name] = {kind: np.concatenate(each) for kind, each in found.items()}
        healed = poisoned(agent, actions, frames)
        total["invalid after a carry of NaN"] += healed["invalid"]
        total["broken after a carry of NaN"] += healed["broken"]
        said = refused(agent, frames)
        total["refused by name"] += sum("`image`" in one or "lacks" in one or "sees" in one
                                        for one in said.values())  # fmt: skip
        total["to be refused"] += len(said)
        for kind, one in said.items():
            if name == "none" or one == "accepted":
                print(f"{name}, {kind}: {one[:200]}", file=sys.stderr)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    rows = {
        name: {kind: float(each.mean()) for kind, each in row.items()} for name, row in nats.items()
    }
    worse = {}
    for name, row in nats.items():
        for kind in (*READABLE, *UNREADABLE):
            low, high = interval(row[kind] - row["reset"])
            if low > 0:
                worse[f"{name}, {kind}"] = [round(low, 2), round(high, 2)]
    report = {
        "machine": machine(), "counts": dict(total), "nats": rows, "refused arms": skipped,
        "farther than reset": worse,
    }  # fmt: skip
    if given.json:
        print(json.dumps(report, indent=1))
    else:
        kinds = ["reset", *READABLE, *UNREADABLE]
        print("| arm | " + " | ".join(kinds) + " |\n|" + "---|" * (len(kinds) + 1))
        for name, row in rows.items():
            print(f"| {name} | " + " | ".join(f"{row[kind]:.1f}" for kind in kinds) + " |")
        for what, count in total.items():
            print(f"{what}: {count:,}")
        print(f"farther than reset: {worse or 'none'}\nrefused: {skipped}\n{machine()}")
    faults = ("invalid actions", "carries not finite", "invalid after a carry of NaN",
              "broken after a carry of NaN")  # fmt: skip
    return sum(total[one] for one in faults) > 0


if __name__ == "__main__":
    sys.exit(main())
