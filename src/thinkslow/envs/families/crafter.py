"""Crafter: survive, gather and build in a partly observed world. One image, 17 actions.

Here an episode is determined by its seed and actions. The package itself keeps the creatures of a
region in a set and draws their random numbers in its order, which depends on memory addresses and
differs between processes.
"""

import collections
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from thinkslow.envs.families.family import Family, register


class InOrder(dict):
    """A set that iterates in the order of insertion."""

    def add(self, thing: Any) -> None:
        self[thing] = None

    def remove(self, thing: Any) -> None:
        del self[thing]


class Crafter(gymnasium.Env):
    """Crafter's own environment, made again for each seed: only its constructor takes one."""

    def __init__(self, *, reward: bool = True, size: int = 64, length: int = 10_000):
        self.given = {"reward": reward, "size": (size, size), "length": length}
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Discrete(17)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        import crafter  # pyright: ignore[reportMissingImports]

        super().reset(seed=seed)
        self.game: Any = crafter.Env(seed=int(self.np_random.integers(2**31)), **self.given)
        world, forget = self.game._world, self.game._world.reset

        def reset(*given: Any, **more: Any) -> None:
            forget(*given, **more)
            world._chunks = collections.defaultdict(InOrder)

        world.reset = reset
        return self.game.reset(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        image, reward, done, info = self.game.step(int(action))
        died = info["discount"] == 0
        return image, float(reward), bool(done and died), bool(done and not died), {}


def _register() -> None:
    for id, reward in (("CrafterReward-v1", True), ("CrafterNoReward-v1", False)):
        register(id, f"{__name__}:Crafter", reward=reward)


FAMILY = Family(
    "Crafter",
    r"Crafter(No)?Reward-",
    "crafter",
    "crafter",
    "CrafterReward-v1",
    extra="crafter",
    arguments=lambda size: {"size": size},
    registers=_register,
)
