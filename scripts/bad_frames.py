"""Decisions on bad observations, for every arm: are actions valid, is it flagged, does it heal?

Claim: whatever an agent is shown, every action is a valid one and every carry finite; what cannot
be read is flagged (`thought.seen`), and so is an image of one colour (`thought.blank`); what has
other names or shapes is refused with both; and after 18 clean frames the belief is as good as that
of an agent which was reset when the clean frames came back.

Method: the bundled agent `collect-half` on frames of its own episodes. Every arm that is
registered, and `evidence` with a deadline of 30 ms; gates open for every decision, checks and
values are calibrated. Each kind of frame has a copy of the same environments in one batch, with
the same random numbers. Of 30 decisions those from 6 to 11 are bad; all arms are told the actions
that were really taken, so that frames and carries belong together. `reset` begins a new episode
at decision 12; `other` shows six clean frames of another moment; `redrawn` shows no bad frame
and has other random numbers.

Three measures, means of the decisions 24 to 29, which follow 12 to 17 clean frames. `nats` is
KL(belief || belief without bad frames): how far the agent is from where it would have been;
`redrawn` is how far its own random numbers take it. `surprise` is KL(encoder's belief || prior):
how badly the carry predicts the frame that comes, whatever it remembers. `policy` is the total
variation between the policy and the policy without bad frames, each in the state that acts: the
probability that the two cannot be made to take the same action. "Worse than reset" is the
difference to `reset`, with its 95% interval over environments, uncorrected, and the p-value of a
paired t test after Holm's correction over all arms and kinds of the command.

Reproduce: `uv run python scripts/bad_frames.py` (`--arms A,B`, `--draws N`, `--environments N`,
`--json`). Needs OpenGL, as the demo does.
"""

import argparse
import collections
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import thinkslow
from thinkslow import registry
from thinkslow.agent.arms.arm import Arm
from thinkslow.agent.arms.presets import evidence
from thinkslow.envs import VectorEnv, arguments
from thinkslow.evaluation.protocol import machine
from thinkslow.evaluation.statistics import holm, paired
from thinkslow.trees import all_finite

LENGTH, BAD, LAST = 30, range(6, 12), range(24, 30)

Frames = Callable[[np.ndarray, int], Any]


def garbled(frames: np.ndarray, at: int) -> np.ndarray:
    return np.random.default_rng(at).permuted(frames[at], axis=2)


def one_nan(frames: np.ndarray, at: int) -> np.ndarray:
    out = frames[at].astype(np.float32) / 255
    out[:, 7, 9, 1] = np.nan
    return out


def filled(value: float, kind: Any) -> Frames:
    return lambda frames, at: np.full_like(frames[at], value, dtype=kind)


def clean(frames: np.ndarray, at: int) -> np.ndarray:
    return frames[at]


BYTES: dict[str, Frames] = {
    "clean": clean,
    "redrawn": clean,
    "reset": clean,
    "missing": clean,
    "other": lambda frames, at: frames[(at + 12) % LENGTH],
    "black": filled(0, np.uint8),
    "white": filled(255, np.uint8),
    "noise": lambda frames, at: np.random.default_rng(at).integers(
        0, 256, frames[at].shape, np.uint8
    ),
    "garbled": garbled,
}
FLOATS: dict[str, Frames] = {
    "float in [0, 1]": lambda frames, at: frames[at].astype(np.float32) / 255,
    "NaN": filled(np.nan, np.float32),
    "one NaN": one_nan,
    "+Inf": filled(np.inf, np.float32),
    "-Inf": filled(-np.inf, np.float32),
    "1e30": filled(1e30, np.float32),
    "-1": filled(-1, np.float32),
    "random bits": lambda frames, at: (
        np.random.default_rng(at).integers(0, 2**32, frames[at].shape, np.uint32).view(np.float32)
    ),
    "float of 0 to 255": lambda frames, at: frames[at].astype(np.float32),
}
CONTROLS = ("clean", "redrawn", "reset", "float in [0, 1]")
MEASURES = ("nats", "surprise", "policy")
FLAGGED = [*(kind for kind in FLOATS if kind not in CONTROLS), "missing", "black", "white"]
"""What the page promises a flag for. Any bytes may be a picture, so that noise has none."""
REFUSED: dict[str, Callable[[np.ndarray], dict[str, Any]]] = {
    "nothing": lambda frame: {},
    "another name": lambda frame: {"picture": frame},
    "channels first": lambda frame: {"image": frame.transpose(0, 3, 1, 2)},
    "half the size": lambda frame: {"image": frame[:, ::2, ::2]},
    "grey": lambda frame: {"image": frame[..., :1]},
    "no batch": lambda frame: {"image": frame[0]},
    "another batch": lambda frame: {"image": frame[:3]},
    "text": lambda frame: {"image": np.full(len(frame), "x")},
    "objects": lambda frame: {"image": frame.astype(object)},
}


