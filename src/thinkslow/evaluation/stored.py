"""Agents read from disk, as an evaluation plays them: fitted to the environment, an arm each."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
from jaxtyping import Array

from thinkslow.agent.agent import Agent
from thinkslow.agent.deadline import Timed
from thinkslow.agent.presets import Arm
from thinkslow.dreamer.match_spaces import fit
from thinkslow.dreamer.saved import Saved
from thinkslow.envs import VectorEnv, arguments
from thinkslow.evaluation.calibrate import Uncalibrated
from thinkslow.evaluation.play import Playable
from thinkslow.objectives.lookahead import has_spread
from thinkslow.objectives.terms import NEED_DECODER, NEED_MEMBERS, NEED_SPREAD
from thinkslow.worldmodel import State

ActionName: TypeAlias = Literal["sample", "mode"]


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


def players(
    saved: Sequence[Saved], names: Sequence[str], arms: Mapping[str, Arm],
    environment: Mapping[str, Any], *, action: ActionName | None = None,
    curves: Sequence[Mapping[str, Any] | None] | None = None,
) -> dict[str, dict[str, Playable]]:  # fmt: skip
    """What `evaluate` takes, of agents read from disk: `{name: {arm: agent}}`.

    **Errors:** `ValueError` for an arm that an agent cannot play; `store.Misfit` for an agent that
    does not fit the environment; those of the environment.
    """
    with VectorEnv(**arguments(environment), count=1) as envs:
        fitted = [fit(one, envs.observation_space, envs.action_space, id=envs.id) for one in saved]
    known = curves or [None] * len(saved)
    return {
        name: {
            label: _player(one, arm, action or convention(one), {"name": name, "curve": curve})
            for label, arm in arms.items()
        }
        for name, one, curve in zip(names, fitted, known, strict=True)
    }


def _player(saved: Saved, arm: Arm, action: ActionName, facts: Mapping[str, Any]) -> Playable:
    """One agent as one arm has it think."""
    if (reason := unable(saved, arm)) is not None:
        raise ValueError(f"{saved.name} cannot play this arm: {reason}.")
    training = saved.manifest["training"]
    about = {
        "training_steps": training["steps"],
        "training_seed": training["seed"],
        "preset": training["preset"],
        "source": saved.manifest.get("source", {}).get("project"),
        "action": action,
        "description": arm.description,
        "thinking": dataclasses.asdict(arm.thinking),
        "gate": arm.gate,
        "share": arm.share,
        "deadline_ms": arm.deadline_ms,
        **facts,
    }
    policy = _greedy if action == "mode" else None
    agent = Agent(saved.model, arm.thinking, policy=policy, members=saved.members)
    if arm.gate is not None:
        return Uncalibrated(agent, arm.gate, arm.share, about)
    player = agent if arm.deadline_ms is None else Timed(agent, arm.deadline_ms)
    player.about = about  # pyright: ignore[reportAttributeAccessIssue]
    return player


def told_apart(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Names of agents, of which those that are given twice say in what their paths differ.

    >>> told_apart(["tiny-200"] * 2, [Path("runs/a/agents/200"), Path("runs/b/agents/200")])
    ['tiny-200 (a)', 'tiny-200 (b)']
    >>> told_apart(["one", "other"], [Path("a"), Path("b")])
    ['one', 'other']

    **Errors:** `ValueError` for one path given twice.
    """
    out = list(names)
    for name in set(names):
        twins = [index for index, other in enumerate(names) if other == name]
        if len(twins) < 2:
            continue
        parts = [paths[index].absolute().resolve().parts for index in twins]
        if len(set(parts)) < len(parts):
            raise ValueError(f"{name} was given twice: {paths[twins[0]]}. Give each agent once.")
        start, end = _common(parts), _common([one[::-1] for one in parts])
        for index, path in zip(twins, parts, strict=True):
            own = path[start : len(path) - end] or path[-1:]
            out[index] = f"{name} ({'/'.join(own)})"
    return out


def _common(paths: Sequence[tuple[str, ...]]) -> int:
    """How many parts all paths begin with alike."""
    count = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count


def _greedy(model: Any, state: State, key: Array) -> Array:
    return model.greedy(state, key)
