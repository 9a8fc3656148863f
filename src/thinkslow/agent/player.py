"""An agent for anybody's own loop: one environment, NumPy in and out."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.random as jr
import numpy as np

from thinkslow.agent.agent import AbstractAgent


class Player:
    """Plays one environment; remembers what it must between two calls.

    >>> action = player(observation, first=True)      # doctest: +SKIP
    >>> observation, *_ = env.step(action)            # doctest: +SKIP

    Args:
        agent: whatever plays.
        seed: of its latents and actions.

    **Errors:** `ValueError` for an agent whose gate is not calibrated.
    """

    def __init__(self, agent: AbstractAgent, seed: int = 0):
        self.agent, self.seed = agent, seed
        self.thought: Any = None
        """What was thought at the last decision, a `Thought` with a leading axis of 1."""
        self._carry = agent.start(1)
        self._decisions = 0

    def __call__(self, observation: Any, first: bool = False) -> Any:
        """The action for an observation, as the environment takes it.

        Args:
            observation: a mapping by name, or the one part that the agent sees.
            first: whether an episode begins here.

        Returns the action, or a dictionary of them where the agent has several.

        **Errors:** `ValueError` for an observation whose names or shapes are not the agent's.
        """
        batch = {name: np.asarray(part)[None] for name, part in self._named(observation).items()}
        key = jr.fold_in(jr.key(self.seed), self._decisions)
        begins = np.array([first or self._decisions == 0])
        self._carry, vector, self.thought = self.agent.act(
            self._carry, batch, begins, keys=key[None]
        )
        self._decisions += 1
        actions = self.agent.model.split(np.asarray(vector)[0])
        if not actions:
            return np.asarray(vector)[0]
        plain = {name: _plain(action) for name, action in actions.items()}
        return next(iter(plain.values())) if len(plain) == 1 else plain

    def _named(self, observation: Any) -> Mapping[str, Any]:
        if isinstance(observation, Mapping):
            return observation
        names = [name for name, _ in self.agent.observation_spaces]
        if len(names) != 1:
            raise ValueError(
                f"The agent sees {', '.join(names) or 'parts that it does not declare'}: give a "
                f"mapping by name; got {type(observation).__name__}."
            )
        return {names[0]: observation}


def _plain(action: Any) -> Any:
    """An integer where the action is one class, else an array."""
    array = jax.device_get(action)
    return int(array) if np.ndim(array) == 0 and np.issubdtype(array.dtype, np.integer) else array
