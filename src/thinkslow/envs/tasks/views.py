"""Twins of CollectGoodObjects: with the same seed and actions they have the same world, motion,
rewards and random numbers, but other observations.

*Informed* shows the same image and also the positions of the agent and of every box: it is fully
observable with identical images. *Panorama* shows four views around the agent in one image; its
field sets how much is observed. *Map* shows the whole world from above, centred on the agent, so
that the results of its next actions are at the same place of every image. *TopDown* shows the floor
plan with the agent as an arrow.
"""

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from miniworld.opengl import FrameBuffer
from pyglet import gl

from thinkslow.envs.tasks.collect import (
    BOXES,
    DOOR,
    WALL,
    CollectGoodObjects,
    distance,
)

SHADES = {"outside": 0, "left": 70, "right": 120, "wall": 220}
"""Greys of the map; only the boxes have a colour."""
MARK = 3.0
"""Radius of a box on the map, in pixels of 64."""


class CollectGoodObjectsTopDown(CollectGoodObjects):
    """The same task, completely visible from above, with the agent as an arrow."""

    def render_obs(self, frame_buffer: FrameBuffer | None = None) -> np.ndarray:
        """The floor plan, which fills the image."""
        frame_buffer = self.obs_fb if frame_buffer is None else frame_buffer
        self.shadow_window.switch_to()
        frame_buffer.bind()
        gl.glClearColor(0.0, 0.0, 0.0, 1.0)
        gl.glClear(gl.GL_COLOR_BUFFER_BIT | gl.GL_DEPTH_BUFFER_BIT)
        gl.glMatrixMode(gl.GL_PROJECTION)
        gl.glLoadIdentity()
        gl.glOrtho(-self.half, self.half, -self.half, self.half, 0.0, 20.0)
        gl.glMatrixMode(gl.GL_MODELVIEW)
        gl.glLoadIdentity()
        gl.gluLookAt(0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
        return self._render_world(frame_buffer, render_agent=True)


class CollectGoodObjectsInformed(CollectGoodObjects):
    """The task in the first person, with the complete state in addition to the image.

    `world` is [4 + 8 * 4]: the agent's place as shares of the floor plan, sine and cosine of its
    heading; then, nearest first, each box's distance as a share of the diagonal, sine and cosine
    of its bearing (left is positive), and 1 for good or -1 for bad.
    """

    def __init__(self, **given: Any):
        super().__init__(**given)
        self.observation_space = spaces.Dict(
            image=self.observation_space,
            world=spaces.Box(-1.0, 1.0, (4 + 4 * len(BOXES),), np.float32),
        )

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        image, info = super().reset(**given)
        return {"image": image, "world": self._world()}, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        image, *rest = super().step(action)
        return {"image": image, "world": self._world()}, *rest  # pyright: ignore[reportReturnType]

    def _world(self) -> np.ndarray:
        x, _, z = self.agent.pos
        heading = self.agent.dir
        found = [x / self.half, z / self.half, math.sin(heading), math.cos(heading)]
        for thing in sorted(self.things, key=lambda one: distance(one.pos, self.agent.pos)):
            to_x, to_z = thing.pos[0] - x, thing.pos[2] - z
            bearing = math.atan2(-to_z, to_x) - heading
            share = math.hypot(to_x, to_z) / (2 * self.half * math.sqrt(2))
            found += [share, math.sin(bearing), math.cos(bearing), thing.reward]
        return np.array(found, np.float32)


class CollectGoodObjectsPanorama(CollectGoodObjects):
    """The task with views all around: front and right above left and back, 90 degrees each.

    Args:
        field: degrees that are seen, around the heading; the rest is black.
        given: arguments of the task.

    **Errors:** `ValueError` for a field beyond 360 degrees, or an odd size.
    """

    def __init__(self, field: int | float = 360, size: int = 64, **given: Any):
        if not 0 < field <= 360:
            raise ValueError(f"`field` must be above 0 and at most 360 degrees; got {field}.")
        if size % 2:
            raise ValueError(f"`size` must be even, for two views side by side; got {size}.")
        columns = np.degrees(np.arctan((np.arange(size // 2) + 0.5) / (size // 4) - 1.0))
        self.shown = {
            yaw: np.abs((columns - yaw + 180) % 360 - 180) <= field / 2 for yaw in (0, -90, 90, 180)
        }
        """By the angle of a view, left positive, the columns inside the field."""
        super().__init__(size=size // 2, **given)
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)

    def render_obs(self, frame_buffer: FrameBuffer | None = None) -> np.ndarray:
        """The four views in one image."""
        heading, self.agent.cam_fov_y = self.agent.dir, 90.0
        views = []
        for yaw, shown in self.shown.items():
            self.agent.dir = heading + math.radians(yaw)
            views.append(super().render_obs(frame_buffer) * shown[None, :, None])
        self.agent.dir = heading
        front, right, left, back = views
        return np.concatenate(
            [np.concatenate([front, right], 1), np.concatenate([left, back], 1)]
        ).astype(np.uint8)


class CollectGoodObjectsMap(CollectGoodObjects):
    """The whole world from above, centred on the agent, with its heading upwards.

    Near objects are drawn larger: the distance from the centre of the image is the square root of
    the distance in the world. The furthest corner of the world is at the edge.
    """

    def __init__(self, size: int = 64, **given: Any):
        ticks = (np.arange(size) + 0.5) / (size / 2) - 1.0
        across, ahead = np.meshgrid(ticks, -ticks)
        radius = np.hypot(across, ahead)
        self.pixels = np.stack([ahead, -across], -1)
        """Ahead and left, in [-1, 1], of each pixel."""
        self.world = self.pixels * radius[..., None]
        """The place of each pixel in the world, as a share of the reach."""
        super().__init__(size=size, **given)

    def render_obs(self, frame_buffer: FrameBuffer | None = None) -> np.ndarray:
        """The map."""
        reach, heading = 2 * self.half * math.sqrt(2), self.agent.dir
        (x, _, z), turn = self.agent.pos, np.array([math.cos(heading), -math.sin(heading)])
        left = np.array([turn[1], -turn[0]])
        places = reach * self.world @ np.stack([turn, left]) + [x, z]
        far_x, far_z = np.abs(places).transpose(2, 0, 1)
        shades = np.where(places[..., 0] < 0, SHADES["left"], SHADES["right"])
        if self.wall:
            shades[(far_x < WALL / 2) & (far_z > DOOR / 2)] = SHADES["wall"]
        shades[np.maximum(far_x, far_z) > self.half] = SHADES["outside"]
        image = np.repeat(shades[..., None], 3, -1).astype(np.float32)
        size = len(image)
        for thing in sorted(self.things, key=lambda one: -distance(one.pos, self.agent.pos)):
            to = np.array([thing.pos[0] - x, thing.pos[2] - z])
            share = math.hypot(*to) / reach
            middle = np.array([to @ turn, to @ left]) / max(reach * math.sqrt(share), 1e-9)
            away = np.hypot(*(self.pixels - middle).transpose(2, 0, 1)) * size / 2
            cover = np.clip(MARK * size / 64 - away + 0.5, 0.0, 1.0)[..., None]
            colour = (0, 255, 0) if thing.reward > 0 else (255, 0, 0)
            image = image * (1 - cover) + np.array(colour) * cover
        return np.rint(image).astype(np.uint8)
