"""A player for your own loop: one environment, NumPy in and out."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.random as jr
import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.agent import Agent, greedy_policy, own_policy
from thinkslow.needs import GREEDY, unmet
from thinkslow.plural import plural


class PlayerState(NamedTuple):
    """The state of `Player.predict` between calls. Opaque: pass it to the next call."""

    carry: Any
    decisions: int
    environments: int
    """Their number."""


class Player:
    """Plays one environment with NumPy arrays in and out, or several through `predict`.

    >>> action = player(observation, first=True)      # doctest: +SKIP
    >>> observation, *_ = env.step(action)            # doctest: +SKIP

    Args:
        agent: the agent that plays.
        seed: seed of its latents and actions.

    **Errors:** `ValueError` for an agent whose gate is not calibrated.
    """

    def __init__(self, agent: AbstractAgent, seed: int = 0):
        self.agent, self.seed = agent, seed
        self.thought: Any = None
        """The `Thought` of the last decision, with a leading axis of 1."""
        self._carry = agent.start(1)
        self._decisions = 0

    def __call__(self, observation: Any, first: bool = False) -> Any:
        """The action for an observation, as the environment takes it.

        Args:
            observation: a mapping by name, or the array itself if the agent sees one part.
            first: whether an episode begins here.

        Returns the action, or a dictionary of actions if the agent has several.

        **Errors:** `ValueError` for an observation with other names or shapes than the agent's.
        """
        batch = {name: np.asarray(part)[None] for name, part in self._named(observation).items()}
        begins = np.array([first or self._decisions == 0])
        self._carry, vector = self._decide(self._carry, batch, begins, self._decisions)
        self._decisions += 1
        actions = {name: _plain(part) for name, part in self._split(vector[0]).items()}
        return next(iter(actions.values())) if len(actions) == 1 else actions

    def predict(
        self,
        observation: Any,
        state: "PlayerState | None" = None,
        episode_start: bool | Sequence[bool] | np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, "PlayerState"]:
        """The actions for a batch of observations, like `predict` in Stable-Baselines3.

        An agent can therefore replace a policy of that library, for example in `evaluate_policy`.
        The player keeps only `thought` from these calls.

        Args:
            observation: of one environment, or of several along a first axis.
            state: the state from the previous call; None: every episode begins here.
            episode_start: which environments begin an episode, bool.
            deterministic: whether to take the mode of the policy instead of the agent's default;
                latents are sampled in both cases.

        Returns the actions, with a first axis if the observation has one, and the next state.

        **Errors:** `ValueError` for a state with another number of environments, an observation
        with other names or shapes than the agent's, or a mode that the agent cannot take.
        """
        agent = self._greedy if deterministic else self.agent
        parts = {name: np.asarray(part) for name, part in self._named(observation).items()}
        single = self._is_single(parts)
        if single:
            parts = {name: part[None] for name, part in parts.items()}
        count = len(next(iter(parts.values())))
        if state is None:
            state = PlayerState(agent.start(count), 0, count)
        if state.environments != count:
            raise ValueError(
                f"`state` is of {plural(state.environments, 'environment')}; the observation is "
                f"of {count}. "
                "Pass None to begin new episodes."
            )
        starts = np.asarray(episode_start if episode_start is not None else False, bool).reshape(-1)
        if len(starts) not in (1, count):
            raise ValueError(
                f"`episode_start` must be one for each environment, {count}, or one for all; got "
                f"{len(starts)}."
            )
        begins = np.broadcast_to(starts, count) | (state.decisions == 0)
        carry, vectors = self._decide(state.carry, parts, begins, state.decisions, agent)
        after = PlayerState(carry, state.decisions + 1, count)
        actions = {name: np.asarray(part) for name, part in self._split(vectors).items()}
        if single:
            actions = {name: _plain(part[0]) for name, part in actions.items()}
        return next(iter(actions.values())) if len(actions) == 1 else actions, after

    @cached_property
    def _greedy(self) -> AbstractAgent:
        """The agent with the mode of its policy."""
        agent = self.agent
        own = isinstance(agent, Agent) and agent.policy in (own_policy, greedy_policy)
        if not own or unmet(agent.model, (GREEDY,)) is not None:
            raise ValueError(
                f"`deterministic` must be False for {type(agent).__name__} of "
                f"{type(agent.model).__name__}. Load the agent with action='mode' instead."
            )
        return dataclasses.replace(agent, policy=greedy_policy)

    def _decide(
        self,
        carry: Any,
        batch: Mapping[str, np.ndarray],
        begins: np.ndarray,
        number: int,
        agent: AbstractAgent | None = None,
    ) -> tuple[Any, np.ndarray]:
        """One decision of a batch. The keys of its environments follow from seed and number."""
        key = jr.fold_in(jr.key(self.seed), number)
        keys = key[None] if len(begins) == 1 else jr.split(key, len(begins))
        carry, vectors, self.thought = (agent or self.agent).act(carry, batch, begins, keys=keys)
        return carry, np.asarray(vectors)

    def _split(self, vector: np.ndarray) -> dict[str, Any]:
        """Action vectors as the environment takes them; unchanged if the model has no `split`."""
        return self.agent.model.split(vector) or {"": vector}

    def _is_single(self, parts: Mapping[str, np.ndarray]) -> bool:
        """Whether an observation has no axis of environments.

        **Errors:** `ValueError` if that cannot be told.
        """
        for name, space in self.agent.observation_spaces:
            if name in parts and (axes := parts[name].ndim - len(space.shape)) in (0, 1):
                return axes == 0
        raise ValueError(
            "Whether this observation has an axis of environments cannot be told: it must have "
            f"{', '.join(name for name, _ in self.agent.observation_spaces) or 'declared parts'}, "
            f"with one axis more than one environment shows; got {', '.join(parts)}."
        )

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
