"""CollectGoodObjects: gather green boxes and avoid red ones in two rooms.

The task is modelled on DeepMind Lab's collect-good-objects. A wall with one door separates two
rooms of 4.5 m by 9.3 m, which differ in walls and floor. They contain five good boxes (green, +1)
and three bad ones (red, -1). A box that is touched reappears elsewhere at once. The agent sees a
square first-person image; its twins (`views`) show the same world in other ways.

In version 0 the new place of a box comes from the random stream of the episode, so every collected
box changes all later places. In version 1 it depends only on the episode, the box and the number of
times this box was taken, so two players with the same seed find the same boxes.

A decision is a turn by 27 degrees or a walk of 0.66 m, made in three parts; a wall stops
the part that would enter it. An episode is a fixed number of decisions and then truncated.

It assumes that pyglet's renderer was chosen before (`rendering.pyglet`).
MiniWorld compiles its static geometry into display list 1, which all instances in a
process share; here every instance owns its lists, so that instances do not disturb each
other.
"""

import contextlib
import ctypes
import math
import sys
from typing import Any

import numpy as np
import pyglet
from gymnasium import spaces
from miniworld.entity import COLORS, Box
from miniworld.miniworld import MiniWorldEnv
from miniworld.opengl import FrameBuffer, Texture, drawBox
from miniworld.params import DEFAULT_PARAMS
from miniworld.utils import get_file_path
from PIL import Image
from pyglet import gl

from thinkslow.envs.families.miniworld import OTHERS

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

DEPTHS = 0.04, 100.0  # what is nearer or further than this is not drawn, in metres

PARAMS = DEFAULT_PARAMS.no_random()
PARAMS.set("cam_height", 0.8)  # low enough to see a box until it is touched

