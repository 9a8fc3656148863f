"""CollectGoodObjects: gather green boxes and avoid red ones in two rooms.

After DeepMind Lab's collect-good-objects. Two rooms of 4.5 m by 9.3 m lie side by side
behind a wall with one door, and differ in wall and floor. Five good boxes (green, +1) and
three bad ones (red, -1) stand about; a box that is touched comes back elsewhere at once.
The agent sees a square image in the first person, or, in the top-down twin, the whole
world from above with itself as an arrow: a fully observable version of the same task. For
the same seed and actions, all views have the same world, motion, rewards and random numbers.

Twins of it differ in what is seen. *Informed* shows the same image and, beside it, where the
agent and every box are: fully observable with identical pictures. *Panorama* shows four views
around the agent in one image, a dose of observability: `field` degrees of it, with or without the
wall between the rooms (`wall`), which stays solid.

In version 0 a box comes back at a place from the random stream of the episode, so that what one
box does changes where all later ones appear. In version 1 it follows from the episode, the box and
how often it was taken: two players of one seed find the same boxes again.

A decision is a turn by 27 degrees or a walk of 0.66 m, made in three parts; a wall stops
the part that would enter it. An episode is a fixed number of decisions and then truncated.

Assumes that pyglet was told to draw without a display (`rendering.pyglet`).
MiniWorld compiles its static geometry into display list 1, which all instances in a
process share; here every instance owns its lists, so that instances do not disturb each
other.
"""

import contextlib
import math
import sys
from typing import Any

import numpy as np
import pyglet
from gymnasium import spaces
from miniworld.entity import COLORS, Box
from miniworld.math import intersect_circle_segs
from miniworld.miniworld import MiniWorldEnv
from miniworld.opengl import FrameBuffer, Texture, drawBox
from miniworld.params import DEFAULT_PARAMS
from miniworld.utils import get_file_path
from PIL import Image
from pyglet import gl

ROOM = 4.5  # width of a room in metres; the floor plan is a square
WALL = 0.3  # thickness of the wall between the rooms
DOOR = 1.6
DOOR_HEIGHT = 2.1
HALF = ROOM + WALL / 2  # of the floor plan, which is centred on the origin

BOXES = ("good",) * 5 + ("bad",) * 3
REWARD = {"good": 1.0, "bad": -1.0}
COLOUR = {"good": "green", "bad": "red"}
BOX = 0.6

PARTS = 3  # of one decision
TURN = math.radians(9.0)
STEP = 0.22
AWAY = 1.5  # a box comes back at least this far from the agent

PARAMS = DEFAULT_PARAMS.no_random()
PARAMS.set("cam_height", 0.8)  # low enough to see a box until it is touched

SURFACES = {
    "left wall": "brick_wall", "left floor": "wood_planks", "right wall": "drywall",
    "right floor": "floor_tiles_bw", "ceiling": "concrete_tiles",
}  # fmt: skip
"""What the rooms are covered with."""
OTHERS = (
    "airduct_grate", "asphalt", "cardboard", "cinder_blocks", "concrete", "grass", "marble",
    "metal_grill", "picket_fence", "rock", "slime", "stucco", "water", "wood",
)  # fmt: skip
"""What they can be covered with instead."""

LEFT, RIGHT, FORWARD = range(3)


class Thing(Box):
    """A box that is good or bad."""

    pos: Any  # MiniWorld declares no types
    dir: Any

    def __init__(self, kind: str):
        super().__init__(color=COLOUR[kind], size=BOX)
        self.reward = REWARD[kind]


