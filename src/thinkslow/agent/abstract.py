"""What every agent is: it starts, acts, and says where it comes from."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from thinkslow.agent.inputs import Observations
from thinkslow.objectives.members import Members
from thinkslow.spaces import Space
from thinkslow.worldmodel import WorldModel

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent
    from thinkslow.agent.player import Player
    from thinkslow.agent.thinking import Thinking


@dataclasses.dataclass(frozen=True)
class About:
    """Where an agent comes from, for records. Every field may be unknown."""

    name: str | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The environment of the training: `{"id", "size", "repeat"}`."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """`steps`, `seed` and `preset` of the training, if known."""
    source: str | None = None
    """The project that trained it; None: this one."""
    action: str = "sample"
    """How the source takes an action from the policy: a `sample`, or the `mode`."""
    curve: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False)
    """Its learning curve: `score` by `step`."""


class AbstractAgent(eqx.Module):
    """Anything that can play: an agent, an agent behind a gate or with a deadline, or your own.

    Your own agent has `model`, `about`, `start` and `act`. Its model must split an action vector
    into the environment's actions (`split`). If it decodes, its images are scored. It need not be
    a `WorldModel`.
    """

    model: eqx.AbstractVar[Any]
    about: eqx.AbstractVar[About]

    @abc.abstractmethod
    def start(self, batch: int) -> Any:
        """The carry before the first observation.

        Args:
            batch: the number of environments.
        """

    @abc.abstractmethod
    def act(
        self,
        carry: Any,
        observation: Observations,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> tuple[Any, Float[Array, "batch action"], Any]:
        """One decision for a batch.

        Args:
            carry: from `start`, or from the previous decision.
            observation: arrays by name; leading axis: the batch.
            is_first: which environments begin an episode; their past is forgotten.
            keys: one for each environment.

        Returns the new carry, the action vectors (`model.split` converts them to actions), and a
        `Thought`. Your own agent may return any object with `thinks`, `moved` and `doubt`.

        `Agent.act` also takes `missing` and `age`, for missing and late observations. Your own
        agent needs neither.
        """

    def warm(
        self,
        carry: Any,
        observation: Observations,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> None:
        """Compile everything that a decision for this batch may need, before the first decision.

        Args:
            carry: as in `act`.
            observation: as in `act`.
            is_first: as in `act`.
            keys: as in `act`.
        """
        jax.block_until_ready(self.act(carry, observation, is_first, keys=keys))

    @property
    def inner(self) -> "Agent | None":
        """The `Agent` that decides: itself, or the agent inside a gate or a deadline."""
        return None

    def having(self, settings: "Thinking") -> "AbstractAgent":
        """The same agent with other thinking.

        Args:
            settings: how it thinks; a gate or a deadline stays.
        """
        raise TypeError(f"{type(self).__name__} cannot be given other thinking.")

    def having_model(self, model: WorldModel, members: Members | None) -> "AbstractAgent":
        """The same agent with another model, for example with other names of observations.

        Args:
            model: the other model.
            members: its plausible parameters, if any.
        """
        raise TypeError(f"{type(self).__name__} cannot be given another model.")

    def having_returns(self, spread: float) -> "AbstractAgent":
        """The same agent with a known range of returns.

        Args:
            spread: the range of the agent's returns, from 5% to 95%.
        """
        raise TypeError(f"{type(self).__name__} cannot be given the range of its returns.")

    @property
    def observation_spaces(self) -> tuple[tuple[str, Space], ...]:
        """The parts of its observation, as pairs of name and `Space`; empty where unknown."""
        return getattr(self.model, "observation_spaces", ())

    @property
    def action_spaces(self) -> tuple[tuple[str, Space], ...]:
        """Its actions, as pairs of name and `Space`; empty where unknown."""
        return getattr(self.model, "action_spaces", ())

    def player(self, seed: int = 0) -> "Player":
        """A player for your own loop: one environment, NumPy in and out.

        Args:
            seed: seed of its latents and actions.
        """
        from thinkslow.agent.player import Player

        return Player(self, seed)
