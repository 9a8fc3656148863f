"""What a test of evaluation needs besides environments: an agent of no known architecture, and
environments side by side without processes of their own.
"""

import hashlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent.abstract import About, AbstractAgent
from thinkslow.envs import Failure, Nonfinite, Step, VectorEnv, make


class SideBySide(VectorEnv):
    """Environments in this process, where starting others would take most of a test's time."""

    def __init__(self, id: str, count: int, **making: Any):
        for limit in ("step_limit_s", "reset_limit_s"):  # there is no process to end
            making.pop(limit, None)
        self.id, self.count, self._making = id, count, making
        self.restart()
        self.observation_space = self._players[0].observations
        self.action_spaces = self._players[0].actions
        self._seen = [""] * count

    @property
    def first_seen(self) -> list[str]:
        return self._seen

    def __enter__(self) -> "SideBySide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def restart(self) -> None:
        self._players = [make(self.id, **self._making) for _ in range(self.count)]

    def close(self) -> None:
        for player in self._players:
            player.close()

    def reset(self, seeds: Any = None) -> Step:
        self._time = 0
        self._shown = [
            player.reset(seed=seed)[0] for player, seed in zip(self._players, seeds, strict=True)
        ]
        self._seen = [
            hashlib.blake2b(b"".join(shown[name].tobytes() for name in sorted(shown))).hexdigest()
            for shown in self._shown
        ]
        return self._stepped(np.ones(self.count, bool), {})

    def step(self, actions: Any, *, playing: Any = None) -> Step:
        outcomes: dict[int, Any] = {}
        self._time += 1
        for index in map(int, np.flatnonzero(playing)):
            try:
                several = isinstance(actions, Mapping)
                row = {k: v[index] for k, v in actions.items()} if several else actions[index]
                self._shown[index], *outcomes[index], _ = self._players[index].step(row)
            except LookupError as error:
                outcomes[index] = Failure("step", type(error).__name__, str(error))
        return self._stepped(np.zeros(self.count, bool), outcomes)

    def _stepped(self, is_first: np.ndarray, outcomes: dict[int, Any]) -> Step:
        zeros = [np.zeros(self.count, bool) for _ in range(3)]
        reward, (last, terminal, crashed) = np.zeros(self.count, np.float32), zeros
        errors: list[Failure | None] = [None] * self.count
        nonfinite = []
        for index, outcome in outcomes.items():
            if isinstance(outcome, Failure):
                errors[index], crashed[index], last[index] = outcome, True, True
                continue
            reward[index], terminal[index], truncated = outcome
            last[index] = terminal[index] or truncated
            keys = self._players[index].nonfinite
            nonfinite += [Nonfinite(key, index, 0, self._time) for key in keys]
        shown = {name: np.stack([one[name] for one in self._shown]) for name in self._shown[0]}
        return Step(
            shown, reward, is_first, last, terminal, crashed, tuple(errors), tuple(nonfinite)
        )


class Chooser:
    """Splits an action vector of three, and knows nothing else of the world."""

    def split(self, action: np.ndarray) -> dict[str, Any]:
        return {"action": np.asarray(action).argmax(-1)}


class Guesser(AbstractAgent):
    """Takes a random action, or always the one that it `prefers` where the random one is 0."""

    prefers: int = 0
    about: About = About()
    model: Any = Chooser()

    def start(self, batch: int) -> Any:
        return jnp.zeros(batch)

    def act(self, carry: Any, observation: Any, is_first: Any, *, keys: Any) -> Any:
        chosen = _guessed(keys)
        chosen = jnp.where(chosen == 0, self.prefers, chosen)
        still = jnp.zeros(len(chosen))
        thought = SimpleNamespace(thinks=still > 0, moved=still, doubt=None)
        # for block_until_ready, which takes pytrees
        return carry, jax.nn.one_hot(chosen, 3), thought


@jax.jit
def _guessed(keys: Any) -> Any:
    return jax.vmap(lambda key: jr.randint(key, (), 0, 3))(keys)
