"""The paths of beliefs at one moment: numbers to draw, in separate files.

They contain every step of an arm, every sweep towards the best belief, and the prior. A categorical
belief is stored as probabilities, `[steps, factors, classes]`; a Gaussian as means, `[steps, dim]`.
"""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.agent.agent import Agent
from thinkslow.agent.decision import descent
from thinkslow.agent.inputs import streams
from thinkslow.agent.variables import objective_and_start
from thinkslow.distributions import Belief, Categorical
from thinkslow.refinement import Gradient
from thinkslow.refinement.loop import descend
from thinkslow.storage import atomic
from thinkslow.storage.reading import read_file
from thinkslow.trees import compiled
from thinkslow.worldmodel import Moment, Observation

MOST = 6
"""Largest number of steps of an arm that are kept, besides the last."""
Ways = Mapping[str, np.ndarray]
"""Paths by name; leading axis: the steps."""


def numbers(belief: Belief) -> Float[Array, "..."]:
    """The numbers of a belief that are drawn."""
    return belief.probs() if isinstance(belief, Categorical) else belief.soft()


def steps_of(
    agent: Agent, moment: Moment, observation: Observation, last: Belief, key: PRNGKeyArray
) -> list[Belief]:
    """The beliefs of an arm's descent, from the encoder's to the last.

    Args:
        agent: the arm.
        moment: the present one.
        observation: the present one.
        last: the final belief of the arm.
        key: PRNG key of the decision.

    **Cost:** up to `MOST` descents of fewer steps, each compiled once.
    """
    settings = agent.settings
    update = settings.update or Gradient()
    step_kl = jnp.asarray(update.step_kl(settings.max_kl, settings.steps), jnp.float32)
    between = np.unique(np.linspace(1, settings.steps - 1, MOST).astype(int))
    out: list[Belief] = [moment.posterior]
    for count in between if settings.steps > 1 else ():
        shorter = agent.having(dataclasses.replace(settings, steps=int(count), record=False))
        out.append(_shortened(*shorter.parts, observation, moment, key, step_kl))
    return [*out, last]


@compiled
def _shortened(
    agent: Agent, observation: Observation, moment: Moment, key: PRNGKeyArray, step_kl: Array
) -> Belief:
    """The belief after the first steps of a descent, with the step lengths of the whole descent."""
    latent_key, _, refine_key, _ = streams(key)
    objective, first = objective_and_start(agent, observation, moment, latent_key)
    way = dataclasses.replace(descent(agent.settings), step_kl=step_kl)
    rules = way.of(objective, agent.settings.update, first, refine_key)
    return descend(rules, record=False).belief


def write(path: Path, ways: Ways, *, gap: float, decision: int, agent: str, episode: int) -> None:
    """Store the paths of one moment, replacing earlier ones.

    Args:
        path: the file.
        ways: the paths, by name.
        gap: the amortisation gap of the encoder there, by which the moment was chosen.
        decision: the decision of the moment.
        agent: the name of the agent.
        episode: the number of the episode.
    """
    content = io.BytesIO()
    named = {f"way/{name}": np.asarray(way, np.float32) for name, way in ways.items()}
    facts = {"gap": gap, "decision": decision, "agent": agent, "episode": episode}
    np.savez_compressed(content, allow_pickle=False, **named, **facts)  # pyright: ignore
    path.parent.mkdir(exist_ok=True)
    atomic.write_bytes(path, [content.getvalue()])


@dataclasses.dataclass(frozen=True)
class Stored:
    """The paths of one moment."""

    agent: str
    episode: int
    decision: int
    gap: float
    ways: dict[str, np.ndarray]


def read(path: Path) -> Stored | None:
    """The stored paths; None if there are none or they cannot be read, because they are only
    drawn.
    """
    try:
        with np.load(io.BytesIO(read_file(path)), allow_pickle=False) as arrays:
            ways = {name[4:]: arrays[name] for name in arrays if name.startswith("way/")}
            return Stored(
                str(arrays["agent"]),
                int(arrays["episode"]),
                int(arrays["decision"]),
                float(arrays["gap"]),
                ways,
            )
    except (OSError, KeyError, ValueError, EOFError):
        return None


def stacked(beliefs: list[Any]) -> np.ndarray:
    """The numbers of a list of beliefs that are drawn."""
    return np.stack([np.asarray(numbers(belief)) for belief in beliefs])


def each(beliefs: Belief) -> np.ndarray:
    """The numbers of beliefs along a leading axis."""
    return np.asarray(jax.vmap(numbers)(beliefs))
