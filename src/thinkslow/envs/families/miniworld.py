"""MiniWorld: 3D rooms, mazes and objects, rendered with OpenGL. Our own tasks are built on it."""

from typing import Any

import numpy as np

from thinkslow.envs.families.family import Family

DRAWN = {"wall_tex": "concrete", "floor_tex": "floor_tiles_bw", "ceil_tex": "concrete_tiles"}
"""The default textures of a room."""
OTHERS = (
    "airduct_grate",
    "asphalt",
    "cardboard",
    "cinder_blocks",
    "concrete",
    "grass",
    "marble",
    "metal_grill",
    "picket_fence",
    "rock",
    "slime",
    "stucco",
    "water",
    "wood",
)
"""Other textures for rooms."""
SURFACES = 5
"""The surfaces of our rooms; a task with more or fewer gets the same share of other textures."""


def is_one(world: Any) -> bool:
    """Whether a world belongs to MiniWorld."""
    return any(
        (kind.__module__, kind.__name__) == ("miniworld.miniworld", "MiniWorldEnv")
        for kind in type(world).__mro__
    )


def cover(world: Any, rng: np.random.Generator, count: int) -> None:
    """Give surfaces of a task's rooms other textures, from the next episode on.

    Each kind of wall, floor and ceiling is changed with a chance of `count` in five.
    """
    changed: dict[tuple[str, str], str] = {}
    plain = type(world).add_room

    def add_room(**given: Any) -> Any:
        for kind, usual in DRAWN.items():
            name = given.get(kind, usual)
            if (kind, name) not in changed:
                other, differs = str(rng.choice(OTHERS)), rng.random() < count / SURFACES
                changed[kind, name] = other if differs else name
                # The room of a passage is named after its rooms.
                changed.setdefault((kind, other), other)
            given[kind] = changed[kind, name]
        return plain(world, **given)

    world.add_room = add_room


def _drawn_at(size: int) -> dict[str, Any]:
    return dict.fromkeys(("obs_width", "obs_height", "window_width", "window_height"), size)


OURS = Family(
    "thinkslow",
    "thinkslow/",
    "miniworld",
    "miniworld",
    "thinkslow/CollectGoodObjects-v0",
    draws="pyglet",
    arguments=lambda size: {"size": size},
)
FAMILY = Family(
    "MiniWorld",
    "MiniWorld-",
    "miniworld",
    "miniworld",
    "MiniWorld-Hallway-v0",
    draws="pyglet",
    arguments=_drawn_at,
)
