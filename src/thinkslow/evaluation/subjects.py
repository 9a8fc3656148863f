"""Who is evaluated: agents by name and arm, what the records say of them, and whether they fit."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from thinkslow.envs import VectorEnv
from thinkslow.evaluation.play import Playable
from thinkslow.evaluation.records import BASE

ORIGIN = ("training_steps", "training_seed", "preset", "source", "action")
"""Facts of an agent's `about` that its record repeats; those that it lacks are null."""
SETTINGS = ("description", "thinking", "gate", "share", "deadline_ms")
"""Facts of an arm's `about` that its record repeats."""

Agents = Mapping[str, Playable] | Mapping[str, Mapping[str, Playable]]


def by_name(agents: Agents) -> dict[str, dict[str, Playable]]:
    """Arms by the name of their agent.

    **Errors:** `ValueError` for no agents, or one without the arm `none`.
    """
    grouped: dict[str, dict[str, Playable]] = {}
    alone: dict[str, Playable] = {}
    for key, value in agents.items():
        if isinstance(value, Mapping):
            grouped[key] = dict(value)
        else:
            alone[key] = value
    if grouped and alone:
        raise ValueError(
            "`agents` must be {arm: agent} or {name: {arm: agent}}; got both: "
            f"{', '.join(alone)} and {', '.join(grouped)}."
        )
    if alone:
        grouped = {about(next(iter(alone.values()))).get("name", "agent"): alone}
    if not grouped:
        raise ValueError("`agents` must hold at least one agent; got none.")
    for name, arms in grouped.items():
        if BASE not in arms:
            raise ValueError(
                f"The arms must include `{BASE}`, the baseline; {name} has "
                f"{', '.join(arms) or 'none at all'}."
            )
    return grouped


def about(agent: Any) -> Mapping[str, Any]:
    """What an agent says of itself, if it does."""
    return getattr(agent, "about", None) or {}


def facts(name: str, arms: Mapping[str, Playable]) -> dict[str, Any]:
    """What the records say of an agent: its origin, its size, and a hash of its weights."""
    agent = arms[BASE]
    known = about(agent)
    arrays = [np.asarray(x) for x in jax.tree.leaves(agent.model) if hasattr(x, "dtype")]
    weights = hashlib.blake2b(digest_size=16)
    for array in arrays:
        weights.update(np.ascontiguousarray(array).view(np.uint8).data)
    return {
        "name": name,
        **{key: known.get(key) for key in ORIGIN},
        "parameters": known.get("parameters", sum(array.size for array in arrays)),
        "weights": weights.hexdigest(),
    }


def settings(name: str, arm: str, agent: Playable) -> dict[str, Any]:
    """What the records say of an arm."""
    known = about(agent)
    return {"agent": name, "arm": arm, **{key: known.get(key) for key in SETTINGS}}


def check_fit(name: str, model: Any, envs: VectorEnv) -> None:
    """**Errors:** `ValueError` where the environment does not show what the agent sees."""
    shown = envs.observation_space
    for key, space in dict(getattr(model, "observation_spaces", ())).items():
        if key not in shown:
            raise ValueError(
                f"{name} does not fit {envs.id}: it sees {key}, the environment shows "
                f"{', '.join(shown)}."
            )
        if shown[key].shape != space.shape:
            raise ValueError(
                f"{name} does not fit {envs.id}: its {key} is {space.shape}, the environment's "
                f"{shown[key].shape}."
            )
