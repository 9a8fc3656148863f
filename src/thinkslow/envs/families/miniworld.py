"""MiniWorld: rooms, mazes and things in 3D, drawn with OpenGL. Ours are built on it."""

from typing import Any

from thinkslow.envs.families.family import Family


def _drawn_at(size: int) -> dict[str, Any]:
    return dict.fromkeys(("obs_width", "obs_height", "window_width", "window_height"), size)


OURS = Family(
    "thinkslow", "thinkslow/", "miniworld", "miniworld", "thinkslow/CollectGoodObjects-v0",
    draws="pyglet", arguments=lambda size: {"size": size},
)  # fmt: skip
FAMILY = Family(
    "MiniWorld", "MiniWorld-", "miniworld", "miniworld", "MiniWorld-Hallway-v0",
    draws="pyglet", arguments=_drawn_at,
)  # fmt: skip
