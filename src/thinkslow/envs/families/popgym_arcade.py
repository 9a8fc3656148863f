"""POPGym Arcade: small games in JAX, each with a twin that is seen in part.

`popgym-arcade/CartPoleEasy-v0` shows the whole state, and `popgym-arcade/CartPoleEasyPartial-v0` a
part of it. With the same seed and actions, both are the same game.
"""

from typing import Any

import numpy as np
from gymnasium import spaces

from thinkslow.envs.families.family import Family, register
from thinkslow.envs.families.functional import Functional, Stepped

SIDE = 128
"""Pixels at which the games are rendered; the package also supports 256."""
PARTIAL = "Partial"


class Arcade(Functional):
    """A game of the package.

    Args:
        game: its name, with the difficulty.
        partial: whether only a part of the state is shown.
    """

    def __init__(self, game: str, *, partial: bool = False):
        import popgym_arcade  # pyright: ignore[reportMissingImports]

        world, params = popgym_arcade.make(game, partial_obs=partial, obs_size=SIDE)

        def begin(key: Any) -> tuple[Any, Any]:
            seen, state = world.reset_env(key, params)
            return state, seen

        def go(key: Any, state: Any, action: Any) -> Stepped:
            seen, state, reward, over, info = world.step_env(key, state, action, params)
            truncated = over & info["truncated"] & ~info["terminated"]
            return Stepped(state, seen, reward, over & ~truncated, truncated)

        super().__init__(begin, go)
        self.action_space = spaces.Discrete(int(world.action_space(params).n))
        self.observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)


def _register() -> None:
    from popgym_arcade.registration import (  # pyright: ignore[reportMissingImports]
        REGISTERED_ENVIRONMENTS,
    )

    for game in REGISTERED_ENVIRONMENTS:
        for partial in (False, True):
            id = f"popgym-arcade/{game}{PARTIAL * partial}-v0"
            register(id, f"{__name__}:Arcade", game=game, partial=partial)


FAMILY = Family(
    "POPGym Arcade",
    "popgym-arcade/",
    "popgym_arcade",
    "popgym-arcade six",
    "popgym-arcade/CartPoleEasyPartial-v0",
    extra="popgym-arcade",
    registers=_register,
)
