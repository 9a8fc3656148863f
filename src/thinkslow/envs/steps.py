"""A step of several environments, the action for each, and the episodes so far."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from thinkslow.envs.failures import Failure, Nonfinite
from thinkslow.spaces import Space


class Step(NamedTuple):
    """One step of every environment; arrays over the environments."""

    observation: dict[str, np.ndarray]
    """Observations by name. They are always finite: non-finite numbers are 0 here and listed in
    `nonfinite`.
    """
    reward: np.ndarray
    """The reward of the action that led here, float32; 0 at a first step. It may be non-finite."""
    is_first: np.ndarray
    is_last: np.ndarray
    """Whether the episode ends here, for any reason."""
    is_terminal: np.ndarray
    """Whether it ends by termination: nothing comes after."""
    crashed: np.ndarray
    """Whether it ends because the environment failed; the observation is the previous one."""
    errors: tuple[Failure | None, ...] = ()
    """The cause of a crash; after `restore`, of a failed replay."""
    nonfinite: tuple[Nonfinite, ...] = ()
    """The non-finite numbers of this step."""


@dataclasses.dataclass
class Episode:
    """The present episode of one environment: enough to play it again."""

    seed: int = 0
    actions: list[Any] = dataclasses.field(default_factory=list)
    """The actions so far."""
    begun: int = 0
    """Number of episodes that this environment has begun."""
    drawn: int = 0
    """Number of those whose seeds followed from the seed of the run."""
    first_seen: str = ""
    """A hash of its first observation."""
    over: bool = False
    crash: Failure | None = None
    """The cause, if it ended by a failure."""


def end(index: int, step: Step) -> None:
    """Mark an episode as ended by a failure."""
    step.reward[index], step.is_terminal[index] = 0.0, False
    step.is_last[index] = step.crashed[index] = True


def rows_of(
    actions: np.ndarray | Mapping[str, np.ndarray], spaces: Mapping[str, Space], count: int
) -> list[Any]:
    """The action for each environment: a number, a list, or a dictionary of these."""
    single = next(iter(spaces))
    named = actions if isinstance(actions, Mapping) else {single: actions}
    if len(named) == len(spaces) == 1:  # a single action may have any name
        named = {single: next(iter(named.values()))}
    if set(named) != set(spaces):
        raise ValueError(f"`actions` must be of {', '.join(spaces)}; got {', '.join(named)}.")
    for name, array in named.items():
        if len(array) != count:
            raise ValueError(f"`actions` must be one per environment, {count}; got {len(array)}.")
        if not np.isfinite(array).all():
            raise ValueError(f"`actions` must be finite; got {name} {np.asarray(array)!r}.")
    lists = {name: np.asarray(array).tolist() for name, array in named.items()}
    if len(lists) == 1:
        return next(iter(lists.values()))
    return [{name: rows[i] for name, rows in lists.items()} for i in range(count)]


def action_of(spaces: Mapping[str, Space], rng: np.random.Generator) -> Any:
    """A random action, as a row of `rows_of`."""
    drawn = {
        name: rng.uniform(-1, 1, space.shape).tolist()
        if space.classes is None
        else rng.integers(space.classes, size=space.shape).tolist()
        for name, space in spaces.items()
    }
    return drawn if len(drawn) > 1 else next(iter(drawn.values()))


def hash_of(observation: Mapping[str, np.ndarray], index: int) -> str:
    """A hash of one environment's observation."""
    digest = hashlib.blake2b(digest_size=12)
    for name in sorted(observation):
        digest.update(observation[name][index].tobytes())
    return digest.hexdigest()
