"""The paths of beliefs at one moment: numbers to draw, in separate files.

Every step of an arm, every sweep towards the best belief, the prior. Of a categorical belief the
probabilities are kept, `[steps, factors, classes]`; of a Gaussian its means, `[steps, dim]`.
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
from thinkslow.agent.decision import bounds, streams
from thinkslow.agent.variables import posed
from thinkslow.distributions import Belief, Categorical
from thinkslow.refinement import Gradient, refine
from thinkslow.storage import atomic
from thinkslow.trees import compiled
from thinkslow.worldmodel import Moment, Observation

MOST = 6
"""Steps of an arm that are kept besides its last."""
Ways = Mapping[str, np.ndarray]
"""By name; leading axis: the steps."""


def numbers(belief: Belief) -> Float[Array, "..."]:
    """What is drawn of a belief."""
    return belief.probs() if isinstance(belief, Categorical) else belief.soft()


def steps_of(
    agent: Agent, moment: Moment, observation: Observation, last: Belief, key: PRNGKeyArray
) -> list[Belief]:
    """The beliefs of an arm's descent, from the encoder's to the last.

    Args:
        agent: the arm.
        moment: the present one.
        observation: the present one.
        last: where the arm ended.
        key: of the decision.

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
    """Where a descent is after its first steps, each as long as those of the whole one."""
    latent_key, _, refine_key, _ = streams(key)
    objective, first = posed(agent, observation, moment, latent_key)
    given = {**bounds(agent.settings), "step_kl": step_kl, "record": False}
    return refine(objective, first, agent.settings.update, key=refine_key, **given).belief


def write(path: Path, ways: Ways, *, gap: float, decision: int, agent: str, episode: int) -> None:
    """Store the ways of one moment, in place of those that were there.

    Args:
        path: the file.
        ways: by name.
        gap: the amortisation gap of the encoder there, by which the moment was chosen.
        decision: of the moment.
        agent: whose.
        episode: its number.
    """
    content = io.BytesIO()
    named = {f"way/{name}": np.asarray(way, np.float32) for name, way in ways.items()}
    facts = {"gap": gap, "decision": decision, "agent": agent, "episode": episode}
    np.savez_compressed(content, allow_pickle=False, **named, **facts)  # pyright: ignore
    path.parent.mkdir(exist_ok=True)
    atomic.write_bytes(path, [content.getvalue()])


@dataclasses.dataclass(frozen=True)
class Stored:
    """The ways of one moment."""

    agent: str
    episode: int
    decision: int
    gap: float
    ways: dict[str, np.ndarray]


def read(path: Path) -> Stored | None:
    """What was stored; None if there is nothing, or it cannot be read: it is only drawn."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ways = {name[4:]: arrays[name] for name in arrays if name.startswith("way/")}
            return Stored(
                str(arrays["agent"]), int(arrays["episode"]), int(arrays["decision"]),
                float(arrays["gap"]), ways,
            )  # fmt: skip
    except (OSError, KeyError, ValueError, EOFError):
        return None


def stacked(beliefs: list[Any]) -> np.ndarray:
    """What is drawn of a list of beliefs."""
    return np.stack([np.asarray(numbers(belief)) for belief in beliefs])


def each(beliefs: Belief) -> np.ndarray:
    """The same of beliefs along a leading axis."""
    return np.asarray(jax.vmap(numbers)(beliefs))