class CollectGoodObjects(MiniWorldEnv):
    """The task in the first person. Actions: 0 turn left, 1 turn right, 2 forward."""

    agent: Any
    light_ambient: Any
    light_color: Any

    def __init__(
        self,
        size: int = 64,
        decisions: int = 250,
        counter: bool = False,
        render_mode: str | None = None,
    ):
        self.counter = counter
        self.surfaces = dict(SURFACES)
        window = 256 if render_mode else size
        self.lists: dict[str, int] = {}
        with contextlib.redirect_stdout(sys.stderr):  # MiniWorld prints; results are the caller's
            super().__init__(
                max_episode_steps=decisions,
                obs_width=size,
                obs_height=size,
                window_width=window,
                window_height=window,
                params=PARAMS,
                render_mode=render_mode,
            )
        self.action_space = spaces.Discrete(3)

    def step(  # pyright: ignore[reportIncompatibleMethodOverride]: inferred there as constants
        self, action: Any
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Make one decision; the reward is that of every box touched on the way."""
        reward = 0.0
        for _ in range(PARTS):
            self._move(action)
            reward += self._collect()
        self.step_count += 1
        truncated = self.step_count >= self.max_episode_steps
        return self.render_obs(), reward, False, truncated, {}

    def cover(self, rng: np.random.Generator, count: int) -> None:
        """Cover so many surfaces of the rooms with something else, from the next episode on."""
        changed = rng.choice(sorted(SURFACES), count, replace=False).tolist()
        others = rng.choice(OTHERS, count, replace=False).tolist()
        self.surfaces = SURFACES | dict(zip(changed, others, strict=True))

    def state(self) -> dict[str, Any]:
        """Everything that the rest of an episode follows from; `restore` brings it back."""
        return {
            "agent": (self.agent.pos.copy(), self.agent.dir),
            "things": [(thing.pos.copy(), thing.dir) for thing in self.things],
            "taken": list(self.taken), "episode": self.episode, "steps": self.step_count,
            "surfaces": dict(self.surfaces),
            "random": self.np_random.bit_generator.state,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Bring the world to where `state` was called, in this or another instance."""
        if state["surfaces"] != self.surfaces:
            self.surfaces = dict(state["surfaces"])
            super().reset()  # builds the rooms again
        self.agent.pos, self.agent.dir = state["agent"][0].copy(), state["agent"][1]
        for thing, (pos, turn) in zip(self.things, state["things"], strict=True):
            thing.pos, thing.dir = pos.copy(), turn
        self.taken, self.episode = list(state["taken"]), state["episode"]
        self.step_count = state["steps"]
        self.np_random.bit_generator.state = state["random"]

    def _gen_world(self) -> None:
        left, right = (
            self.add_rect_room(
                low, high, -HALF, HALF, wall_tex=self.surfaces[f"{side} wall"],
                floor_tex=self.surfaces[f"{side} floor"], ceil_tex=self.surfaces["ceiling"],
            )
            for side, low, high in (("left", -HALF, -WALL / 2), ("right", WALL / 2, HALF))
        )  # fmt: skip
        self.connect_rooms(left, right, min_z=-DOOR / 2, max_z=DOOR / 2, max_y=DOOR_HEIGHT)
        for room in self.rooms:
            for name in (room.wall_tex_name, room.floor_tex_name, room.ceil_tex_name):
                _load_texture(name)
        self._gen_static_data()

        self.agent.pos = _place(self.agent.radius, self.np_random)
        self.agent.dir = self.np_random.uniform(-math.pi, math.pi)
        self.things: list[Thing] = []
        for kind in BOXES:
            thing = Thing(kind)
            self._put(thing, self.np_random)
            self.things.append(thing)
        self.taken = [0] * len(self.things)
        self.episode = int(self.np_random.integers(2**63)) if self.counter else 0
        self.entities = [self.agent, *self.things]

    def _move(self, action: int) -> None:
        if action == FORWARD:
            position = self.agent.pos + STEP * self.agent.dir_vec
            if not intersect_circle_segs(position, self.agent.radius, self.wall_segs):
                self.agent.pos = position
        else:
            self.agent.dir += TURN if action == LEFT else -TURN

    def _collect(self) -> float:
        """The reward for the boxes within reach, each of which is put elsewhere."""
        reward = 0.0
        for index, thing in enumerate(self.things):
            if _distance(thing.pos, self.agent.pos) < thing.radius + self.agent.radius:
                reward += thing.reward
                self.taken[index] += 1
                entropy = [self.episode, index, self.taken[index]]
                self._put(thing, np.random.default_rng(entropy) if self.counter else self.np_random)
        return reward

    def _put(self, thing: Thing, rng: np.random.Generator) -> None:
        """Put a box at a random place, clear of the other boxes and away from the agent."""
        others = [other for other in self.things if other is not thing]
        while True:
            place = _place(thing.radius, rng)
            if _distance(place, self.agent.pos) > AWAY and all(
                _distance(place, other.pos) > thing.radius + other.radius for other in others
            ):
                break
        thing.pos = place
        thing.dir = rng.uniform(-math.pi, math.pi)

    def _render_static(self) -> None:
        """Compile the rooms and the boxes into display lists of this instance."""
        self.shadow_window.switch_to()
        if not self.lists:
            self.lists = {name: gl.glGenLists(1) for name in ("rooms", *COLOUR.values())}
        gl.glNewList(self.lists["rooms"], gl.GL_COMPILE)
        # A light at infinity: the fourth coordinate is zero.
        gl.glLightfv(gl.GL_LIGHT0, gl.GL_POSITION, (gl.GLfloat * 4)(1.0, 3.5, 1.0, 0.0))
        gl.glLightfv(gl.GL_LIGHT0, gl.GL_AMBIENT, (gl.GLfloat * 4)(*self.light_ambient, 1.0))
        gl.glLightfv(gl.GL_LIGHT0, gl.GL_DIFFUSE, (gl.GLfloat * 4)(*self.light_color, 1.0))
        gl.glEnable(gl.GL_LIGHTING)
        gl.glEnable(gl.GL_LIGHT0)
        gl.glShadeModel(gl.GL_SMOOTH)
        gl.glEnable(gl.GL_COLOR_MATERIAL)
        gl.glColorMaterial(gl.GL_FRONT_AND_BACK, gl.GL_AMBIENT_AND_DIFFUSE)
        gl.glEnable(gl.GL_TEXTURE_2D)
        for room in self.rooms:
            room._render()
        gl.glDisable(gl.GL_TEXTURE_2D)
        gl.glEndList()
        for colour in COLOUR.values():
            gl.glNewList(self.lists[colour], gl.GL_COMPILE)
            gl.glColor3f(*COLORS[colour])
            drawBox(-BOX / 2, BOX / 2, 0.0, BOX, -BOX / 2, BOX / 2)
            gl.glEndList()

    def _render_world(self, frame_buffer: FrameBuffer, render_agent: bool) -> np.ndarray:
        """Draw the world from the camera that is set, and read the image back."""
        gl.glCallList(self.lists["rooms"])
        for thing in self.things:
            gl.glPushMatrix()
            gl.glTranslatef(*thing.pos)
            gl.glRotatef(math.degrees(thing.dir), 0.0, 1.0, 0.0)
            gl.glCallList(self.lists[thing.color])
            gl.glPopMatrix()
        if render_agent:
            self._render_arrow()
        return frame_buffer.resolve()

    def _render_arrow(self) -> None:
        """Draw the agent as an arrow, larger than it is so that its heading shows."""
        ahead, right = self.agent.dir_vec, self.agent.right_vec
        above = self.agent.pos + np.array([0.0, 3.0, 0.0])
        gl.glDisable(gl.GL_LIGHTING)
        gl.glBegin(gl.GL_TRIANGLES)
        for side in (-1.0, 1.0):
            tip, wing, notch = above + 0.8 * ahead, side * 0.5 * right - 0.6 * ahead, -0.3 * ahead
            gl.glColor3f(*(1.0, 1.0, 0.0) if side < 0 else (1.0, 0.0, 1.0))
            corners = (tip, above + wing, above + notch)
            for corner in corners if side < 0 else reversed(corners):
                gl.glVertex3f(*corner)
        gl.glEnd()


class CollectGoodObjectsTopDown(CollectGoodObjects):
    """The same task seen whole from above, with the agent as an arrow."""

    def render_obs(self, frame_buffer: FrameBuffer | None = None) -> np.ndarray:
        """The floor plan, which fills the image."""
        frame_buffer = self.obs_fb if frame_buffer is None else frame_buffer
        self.shadow_window.switch_to()
        frame_buffer.bind()
        gl.glClearColor(0.0, 0.0, 0.0, 1.0)
        gl.glClear(gl.GL_COLOR_BUFFER_BIT | gl.GL_DEPTH_BUFFER_BIT)
        gl.glMatrixMode(gl.GL_PROJECTION)
        gl.glLoadIdentity()
        gl.glOrtho(-HALF, HALF, -HALF, HALF, 0.0, 20.0)
        gl.glMatrixMode(gl.GL_MODELVIEW)
        gl.glLoadIdentity()
        gl.gluLookAt(0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
        return self._render_world(frame_buffer, render_agent=True)


class CollectGoodObjectsInformed(CollectGoodObjects):
    """The task in the first person, with everything that there is to know beside the image.

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
        found = [x / HALF, z / HALF, math.sin(heading), math.cos(heading)]
        for thing in sorted(self.things, key=lambda one: _distance(one.pos, self.agent.pos)):
            to_x, to_z = thing.pos[0] - x, thing.pos[2] - z
            bearing = math.atan2(-to_z, to_x) - heading
            share = math.hypot(to_x, to_z) / (2 * HALF * math.sqrt(2))
            found += [share, math.sin(bearing), math.cos(bearing), thing.reward]
        return np.array(found, np.float32)


class CollectGoodObjectsPanorama(CollectGoodObjects):
    """The task seen all around: front and right above left and back, 90 degrees each.

    Args:
        field: Degrees that are seen, around the heading; the rest is black.
        wall: Whether the wall between the rooms is drawn. It is solid in any case.
        given: Arguments of the task.

    **Errors:** `ValueError` for a field beyond 360 degrees, or an odd size.
    """

    def __init__(self, field: int | float = 360, wall: bool = True, size: int = 64, **given: Any):
        if not 0 < field <= 360:
            raise ValueError(f"`field` must be above 0 and at most 360 degrees; got {field}.")
        if size % 2:
            raise ValueError(f"`size` must be even, for two views side by side; got {size}.")
        self.wall = wall
        columns = np.degrees(np.arctan((np.arange(size // 2) + 0.5) / (size // 4) - 1.0))
        self.shown = {
            yaw: np.abs((columns - yaw + 180) % 360 - 180) <= field / 2 for yaw in (0, -90, 90, 180)
        }
        """By the turn of a view, left positive, which of its columns lie in the field."""
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

    def _gen_static_data(self) -> None:
        super()._gen_static_data()
        if self.wall:
            return
        for room in self.rooms:
            faces = room.wall_verts.reshape(-1, 4, 3)
            seen = (np.abs(faces[..., 0]) > WALL / 2 + 1e-6).any(1).repeat(4)
            room.wall_verts, room.wall_norms = room.wall_verts[seen], room.wall_norms[seen]
            room.wall_texcs = room.wall_texcs[seen]


def _place(radius: float, rng: np.random.Generator) -> np.ndarray:
    """A random place in one of the rooms, clear of the walls and of the door."""
    room = rng.choice([-1.0, 1.0])
    x = room * rng.uniform(WALL / 2 + radius, HALF - radius)
    z = rng.uniform(-HALF + radius, HALF - radius)
    return np.array([x, 0.0, z])


def _load_texture(name: str) -> None:
    """Put a texture where MiniWorld looks for it.

    The pixels are those that `Texture.load` would give, which converts them to RGBA by a regular
    expression and takes half a second for each texture.
    """
    path = get_file_path("textures", f"{name}_1", "png")
    if path in Texture.tex_cache:
        return
    with Image.open(path) as image:
        pixels = image.convert("RGBA").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    size, data = pixels.size, pixels.tobytes()
    texture = pyglet.image.ImageData(*size, "RGBA", data).get_texture()
    gl.glBindTexture(texture.target, texture.id)
    gl.glTexImage2D(texture.target, 0, gl.GL_RGB, *size, 0, gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, data)
    gl.glHint(gl.GL_GENERATE_MIPMAP_HINT, gl.GL_NICEST)
    gl.glGenerateMipmap(texture.target)
    gl.glTexParameteri(texture.target, gl.GL_TEXTURE_MAG_FILTER, gl.GL_LINEAR)
    gl.glTexParameteri(texture.target, gl.GL_TEXTURE_MIN_FILTER, gl.GL_LINEAR_MIPMAP_LINEAR)
    gl.glBindTexture(texture.target, 0)
    Texture.tex_cache[path] = Texture(texture, name)


def _distance(place: np.ndarray, other: np.ndarray) -> float:
    return math.hypot(place[0] - other[0], place[2] - other[2])
