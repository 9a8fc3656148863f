"""The evaluated agents: names and arms, entries in the records, and checks that they fit."""

import dataclasses
import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thinkslow import registry
from thinkslow.agent.abstract import About, AbstractAgent
from thinkslow.agent.deadline import Timed
from thinkslow.agent.gates import Gated
from thinkslow.agent.thinking import Thinking
from thinkslow.dreamer.actor_critic import ActorCritic
from thinkslow.dreamer.match_spaces import match_spaces
from thinkslow.envs import VectorEnv
from thinkslow.evaluation.records import BASE
from thinkslow.evaluation.running_code import code_of
from thinkslow.refinement import Gradient

Agents = Mapping[str, AbstractAgent] | Mapping[str, Mapping[str, AbstractAgent]]


def by_name(agents: Agents) -> dict[str, dict[str, AbstractAgent]]:
    """Arms, by the name of their agent.

    **Errors:** `TypeError` for what is not a mapping of agents; `ValueError` for no agents, or one
    without the arm `none`.
    """
    if not isinstance(agents, Mapping):
        raise TypeError(
            f"`agents` must be {{arm: agent}}, such as {{'{BASE}': agent, 'evidence': "
            f"agent.thinking('evidence')}}; got {type(agents).__name__}."
        )
    grouped: dict[str, dict[str, AbstractAgent]] = {}
    alone: dict[str, AbstractAgent] = {}
    for key, value in agents.items():
        if isinstance(value, Mapping):
            grouped[key] = dict(value)
        else:
            alone[key] = value
    for name in (name for names in (agents, *grouped.values()) for name in names):
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"The name of an agent or an arm must be a text; got {name!r}.")
    for arms in (alone, *grouped.values()):
        for arm, agent in arms.items():
            if not isinstance(agent, AbstractAgent):
                made = isinstance(agent, str | Path) and f"`thinkslow.load({str(agent)!r})`"
                raise TypeError(
                    "Each arm of `agents` must be an agent, such as "
                    f"{made or '`agent.thinking(...)`, which takes a way to think or its name'}; "
                    f"{arm} is {repr(agent) if made else f'a {type(agent).__name__}'}."
                )
    if grouped and alone:
        raise ValueError(
            "`agents` must be {arm: agent} or {name: {arm: agent}}; got both: "
            f"{', '.join(alone)} and {', '.join(grouped)}."
        )
    if alone:
        grouped = {next(iter(alone.values())).about.name or "agent": alone}
    if not grouped:
        raise ValueError("`agents` must hold at least one agent; got none.")
    for name, arms in grouped.items():
        if BASE not in arms:
            raise ValueError(
                f"The arms must include `{BASE}`, the baseline; {name} has "
                f"{', '.join(arms) or 'none at all'}."
            )
    return grouped


def awaiting(
    agents: Mapping[str, Mapping[str, AbstractAgent]], decisions: int
) -> dict[str, dict[str, AbstractAgent]]:
    """The same arms, prepared for observations that are up to `decisions` late."""
    return {
        name: {arm: awaits(agent, decisions) for arm, agent in arms.items()}
        for name, arms in agents.items()
    }


def awaits(agent: AbstractAgent, decisions: int) -> AbstractAgent:
    """The agent, with a `delay` if it receives the age of late observations."""
    if agent.inner is None or not decisions or not told(agent):
        return agent
    settings = agent.inner.settings
    return agent.having(dataclasses.replace(settings, delay=max(decisions, settings.delay)))


def told(agent: AbstractAgent) -> bool:
    """Whether an evaluation passes the flags of missing and old observations to the agent."""
    return agent.inner is not None and agent.inner.settings.missing is not None


def facts(name: str, arms: Mapping[str, AbstractAgent]) -> dict[str, Any]:
    """The facts of an agent in the records: its origin, its size, and a hash of its weights."""
    agent = arms[BASE]
    about: About = agent.about
    arrays = [x for x in jax.tree.leaves(agent.model) if eqx.is_array_like(x)]
    return {
        "name": name,
        "training_steps": about.training.get("steps"),
        "training_seed": about.training.get("seed"),
        "preset": about.training.get("preset"),
        "source": about.source,
        "action": about.action,
        "parameters": sum(np.size(array) for array in arrays),
        "weights": _hash(arrays),
    }


def _hash(numbers: Sequence[Any]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for number in numbers:
        key = isinstance(number, jax.Array) and jnp.issubdtype(number.dtype, jax.dtypes.prng_key)
        plain = np.ascontiguousarray(jax.random.key_data(number) if key else number)
        found.update(plain.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def settings(name: str, arm: str, agent: AbstractAgent) -> dict[str, Any]:
    """The facts of an arm in the records."""
    model = {id(leaf) for leaf in jax.tree.leaves(agent.model)}
    own = [leaf for leaf in jax.tree.leaves(agent) if id(leaf) not in model]
    code = code_of(agent)
    return {
        "agent": name,
        "arm": arm,
        "description": _described(arm),
        "thinking": written(agent.inner.settings) if agent.inner else None,
        "gate": agent.score.name if isinstance(agent, Gated) else None,
        "share": agent.share if isinstance(agent, Gated) else None,
        "deadline_ms": agent.deadline_ms if isinstance(agent, Timed) else None,
        # the ensemble, and the numbers of agents without settings
        "numbers": _hash([x for x in own if eqx.is_array_like(x)]),
        # an arm with an edited term is another arm
        "code": code,
        "python": "{}.{}".format(*sys.version_info) if code else None,
    }


def _described(label: str) -> str:
    """What a label says of its arm; empty for a name that is not registered."""
    named, *changes = label.split("+")
    name, *arguments = named.split(":")
    known = registry.find("arm", name)
    if known is None:
        return ""
    other = ", ".join([*arguments, *changes])
    return f"`{name}` with {other}" if other else known.about


def written(thinking: Thinking) -> dict[str, Any]:
    """Settings as JSON: objects by their class, numbers and texts; infinity as `inf`."""
    out: dict[str, Any] = {
        field.name: _written(getattr(thinking, field.name))
        for field in dataclasses.fields(thinking)
        if field.name != "terms"
    }
    return {"terms": {_written(term): float(weight) for term, weight in thinking.terms}, **out}


def _written(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if value is None or isinstance(value, int | float | str):
        return value
    given: dict[str, Any] = {
        field.name: one
        for field in dataclasses.fields(value)
        if isinstance(one := getattr(value, field.name), int | float | str)
    }
    if isinstance(value, Gradient) and value.optimiser != Gradient().optimiser:
        given["optimiser"] = value.optimiser
    return f"{type(value).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"


def fitted(agent: AbstractAgent, envs: VectorEnv, *, name: str) -> AbstractAgent:
    """The agent with the environment's names of observations and actions.

    **Errors:** `ValueError` if the environment's observations or actions do not fit the agent.
    """
    model = agent.model
    if isinstance(model, ActorCritic) and agent.inner is not None:
        return agent.having_model(
            *match_spaces(
                model,
                agent.inner.members,
                envs.observation_space,
                envs.action_spaces,
                name=name,
                id=envs.id,
            )
        )
    shown = envs.observation_space
    for key, space in agent.observation_spaces:
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
    return agent


def told_apart(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Distinct names of agents: equal names are extended by the parts in which their paths differ.

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
    """Number of leading parts that all paths share."""
    count = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count
