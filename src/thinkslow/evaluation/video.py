"""Episodes as video: what the agent saw, next to the decoded belief.

MP4 needs PyAV (the extra `video`). GIF and animated PNG need only Pillow; they hold all frames in
memory and are larger.
"""

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.envs import Step
from thinkslow.envs.descriptions import described
from thinkslow.envs.make import Environment, make
from thinkslow.evaluation.images import coloured
from thinkslow.needs import modes_of
from thinkslow.spaces import Space
from thinkslow.storage import atomic
from thinkslow.storage.lock import alone
from thinkslow.storage.paths import expanded

SIDE = 256
"""Length of the longer side to which small images are enlarged, in pixels."""
LINE = 20
"""Height of the text line below the images, in pixels."""
FPS = 15
MOST = 2_000
"""Largest number of frames of a GIF or PNG."""
ENCODED, ANIMATED = (".mp4",), (".gif", ".png")


def record(
    agent: AbstractAgent,
    environment: str | Mapping[str, Any] | Environment,
    path: str | Path,
    *,
    seed: int = 0,
    max_decisions: int = 1_000,
    fps: int = FPS,
) -> Path:
    """Play one episode and write it as a video: the frames, and what the agent decodes.

    >>> import thinkslow
    >>> agent = thinkslow.load("collect-good")                      # doctest: +SKIP
    >>> thinkslow.record(agent, agent.about.environment, "x.mp4")   # doctest: +SKIP

    If the agent sees no image, the environment is rendered and nothing is decoded.

    Args:
        agent: the agent that plays.
        environment: its id, a mapping such as `agent.about.environment`, or an environment from
            `envs.make`, which stays open.
        path: `.mp4` (needs the extra `video`), `.gif` or `.png`.
        seed: seed of the episode and of the agent's noise.
        max_decisions: the episode is cut after this number of decisions.
        fps: decisions per second of video.

    **Errors:** `ValueError` for another suffix, or an environment with nothing to show;
    `ModuleNotFoundError` for MP4 without PyAV; those of the environment.
    """
    given = isinstance(environment, Environment)
    env = environment if given else _made(environment)
    film = Film(expanded(path), agent.model, images_of(env.observations), fps=fps)
    player, first = agent.player(seed), True
    try:
        seen, _ = env.reset(seed=seed)
        for _ in range(max_decisions):
            action = player(seen, first=first)
            film.add(_shown(env, seen, film.images), player.thought)
            seen, reward, terminated, truncated, _ = env.step(action)
            film.score, first = film.score + float(reward), False
            if terminated or truncated:
                break
        return film.close()
    finally:
        film.drop()
        if not given:
            env.close()


class Film:
    """Writes the frames of one episode to a file; it is also a watcher of a block's first
    environment.

    Args:
        path: path of the file, which exists after `close`.
        model: the model that decodes the beliefs.
        images: names of the images to show.
        fps: number of decisions per second.
    """

    def __init__(self, path: Path, model: Any, images: Sequence[str], *, fps: int = FPS):
        self.model, self.images = model, tuple(images)
        self.score, self.count = 0.0, 0
        self._decoded = tuple(name for name in images if _decodes(model, name))
        self._video = Video(path, fps)
        self.close, self.drop = self._video.close, self._video.drop
        self._now: Mapping[str, np.ndarray] = {}

    def add(self, shown: Mapping[str, np.ndarray], thought: Any) -> None:
        """Add a frame: the observation and the state that acted, both of one environment."""
        pictures = list(shown.values())
        if self._decoded and getattr(thought, "state", None) is not None:
            state = jax.tree.map(lambda x: x[0], thought.state)
            pictures += [np.asarray(one) for one in _decode(self.model, state, self._decoded)]
        self.count += 1
        self._video.add(framed(pictures, f"decision {self.count}, score {self.score:g}"))

    def began(self, observation: Mapping[str, np.ndarray]) -> None:
        self._now = {name: observation[name][0] for name in self.images}

    def decided(self, playing: np.ndarray, thought: Any, action: Any, step: Step) -> None:
        if playing[0]:
            self.add(self._now, thought)
            self.score += float(step.reward[0])
            self.began(step.observation)


class Video:
    """A file that frames are added to. It is written under another name, and exists after `close`.

    Args:
        path: `.mp4`, `.gif` or `.png`.
        fps: number of frames per second.

    **Errors:** `ValueError` for another suffix; `ModuleNotFoundError` for MP4 without PyAV;
    `lock.Locked` while another recording writes this file.
    """

    def __init__(self, path: Path, fps: int = FPS):
        made = _writer_of(path.suffix.lower())
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            held.enter_context(alone(self._part))
            held.callback(self._part.unlink, missing_ok=True)
            self._writer = made(self._part, fps)
            self._held = held.pop_all()
        self.add = self._writer.add

    def close(self) -> Path:
        """Write the remaining frames, and move the file into place."""
        self._writer.close()
        atomic.sync(self._part)
        self._part.replace(self._path)
        self._held.close()
        return self._path

    def drop(self) -> None:
        """Discard a file that was not closed."""
        self._held.close()


def suffix() -> str:
    """MP4 if it can be written, otherwise GIF."""
    return ".mp4" if importlib.util.find_spec("av") else ".gif"


