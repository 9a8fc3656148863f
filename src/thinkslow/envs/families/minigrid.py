"""MiniGrid and BabyAI: rooms on a grid, as images.

`--env-option view=partial` (the default) shows the 7 by 7 cells ahead, `view=full` the whole grid
with the agent in it: twins of one task, the same level for a seed. `view=cells` shows the codes of
the cells ahead, as the package does itself. The mission is text and is left out.
"""

from typing import Any

import gymnasium

from thinkslow.envs.families.family import Family, chosen

VIEWS = ("partial", "full", "cells")
AHEAD = 7
"""Number of visible cells on each side."""


def _seen(env: gymnasium.Env, size: int, *, view: str) -> gymnasium.Env:
    """**Errors:** `ValueError` for an unknown view."""
    from minigrid import wrappers  # pyright: ignore[reportMissingImports]

    chosen(view=(view, VIEWS))
    world: Any = env.unwrapped
    if view == "partial":
        return wrappers.RGBImgPartialObsWrapper(env, tile_size=max(1, size // AHEAD))
    if view == "full":
        side = max(world.width, world.height)
        return wrappers.RGBImgObsWrapper(env, tile_size=max(1, size // side))
    return env


FAMILY = Family(
    "MiniGrid",
    "MiniGrid-|BabyAI-",
    "minigrid",
    "minigrid",
    "MiniGrid-DoorKey-5x5-v0",
    extra="minigrid",
    options={"view": "partial"},
    dress=_seen,
    twins=("view", "partial", "full"),
)