def recorded(agent: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames `[time, environment, ...]` and action vectors of the base agent's own episodes."""
    frames, actions = [], []
    with VectorEnv(**arguments(agent.about.environment), count=count) as envs:
        step, carry = envs.reset(range(count)), agent.start(count)
        for at in range(LENGTH):
            keys = jr.split(jr.key(at), count)
            carry, action, _ = agent.act(carry, step.observation, step.is_first, keys=keys)
            frames.append(step.observation["image"])
            actions.append(np.asarray(action))
            taken = agent.model.split(np.asarray(action))
            step = envs.step(next(iter(taken.values())))
    return np.array(frames), np.array(actions)


@dataclasses.dataclass
class Played:
    """What came of one batch; arrays are `[kind, environment]`."""

    beliefs: list[Any]
    """Of the last decisions."""
    surprise: np.ndarray
    """Mean of the last decisions, nats."""
    policies: np.ndarray
    """Of the last decisions, `[decision, kind, environment, action]`."""
    invalid: int = 0
    """Actions that are not one of the classes."""
    broken: int = 0
    """Environments after whose decision a number of the carry was not finite."""
    flagged: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Of the bad decisions of each kind."""


def played(
    agent: Any, frames: np.ndarray, actions: np.ndarray, kinds: Mapping[str, Frames], draw: int
) -> Played:
    """All kinds in one batch, each with the same environments and keys.

    Both batches are equally large and told what is missing, so that they share a program.
    """
    count = frames.shape[1]
    names = np.repeat([*kinds], count)
    carry, surprises, policies = agent.start(len(names)), [], []
    out = Played([], np.zeros(()), np.zeros(()))
    told = np.concatenate([actions] * len(kinds), 1)
    for at in range(LENGTH):
        bad = at in BAD
        shown = np.concatenate([(each if bad else clean)(frames, at) for each in kinds.values()])
        first = (names == "reset") if at == BAD.stop else np.full(len(names), at == 0)
        keys = jnp.concatenate(
            [
                jr.split(jr.key(1000 * (1 + draw) + 100 * (kind == "redrawn") + at), count)
                for kind in kinds
            ]
        )
        missing = (names == "missing") & bad
        carry, action, thought = agent.act(
            carry, {"image": shown}, first, keys=keys, missing=missing
        )
        vector = np.asarray(action)
        valid = ((vector == 0) | (vector == 1)).all(-1) & (vector.sum(-1) == 1)
        out.invalid += int((~valid).sum())
        numbers = [x for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.floating)]
        finite = [np.isfinite(np.asarray(x)).reshape(len(names), -1).all(-1) for x in numbers]
        out.broken += int((~np.all(finite, 0)).sum())
        if bad:
            flags = ~np.asarray(thought.seen) | np.asarray(thought.blank) | missing
            for kind in kinds:
                out.flagged[kind] += int(flags[names == kind].sum())
        if at in LAST:
            out.beliefs.append(thought.after)
            surprises.append(np.asarray(_kl(thought.before, thought.prior)))
            policies.append(np.asarray(_policy(agent.model, thought.state)))
        carry = dataclasses.replace(carry, action=jnp.asarray(told[at]))
    out.surprise = np.mean(surprises, 0).reshape(len(kinds), count)
    out.policies = np.reshape(policies, (len(LAST), len(kinds), count, -1))
    return out


_kl = jax.jit(jax.vmap(lambda one, other: one.kl(other)))


@eqx.filter_jit
def _policy(model: Any, states: Any) -> Any:
    """The probability of each action in each state."""
    return jax.vmap(lambda state: next(iter(model.actor(state).values())).probs().ravel())(states)


def apart(beliefs: list[Any], undisturbed: list[Any], count: int) -> np.ndarray:
    """Nats between the beliefs of the last decisions, `[kind, environment]`."""
    found = []
    for one, other in zip(beliefs, undisturbed, strict=True):
        kinds = len(jax.tree.leaves(one)[0]) // count
        again = jax.tree.map(lambda x, n=kinds: jnp.concatenate([x] * n), other)
        found.append(np.asarray(_kl(one, again)).reshape(kinds, count))
    return np.mean(found, 0)


def against_reset(found: Mapping[str, Mapping[str, Any]], what: str) -> dict[str, dict[str, Any]]:
    """Of a measure the difference to `reset`, by arm and kind: its mean, its interval over
    environments, and its p-value, corrected for all of them.
    """
    kinds = [kind for kind in [*BYTES, *FLOATS] if kind not in CONTROLS]
    tested = {
        (arm, kind): paired(row[kind][what] - row["reset"][what], seed=0)
        for arm, row in found.items()
        for kind in kinds
    }
    out: dict[str, dict[str, Any]] = {arm: {} for arm in found}
    for ((arm, kind), one), p in zip(
        tested.items(), holm([one.p_value for one in tested.values()]), strict=True
    ):
        row = {"difference": one.mean, "interval": one.interval, "p_holm": float(p)}
        out[arm][kind] = row
    return out


def refused(agent: Any, frames: np.ndarray) -> dict[str, str]:
    """What is said of each observation that cannot be the agent's; `accepted` where nothing is."""
    out, count = {}, frames.shape[1]
    for name, spoil in REFUSED.items():
        try:
            agent.act(
                agent.start(count),
                spoil(frames[0]),
                np.ones(count, bool),
                keys=jr.split(jr.key(0), count),
            )
        except (ValueError, TypeError) as error:
            out[name] = f"{type(error).__name__}: {error}"
        else:
            out[name] = "accepted"
    return out


def poisoned(agent: Any, frames: np.ndarray) -> int:
    """Invalid actions and broken carries after a carry of NaN, without a new episode."""
    shown = np.concatenate([frames[0]] * len(BYTES))
    count = len(shown)
    carry = jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        agent.start(count),
    )
    carry, action, _ = agent.act(
        carry,
        {"image": shown},
        np.zeros(count, bool),
        keys=jr.split(jr.key(0), count),
        missing=np.zeros(count, bool),
    )
    numbers = [x for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.floating)]
    vector = np.asarray(action)
    invalid = int((~((vector.sum(-1) == 1) & np.isin(vector, (0, 1)).all(-1))).sum())
    return invalid + int(not all_finite(numbers))