def images_of(observations: Mapping[str, Space]) -> list[str]:
    """Names of the observations that are images."""
    return [name for name, space in observations.items() if space.is_image]


class _Encoded:
    """Writes H.264, frame by frame."""

    def __init__(self, path: Path, fps: int):
        self._av = av = importlib.import_module("av")
        self._file = av.open(str(path), "w", format="mp4")
        self._stream: Any = self._file.add_stream("libx264", rate=fps, options={"crf": "20"})
        self._stream.pix_fmt = "yuv420p"
        self._begun = False

    def add(self, image: np.ndarray) -> None:
        # The codec halves the colour resolution, so sides must be even.
        height, width = (size + size % 2 for size in image.shape[:2])
        even = np.zeros((height, width, 3), np.uint8)
        even[: image.shape[0], : image.shape[1]] = image
        if not self._begun:
            self._stream.width, self._stream.height, self._begun = width, height, True
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._begun:
            self._file.mux(self._stream.encode(None))
        self._file.close()


class _Animated:
    """Writes a GIF or an animated PNG, at the end."""

    def __init__(self, kind: str, path: Path, fps: int):
        self._kind, self._path, self._fps = kind, path, fps
        self._frames: list[Image.Image] = []

    def add(self, image: np.ndarray) -> None:
        if len(self._frames) < MOST:
            self._frames.append(Image.fromarray(image).quantize(128))

    def close(self) -> None:
        first, *rest = self._frames
        first.save(
            self._path,
            self._kind.removeprefix(".").upper(),
            save_all=True,
            append_images=rest,
            duration=round(1000 / self._fps),
            loop=0,
        )


def _writer_of(kind: str) -> Callable[[Path, int], "_Encoded | _Animated"]:
    """The class that writes videos of a suffix."""
    if kind in ANIMATED:
        return functools.partial(_Animated, kind)
    if kind not in ENCODED:
        raise ValueError(f"`path` must end in {', '.join((*ENCODED, *ANIMATED))}; got {kind!r}.")
    if not importlib.util.find_spec("av"):
        raise ModuleNotFoundError(
            "MP4 is written by PyAV, which is not installed: install thinkslow[video], or give a "
            "path that ends in .gif."
        )
    return _Encoded


def _made(environment: str | Mapping[str, Any]) -> Environment:
    """The environment, made with rendering if it shows no image and can be rendered."""
    given = described(environment)
    env = make(**given)
    if images_of(env.observations):
        return env
    env.close()
    rendered = {**(given.get("options") or {}), "render_mode": "rgb_array"}
    return make(**{**given, "options": rendered})


def _shown(
    env: Environment, seen: Mapping[str, np.ndarray], images: Sequence[str]
) -> dict[str, np.ndarray]:
    if images:
        return {name: seen[name] for name in images}
    rendered: Any = env.env.render() if env.env.render_mode else None
    if not isinstance(rendered, np.ndarray):
        raise ValueError(
            f"{env.id} shows no image and renders none: give an environment made with "
            '`options={"render_mode": "rgb_array"}`.'
        )
    if rendered.dtype != np.uint8 or rendered.ndim not in (2, 3) or not rendered.size:
        raise ValueError(
            f"{env.id} renders {rendered.dtype} of {rendered.shape}; a picture is uint8 of "
            "(height, width) or (height, width, channels). Mend its `render`."
        )
    return {"rendered": rendered}


def _decodes(model: Any, name: str) -> bool:
    if not hasattr(model, "decode"):
        return False
    drawn = modes_of(model)
    return name in drawn and len(drawn[name].shape) == 3


@eqx.filter_jit
def _decode(model: Any, state: Any, images: tuple[str, ...]) -> list[Any]:
    heads = model.decode(state)
    return [(jnp.clip(heads[name].mode(), 0, 1) * 255).round().astype(jnp.uint8) for name in images]


def framed(
    pictures: Sequence[np.ndarray], line: str, labels: Sequence[str] = (), *, side: int = SIDE
) -> np.ndarray:
    """Images side by side at one height, enlarged by integer factors, above a line of text.

    Args:
        pictures: `[H, W, channels]`, uint8.
        line: the text below.
        labels: a text above each image, cut to its width; without labels, no space is reserved.
        side: length of the longer side to which small images are enlarged, in pixels.
    """
    large = []
    for picture in pictures:
        colours = coloured(picture)
        factor = max(1, side // max(colours.shape[:2]))
        large.append(np.repeat(np.repeat(colours, factor, 0), factor, 1))
    above = LINE if labels else 0
    height = above + max(one.shape[0] for one in large)
    out = Image.new("RGB", (sum(one.shape[1] + 4 for one in large) - 4, height + LINE))
    draw, across = ImageDraw.Draw(out), 0
    for index, one in enumerate(large):
        out.paste(Image.fromarray(one), (across, above))
        if labels:
            text = labels[index]
            while text and draw.textlength(text) > one.shape[1] - 4:
                text = text[:-1]
            draw.text((across + 4, 4), text, fill="white")
        across += one.shape[1] + 4
    draw.text((4, height + 4), line, fill="white")
    return np.asarray(out)
