"""Episodes under paired seeds: does thinking help this agent?

Every arm plays the same environment seeds with the same keys for latent and action noise, so
that arms differ by thinking alone; an arm without thinking is the base agent bit for bit. The
protocol `paired-v1`:

- one episode per environment seed and arm; the unit of the statistics is the pair;
- image metrics of every fifth decision: the present frame decoded from the state that acted,
  and open-loop predictions 1, 3 and 8 steps ahead under the actions really taken, with the mode
  of the imagined priors, against the frames that really came;
- differences of image metrics, of the present and of predictions, are taken on the same frames,
  between the state that acted and the one that the agent would have had without thinking at that
  moment: arms go different ways and see different frames, of which some are easier to predict;
- milliseconds per decision: one compiled call for the whole batch, warm, median over decisions.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from thinkslow.agent.agent import Agent, Wrapped
from thinkslow.agent.deadline import Timed
from thinkslow.agent.decision import Thought
from thinkslow.agent.gates import Gated, calibrate
from thinkslow.agent.presets import Arm
from thinkslow.dreamer.match_spaces import fit
from thinkslow.dreamer.saved import Saved, provenance
from thinkslow.envs import VectorEnv
from thinkslow.evaluation.summary import AHEAD, IMAGE, summarise
from thinkslow.objectives.lookahead import has_spread
from thinkslow.objectives.terms import NEED_DECODER, NEED_MEMBERS, NEED_SPREAD
from thinkslow.storage import atomic
from thinkslow.worldmodel import State, WorldModel

ActionName: TypeAlias = Literal["sample", "mode"]

PROTOCOL = "paired-v1"
EVERY = 5
"""Decisions between two frames that are scored."""
EVALUATION, CALIBRATION = 0xE7A1, 0xCA1B
"""What seeds are for: episodes of one are never of the other."""
STRIPS = 8
"""Decisions of the first episode that are kept as pictures."""


class Episodes(NamedTuple):
    """What a block of episodes left behind; leading axes time and environment."""

    states: State
    bases: State
    actions: np.ndarray
    frames: np.ndarray | None
    rewards: np.ndarray
    lengths: np.ndarray
    moved: np.ndarray
    thinks: np.ndarray
    doubt: np.ndarray | None
    crashed: np.ndarray
    latency_ms: list[float]


def evaluate(
    subjects: Sequence[Saved],
    arms: Mapping[str, Arm],
    *,
    environment: Mapping[str, Any],
    episodes: int,
    seed: int,
    out: Path,
    batch: int = 8,
    action: ActionName | None = None,
    pool: bool = False,
    command: str = "",
    show: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Play every arm of every agent and write the records to `out`; returns the summary.

    `environment` holds `id`, `size`, `repeat`. `batch` environments are played side by side.
    `action` says how an action is taken from the policy; by default as each agent's source does.
    With `pool` the agents are training seeds of one recipe, and the summary speaks of all of them
    together too. `show(what, done, total)` is told of every finished block of episodes. Records
    are written as they come: an interrupted evaluation keeps the finished blocks in
    `episodes.jsonl`.

    **Errors:** `ValueError` for fewer than 2 episodes, agents that cannot be pooled, or an arm that
    an agent cannot play;
    `store.Misfit` for an agent that does not fit the environment; those of the environment.
    """
    if episodes < 2:
        raise ValueError(f"`episodes` must be 2 or more, to have an interval; got {episodes}.")
    if "none" not in arms:
        raise ValueError(f"`arms` must include `none`, the baseline; got {', '.join(arms)}.")
    names = [subject.name for subject in subjects]
    trained = [subject.manifest["training"]["seed"] for subject in subjects]
    if pool and (len(trained) < 2 or len(set(trained)) < len(trained)):
        raise ValueError(
            f"`pool` needs two agents or more, each of another training seed; got {trained}."
        )
    for subject in subjects:
        for name, arm in arms.items():
            if (reason := unable(subject, arm)) is not None:
                raise ValueError(f"{subject.name} cannot play {name}: {reason}.")
    if len(set(names)) < len(names):
        raise ValueError(f"Agents must have names of their own, to be told apart; got {names}.")
    count = min(batch, episodes)
    records: list[dict[str, Any]] = []
    latencies: dict[tuple[str, str], list[float]] = {}
    total = len(subjects) * len(arms) * -(-episodes // count)
    done = 0
    out.mkdir(parents=True, exist_ok=True)
    with (
        VectorEnv(
            environment["id"], count, size=environment["size"], repeat=environment["repeat"]
        ) as envs,
        contextlib.ExitStack() as files,
    ):
        subjects = [
            fit(subject, envs.observation_space, envs.action_space, id=envs.id)
            for subject in subjects
        ]
        for old in ("summary.json", "report.html", "learning.json"):
            (out / old).unlink(missing_ok=True)  # they would speak of other episodes
        lines = files.enter_context((out / "episodes.jsonl").open("w"))
        for subject in subjects:
            greedy = (action or convention(subject)) == "mode"
            base = Agent(subject.model, policy=_greedy if greedy else None, members=subject.members)
            for name, arm in arms.items():
                agent = heeding(arm, base.with_thinking(arm.thinking), envs, seed)
                for first in range(0, episodes, count):
                    seeds = [episode_seed(seed, first + index) for index in range(count)]
                    keep = min(count, episodes - first)
                    played = play(agent, envs, seeds, seed)
                    rows = _records(subject, name, agent.model, played, seeds)[:keep]
                    lines.writelines(json.dumps(row) + "\n" for row in rows)
                    lines.flush()
                    records += rows
                    latencies.setdefault((subject.name, name), []).extend(played.latency_ms)
                    if first == 0:
                        _write_strips(out, subject.name, name, agent.model, played)
                    done += 1
                    show(f"{subject.name}: {name}", done, total)
    summary = {
        "format": 1,
        "agents": [
            describe(subject) | {"action": action or convention(subject)} for subject in subjects
        ],
        "environment": dict(environment),
        "protocol": {
            "name": PROTOCOL, "episodes": episodes, "seed": seed, "command": command,
            **provenance(), "machine": machine(),
        },
        **summarise(records, arms, latencies, batch=count, seed=seed, pool=pool),
    }  # fmt: skip
    atomic.write_text(out / "summary.json", json.dumps(summary, indent=1))
    return summary


def describe(saved: Saved) -> dict[str, Any]:
    """What the records say of an agent."""
    training = saved.manifest["training"]
    return {
        "name": saved.name,
        "training_steps": training["steps"],
        "training_seed": training["seed"],
        "preset": training["preset"],
        "source": saved.manifest.get("source", {}).get("project"),
        "parameters": sum(x.size for x in jax.tree.leaves(saved.model)),
    }


def episode_seed(seed: int, index: int, purpose: int = EVALUATION) -> int:
    """The environment seed of an episode: far from those that training derives."""
    return int(np.random.SeedSequence([purpose, seed, index]).generate_state(1)[0])


def convention(saved: Saved) -> ActionName:
    """How the agent's source takes an action when it evaluates; our own sample."""
    return saved.manifest.get("conventions", {}).get("action", "sample")


def unable(saved: Saved, arm: Arm) -> str | None:
    """Why an agent cannot play an arm; None if it can."""
    model, thinking = saved.model, arm.thinking
    decoded = jax.eval_shape(model.decode, model.initial())
    terms = {name for name, _ in thinking.terms}
    compared = thinking.steps and terms & {*NEED_MEMBERS}
    if (compared or arm.gate == "disagreement") and saved.members is None:
        return "it has no ensemble: thinkslow ensemble AGENT"
    weighs = thinking.candidates > 1 or thinking.particles > 1
    if not decoded and (terms & {*NEED_DECODER} or weighs):
        return "it has no decoder"
    if terms & {*NEED_SPREAD} and not any(has_spread(head) for head in decoded.values()):
        return "its decoder's variance is fixed, so that the term is constant"
    seen = {name for name, _ in getattr(model, "observation_spaces", ())}
    if terms & {"sig", "elbo", "pig-observed"} and seen - {*decoded}:
        return f"it does not decode {', '.join(sorted(seen - {*decoded}))}, which it sees"
    return None


def _greedy(model: Any, state: State, key: Array) -> Array:
    return model.greedy(state, key)


def heeding(arm: Arm, agent: Agent, envs: VectorEnv, seed: int) -> Agent | Wrapped:
    """The agent with the arm's deadline, or behind its gate, whose threshold is calibrated on
    episodes of its own."""
    if arm.deadline_ms is not None:
        return Timed(agent, arm.deadline_ms)
    if arm.gate is None:
        return agent
    closed = Gated(agent, arm.gate, np.inf)
    seeds = [episode_seed(seed, index, purpose=CALIBRATION) for index in range(envs.count)]
    played = play(closed, envs, seeds, seed)
    assert played.doubt is not None
    lived = np.arange(len(played.doubt))[:, None] < played.lengths
    return Gated(agent, arm.gate, calibrate(played.doubt[lived], arm.share))


def play(agent: Agent | Wrapped, envs: VectorEnv, seeds: Sequence[int], seed: int) -> Episodes:
    """One episode in each environment, the given seeds; every step's states, actions, frames."""
    model: Any = agent.model  # which also splits an action vector into actions
    step = envs.reset(seeds)
    carry = agent.start(envs.count)
    alive = np.ones(envs.count, bool)
    rewards, lengths = np.zeros(envs.count), np.zeros(envs.count, int)
    crashed = np.zeros(envs.count, bool)
    keep: list[tuple] = []
    drawn = jax.eval_shape(model.decode, model.initial())
    sighted = "image" in step.observation and "image" in drawn
    frames, latency_ms = [step.observation.get("image")], []
    # The first call compiles; its time is not the decision's.
    keys = _keys(seed, jnp.array(seeds, jnp.uint32), 0)
    jax.block_until_ready(agent.act(carry, step.observation, step.is_first, keys=keys))
    if isinstance(agent, Wrapped):
        agent.warm(carry, step.observation, step.is_first, keys=keys)
    while alive.any():
        keys = jax.block_until_ready(_keys(seed, jnp.array(seeds, jnp.uint32), len(keep)))
        begun = time.perf_counter()
        carry, action, thought = jax.block_until_ready(
            agent.act(carry, step.observation, step.is_first, keys=keys)
        )
        latency_ms.append(1e3 * (time.perf_counter() - begun))
        keep.append(_host(thought, action))
        step = envs.step(model.split(np.asarray(action))["action"])
        rewards += alive * step.reward
        lengths += alive
        crashed |= alive & step.crashed
        frames.append(step.observation.get("image"))
        alive &= ~step.is_last
    states, bases, actions, moved, thinks, doubt = jax.tree.map(lambda *xs: np.stack(xs), *keep)
    return Episodes(
        states, bases, actions, np.array(frames) if sighted else None, rewards, lengths,
        moved, thinks, doubt, crashed, latency_ms,
    )  # fmt: skip


def _host(thought: Thought, action: Array) -> tuple:
    return jax.tree.map(np.asarray, (
        thought.state, thought.base, action, thought.moved, thought.thinks, thought.doubt
    ))  # fmt: skip


@jax.jit
def _keys(seed: int | Array, seeds: Array, decision: int | Array) -> Array:
    """One key per environment: a function of protocol seed, environment seed and decision."""
    key = jr.key(seed)
    return jax.vmap(lambda s: jr.fold_in(jr.fold_in(key, s), decision))(seeds)


def _records(
    subject: Saved, name: str, model: WorldModel, played: Episodes, seeds: Sequence[int]
) -> list[dict[str, Any]]:  # fmt: skip
    rows = []
    for index, environment_seed in enumerate(seeds):
        length = int(played.lengths[index])
        rows.append(
            {
                "agent": subject.name,
                "arm": name,
                "training_seed": subject.manifest["training"]["seed"],
                "environment_seed": environment_seed,
                # The same rewards in another order add up to another last bit, which is no effect.
                "score": round(float(played.rewards[index]), 6),
                "length": length,
                **_image_scores(model, played, index, length),
                "thought_share": float(played.thinks[:length, index].mean()),
                "belief_kl": float(played.moved[:length, index].mean()),
                "crashed": bool(played.crashed[index]),
            }
        )
    return rows


def _image_scores(model: WorldModel, played: Episodes, index: int, length: int) -> dict[str, Any]:
    """Mean metrics over the scored decisions of one episode; None without images."""
    if played.frames is None:
        nothing = dict.fromkeys(IMAGE)
        return {**nothing, "gain": nothing, "open_loop": {}, "open_loop_gain": {}}
    moments = np.arange(0, max(1, length - max(AHEAD)), EVERY)
    states, bases = jax.tree.map(lambda x: x[moments, index], (played.states, played.bases))
    windows = np.minimum(moments[:, None] + np.arange(max(AHEAD)), length - 1)
    now, later = _predict(model, states, played.actions[windows, index])
    base, base_later = _predict(model, bases, played.actions[windows, index])
    real = played.frames[moments, index]
    out: dict[str, Any] = _compare(now, real)
    out["gain"] = _less(out, _compare(base, real))
    out["open_loop"], out["open_loop_gain"] = {}, {}
    for steps in AHEAD:
        long = moments + steps <= length
        if long.any():
            came = played.frames[(moments + steps)[long], index]
            found = _compare(later[:, steps - 1][long], came)
            out["open_loop"][str(steps)] = found
            out["open_loop_gain"][str(steps)] = _less(
                found, _compare(base_later[:, steps - 1][long], came)
            )
    return out


def _less(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in IMAGE}


def _compare(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {name: float(np.mean(measure(prediction, truth))) for name, measure in IMAGE.items()}


def _predict(
    model: WorldModel, states: State, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Images now `[N, H, W, C]` and after each of the given actions `[N, ahead, H, W, C]`."""
    # Padded to a power of two, so that episodes of any length share a few compiled programs.
    number = len(actions)
    size = 1 << (number - 1).bit_length()
    padded = jax.tree.map(
        lambda x: jnp.concatenate([x, np.repeat(x[-1:], size - number, 0)]), (states, actions)
    )
    now, later = _predict_images(model, *padded)
    return np.asarray(now)[:number], np.asarray(later)[:number]


@jax.jit
def _predict_images(model: WorldModel, states: State, actions: Array) -> tuple[Array, Array]:
    def one(state: State, actions: Array) -> tuple[Array, Array]:
        def step(state: State, action: Array) -> tuple[State, Array]:
            memory, prior = model.predict(state, action, jnp.zeros((), bool))
            state = State(memory, prior.mode())
            return state, model.decode(state)["image"].mode()

        return model.decode(state)["image"].mode(), jax.lax.scan(step, state, actions)[1]

    return jax.vmap(one)(states, actions)


def _write_strips(out: Path, agent: str, arm: str, model: WorldModel, played: Episodes) -> None:
    """Pictures of the first episode, spread over it, for the report."""
    length, ahead = int(played.lengths[0]), max(AHEAD)
    frames = played.frames
    if frames is None or length <= ahead:
        return
    moments = np.linspace(0, length - ahead - 1, STRIPS).astype(int)
    windows = moments[:, None] + np.arange(ahead)
    bases = jax.tree.map(lambda x: x[moments, 0], played.bases)
    states = jax.tree.map(lambda x: x[moments, 0], played.states)
    before, _ = _predict(model, bases, played.actions[windows, 0])
    after, later = _predict(model, states, played.actions[windows, 0])
    chosen = np.array(AHEAD) - 1
    (out / "strips").mkdir(exist_ok=True)
    np.savez_compressed(
        out / "strips" / f"{agent}--{arm}.npz",
        real=frames[moments, 0], before=_bytes(before), after=_bytes(after),
        imagined=_bytes(later[:, chosen]), came=frames[windows + 1, 0][:, chosen],
        step=moments, ahead=np.array(AHEAD),
    )  # fmt: skip


def _bytes(images: np.ndarray) -> np.ndarray:
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8)


def machine() -> str:
    """Processor and number of cores, devices: what the milliseconds were measured on."""
    devices = ", ".join(sorted({device.device_kind for device in jax.local_devices()}))
    return f"{platform.machine()}, {os.cpu_count()} cores, {devices}"
