"""Craftax: Crafter and a dungeon below it, written in JAX; whole or `Classic`, pixels or symbols.

It cannot be installed together with MiniGrid: both install a package `pygame`, and one overwrites
the other. Compiling takes a minute or more, and the first import builds a cache of textures.
"""

from typing import Any

import numpy as np
from gymnasium import spaces

from thinkslow.envs.families.family import Family, register
from thinkslow.envs.families.functional import Functional, Stepped

NAMES = ("Craftax-Pixels", "Craftax-Symbolic", "Craftax-Classic-Pixels", "Craftax-Classic-Symbolic")


class Craftax(Functional):
    """One of the package's four environments.

    Args:
        name: its name, without the version.
        length: steps until an episode is truncated; None: the package's own.
    """

    def __init__(self, name: str, *, length: int | None = None):
        from craftax.craftax_env import (  # pyright: ignore[reportMissingImports]
            make_craftax_env_from_name,
        )

        world = make_craftax_env_from_name(f"{name}-v1", auto_reset=False)
        params = world.default_params
        if length is not None:
            params = params.replace(max_timesteps=length)
        pixels = "Pixels" in name
        shape = world.observation_space(params).shape

        def shown(seen: Any) -> Any:
            return (seen * 255).round().astype("uint8") if pixels else seen

        def begin(key: Any) -> tuple[Any, Any]:
            seen, state = world.reset_env(key, params)
            return state, shown(seen)

        def go(key: Any, state: Any, action: Any) -> Stepped:
            seen, state, reward, over, _ = world.step_env(key, state, action, params)
            # Anything else that ends an episode also ends it without the limit.
            endless = params.replace(max_timesteps=2**30)
            ended = world.is_terminal(state, endless)
            return Stepped(state, shown(seen), reward, ended, over & ~ended)

        super().__init__(begin, go)
        self.action_space = spaces.Discrete(int(world.num_actions))
        self.observation_space = (
            spaces.Box(0, 255, shape, np.uint8)
            if pixels
            else spaces.Box(-np.inf, np.inf, shape, np.float32)
        )


def _register() -> None:
    for name in NAMES:
        register(f"{name}-v1", f"{__name__}:Craftax", name=name)


FAMILY = Family(
    "Craftax",
    "Craftax-",
    "craftax",
    "craftax",
    "Craftax-Classic-Pixels-v1",
    extra="craftax",
    registers=_register,
)