SURFACES = {
    "left wall": "brick_wall",
    "left floor": "wood_planks",
    "right wall": "drywall",
    "right floor": "floor_tiles_bw",
    "ceiling": "concrete_tiles",
}
"""The textures of the rooms."""
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
    sky_color: Any
    wall_segs: Any

    def __init__(
        self,
        size: int = 64,
        decisions: int = 250,
        counter: bool = False,
        wall: bool = True,
        render_mode: str | None = None,
    ):
        """
        Args:
            size: side of the image, pixels.
            decisions: length of an episode.
            counter: whether boxes reappear by a counter, as in version 1.
            wall: whether the wall between the rooms is drawn. It is solid in any case.
            render_mode: as MiniWorld takes it.
        """
        self.counter, self.wall, self.half = counter, wall, HALF
        self.surfaces = dict(SURFACES)
        window = 256 if render_mode else size
        self.lists: dict[str, int] = {}
        self.placed: list[tuple[float, float, float, float]] = []
        """Where the boxes are in their display list: place and direction."""
        # MiniWorld prints, but standard output is for results.
        with contextlib.redirect_stdout(sys.stderr):
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
        """Play one decision. The reward is the sum over all boxes touched on the way."""
        reward = 0.0
        for _ in range(PARTS):
            self._move(action)
            reward += self._collect()
        self.step_count += 1
        truncated = self.step_count >= self.max_episode_steps
        return self.render_obs(), reward, False, truncated, {}

    def cover(self, rng: np.random.Generator, count: int) -> None:
        """Give this many surfaces of the rooms other textures, from the next episode on."""
        changed = rng.choice(sorted(SURFACES), count, replace=False).tolist()
        others = rng.choice(OTHERS, count, replace=False).tolist()
        self.surfaces = SURFACES | dict(zip(changed, others, strict=True))

    def resize(self, factor: float) -> None:
        """Change the size of the rooms, from the next episode on.

        Their floor plan stays a square; door, boxes and the agent keep their sizes.
        """
        self.half = factor * HALF

    def state(self) -> dict[str, Any]:
        """The complete state; `restore` restores it."""
        return {
            "agent": (self.agent.pos.copy(), self.agent.dir),
            "things": [(thing.pos.copy(), thing.dir) for thing in self.things],
            "taken": list(self.taken),
            "episode": self.episode,
            "steps": self.step_count,
            "surfaces": dict(self.surfaces),
            "half": self.half,
            "random": self.np_random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the world to the state of `state`, from this or another instance."""
        if (state["surfaces"], state["half"]) != (self.surfaces, self.half):
            self.surfaces, self.half = dict(state["surfaces"]), state["half"]
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
                low,
                high,
                -self.half,
                self.half,
                wall_tex=self.surfaces[f"{side} wall"],
                floor_tex=self.surfaces[f"{side} floor"],
                ceil_tex=self.surfaces["ceiling"],
            )
            for side, low, high in (("left", -self.half, -WALL / 2), ("right", WALL / 2, self.half))
        )
        self.connect_rooms(left, right, min_z=-DOOR / 2, max_z=DOOR / 2, max_y=DOOR_HEIGHT)
        for room in self.rooms:
            for name in (room.wall_tex_name, room.floor_tex_name, room.ceil_tex_name):
                _load_texture(name)
        self._gen_static_data()
        self.walls = [(*begin[::2], *end[::2]) for begin, end in self.wall_segs.tolist()]

        self.agent.pos = self._place(self.agent.radius, self.np_random)
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
            if not any(touches(position, self.agent.radius, *wall) for wall in self.walls):
                self.agent.pos = position
        else:
            self.agent.dir += TURN if action == LEFT else -TURN

    def _collect(self) -> float:
        """The reward for the boxes within reach. Each of them moves to a new place."""
        reward = 0.0
        for index, thing in enumerate(self.things):
            if distance(thing.pos, self.agent.pos) < thing.radius + self.agent.radius:
                reward += thing.reward
                self.taken[index] += 1
                entropy = [self.episode, index, self.taken[index]]
                self._put(thing, np.random.default_rng(entropy) if self.counter else self.np_random)
        return reward

    def _put(self, thing: Thing, rng: np.random.Generator) -> None:
        """Put a box at a random place, clear of the other boxes and away from the agent."""
        others = [other for other in self.things if other is not thing]
        while True:
            place = self._place(thing.radius, rng)
            if distance(place, self.agent.pos) > AWAY and all(
                distance(place, other.pos) > thing.radius + other.radius for other in others
            ):
                break
        thing.pos = place
        thing.dir = rng.uniform(-math.pi, math.pi)

    def _place(self, radius: float, rng: np.random.Generator) -> np.ndarray:
        """A random place in one of the rooms, clear of the walls and of the door."""
        room = rng.choice([-1.0, 1.0])
        x = room * rng.uniform(WALL / 2 + radius, self.half - radius)
        z = rng.uniform(-self.half + radius, self.half - radius)
        return np.array([x, 0.0, z])

    def _gen_static_data(self) -> None:
        super()._gen_static_data()
        if self.wall:
            return
        for room in self.rooms:
            faces = room.wall_verts.reshape(-1, 4, 3)
            seen = (np.abs(faces[..., 0]) > WALL / 2 + 1e-6).any(1).repeat(4)
            room.wall_verts, room.wall_norms = room.wall_verts[seen], room.wall_norms[seen]
            room.wall_texcs = room.wall_texcs[seen]

    def _render_static(self) -> None:
        """Compile the rooms and the boxes into display lists of this instance."""
        self.shadow_window.switch_to()
        if not self.lists:
            names = ("rooms", "things", *COLOUR.values())
            self.lists = {name: gl.glGenLists(1) for name in names}
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

    def render_obs(self, frame_buffer: FrameBuffer | None = None) -> np.ndarray:
        """What the agent sees: as MiniWorld's, whose camera may tilt and multiplies matrices."""
        frame_buffer = self.obs_fb if frame_buffer is None else frame_buffer
        self.shadow_window.switch_to()
        frame_buffer.bind()
        gl.glClearColor(*self.sky_color, 1.0)
        gl.glClearDepth(1.0)
        gl.glClear(gl.GL_COLOR_BUFFER_BIT | gl.GL_DEPTH_BUFFER_BIT)
        gl.glMatrixMode(gl.GL_PROJECTION)
        gl.glLoadIdentity()
        shape = frame_buffer.width / frame_buffer.height
        gl.gluPerspective(self.agent.cam_fov_y, shape, *DEPTHS)
        gl.glMatrixMode(gl.GL_MODELVIEW)
        gl.glLoadIdentity()
        x, y, z = self.agent.pos.tolist()
        y += self.agent.cam_height
        # The cosine and sine of the heading, by the half angle, to the bit as in MiniWorld.
        cos, sin = math.cos(self.agent.dir / 2.0), math.sin(self.agent.dir / 2.0)
        to_x, to_z = cos * cos - sin * sin, -2 * (cos * sin)
        gl.gluLookAt(x, y, z, x + to_x, y, z + to_z, 0.0, 1.0, 0.0)
        return self._render_world(frame_buffer, render_agent=False)

    def _render_world(self, frame_buffer: FrameBuffer, render_agent: bool) -> np.ndarray:
        """Render the world from the present camera, and read the image back."""
        gl.glCallList(self.lists["rooms"])
        places = [(*thing.pos.tolist(), thing.dir) for thing in self.things]
        if places != self.placed:
            self._place_things(places)
        gl.glCallList(self.lists["things"])
        if render_agent:
            self._render_arrow()
        return read(frame_buffer)

    def _place_things(self, places: list[tuple[float, float, float, float]]) -> None:
        """Compile all boxes where they are into a display list: they seldom move."""
        gl.glNewList(self.lists["things"], gl.GL_COMPILE)
        for thing, (x, y, z, turn) in zip(self.things, places, strict=True):
            gl.glPushMatrix()
            gl.glTranslatef(x, y, z)
            gl.glRotatef(math.degrees(turn), 0.0, 1.0, 0.0)
            gl.glCallList(self.lists[thing.color])
            gl.glPopMatrix()
        gl.glEndList()
        self.placed = places

    def _render_arrow(self) -> None:
        """Draw the agent as an arrow, enlarged so that its heading is visible."""
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


def _load_texture(name: str) -> None:
    """Load a texture into MiniWorld's cache.

    The pixels equal those of `Texture.load`, which converts them to RGBA by a regular expression
    and takes half a second for each texture.
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


def touches(place: np.ndarray, radius: float, x0: float, z0: float, x1: float, z1: float) -> bool:
    """Whether a circle on the floor comes nearer to a segment than its radius.

    As `miniworld.math.intersect_circle_segs`, which makes a dozen arrays for a dozen walls.
    """
    x, z = float(place[0]), float(place[2])
    along_x, along_z = x1 - x0, z1 - z0
    share = ((x - x0) * along_x + (z - z0) * along_z) / (along_x * along_x + along_z * along_z)
    share = min(max(share, 0.0), 1.0)
    off_x, off_z = x0 + share * along_x - x, z0 + share * along_z - z
    return math.sqrt(off_x * off_x + off_z * off_z) < radius


def distance(place: np.ndarray, other: np.ndarray) -> float:
    return math.hypot(place[0] - other[0], place[2] - other[2])


def read(frame_buffer: FrameBuffer) -> np.ndarray:
    """The image drawn, as `FrameBuffer.resolve` reads it, without copying the depths too."""
    size = frame_buffer.width, frame_buffer.height
    gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, frame_buffer.multi_fbo)
    gl.glBindFramebuffer(gl.GL_DRAW_FRAMEBUFFER, frame_buffer.final_fbo)
    gl.glBlitFramebuffer(0, 0, *size, 0, 0, *size, gl.GL_COLOR_BUFFER_BIT, gl.GL_LINEAR)
    gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, frame_buffer.final_fbo)
    gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)
    pixels = frame_buffer.img_array
    pointer = pixels.ctypes.data_as(ctypes.POINTER(gl.GLubyte))
    gl.glReadPixels(0, 0, *size, gl.GL_RGB, gl.GL_UNSIGNED_BYTE, pointer)
    gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, 0)
    return np.ascontiguousarray(np.flip(pixels, axis=0))