def arm_of(base: Any, name: str) -> Any:
    """An arm of the bundled agent, its gate open for every decision."""
    how = Arm(evidence(), deadline_ms=30.0) if name == "deadline-30" else registry.make("arm", name)
    agent = base.thinking(how)
    return agent.opening_above(-np.inf) if hasattr(agent, "opening_above") else agent


def ready() -> Any:
    """The bundled agent, with what checks and choices by value need to be calibrated."""
    base = thinkslow.load("collect-half")
    where = base.about.environment
    values = thinkslow.calibrated(base.thinking("values"), where).inner
    usual = thinkslow.calibrated(base.thinking("robust"), where).inner
    assert values is not None
    assert usual is not None
    return dataclasses.replace(base, returns=values.returns, clean=usual.clean)


def tried(
    agent: Any,
    frames: np.ndarray,
    actions: np.ndarray,
    draws: int,
    total: collections.Counter[str],
) -> dict[str, dict[str, np.ndarray]]:
    """Of each kind the measures of every environment, means over draws."""
    count, found = frames.shape[1], collections.defaultdict(lambda: collections.defaultdict(list))
    for draw in range(draws):
        for kinds in (BYTES, FLOATS):
            one = played(agent, frames, actions, kinds, draw)
            # The first kind of each batch, as programs of other types differ in the last bits.
            undisturbed = [jax.tree.map(lambda x: x[:count], belief) for belief in one.beliefs]
            nats = apart(one.beliefs, undisturbed, count)
            varied = np.abs(one.policies - one.policies[:, :1]).sum(-1).mean(0) / 2
            bad = [kind for kind in kinds if kind not in CONTROLS]
            total["decisions"] += LENGTH * count * len(kinds)
            total["bad"] += len(BAD) * count * len(bad)
            total["invalid actions"] += one.invalid
            total["carries not finite"] += one.broken
            for i, kind in enumerate(kinds):
                found[kind]["nats"].append(nats[i])
                found[kind]["surprise"].append(one.surprise[i])
                found[kind]["policy"].append(varied[i])
                if kind in FLAGGED:
                    total["to be flagged"] += len(BAD) * count
                    total["to be flagged, flagged"] += one.flagged[kind]
                elif kind not in CONTROLS:
                    total["other bad frames, flagged"] += one.flagged[kind]
                else:
                    total["clean"] += len(BAD) * count
                    total["clean, flagged"] += one.flagged[kind]
    return {
        kind: {name: np.mean(each, 0) for name, each in row.items()} for kind, row in found.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arms", help="joined by commas; by default all")
    parser.add_argument("--draws", type=int, default=1, help="of latents, for each environment")
    parser.add_argument("--environments", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args()
    base = ready()
    frames, actions = recorded(base, given.environments)
    names = given.arms.split(",") if given.arms else [*registry.entries("arm"), "deadline-30"]
    total: collections.Counter[str] = collections.Counter()
    skipped: dict[str, str] = {}
    every: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for name in names:
        begun = time.monotonic()
        try:
            agent = arm_of(base, name)
        except ValueError as error:
            skipped[name] = str(error)
            continue
        every[name] = tried(agent, frames, actions, given.draws, total)
        total["after a carry of NaN"] += poisoned(agent, frames)
        said = refused(agent, frames)
        total["to be refused"] += len(said)
        total["refused by name"] += sum(
            "`image`" in one or "lacks" in one or "sees" in one for one in said.values()
        )
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    report = {
        "machine": machine(),
        "counts": dict(total),
        "means": {
            name: {
                kind: {what: float(each.mean()) for what, each in row.items()}
                for kind, row in found.items()
            }
            for name, found in every.items()
        },
        "refused arms": skipped,
        "against reset": {what: against_reset(every, what) for what in MEASURES},
    }
    if given.json:
        print(json.dumps(report, indent=1))
    else:
        shown(report)
    faults = ("invalid actions", "carries not finite", "after a carry of NaN", "clean, flagged")
    unsaid = total["to be flagged"] - total["to be flagged, flagged"]
    return unsaid + sum(total[one] for one in faults) > 0


def shown(report: Mapping[str, Any]) -> None:
    """The report as tables."""
    kinds = [kind for kind in [*BYTES, *FLOATS] if kind not in ("clean", "float in [0, 1]")]
    for what in MEASURES:
        print(f"| {what} | " + " | ".join(kinds) + " |\n|" + "---|" * (len(kinds) + 1))
        for name, row in report["means"].items():
            print(f"| {name} | " + " | ".join(f"{row[kind][what]:.3g}" for kind in kinds) + " |")
    for what, count in report["counts"].items():
        print(f"{what}: {count:,}")
    print("worse than reset (difference, 95% interval, p after Holm):")
    for what, arms in report["against reset"].items():
        for name, row in arms.items():
            for kind, one in row.items():
                low, high = one["interval"]
                if low > 0:
                    numbers = f"{one['difference']:.3g} [{low:.3g}, {high:.3g}]"
                    print(f"  {what}, {name}, {kind}: {numbers}, p {one['p_holm']:.2g}")
    print(f"refused: {report['refused arms']}\n{report['machine']}")


if __name__ == "__main__":
    sys.exit(main())
