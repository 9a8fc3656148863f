"""Recorded frames as tables of small images, inlined as WebP without loss: one row for each
frame, one column for each arm.

A moment is one decision of the base agent: the real frame and the reconstruction of every arm from
its belief, then the later frames and the predictions of every arm. Strips are taken in turn from
all agents until a budget of bytes is used up, so that the page stays small.
"""

import base64
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from thinkslow.evaluation.reading import Kind, kind
from thinkslow.evaluation.records import BASE, Header, strip_file
from thinkslow.evaluation.watching.pictures import WEBP
from thinkslow.plural import plural

Arrays = dict[str, np.ndarray]

BUDGET = 800_000
"""The largest number of characters of all images on a page."""
_FRAMES = {"real": 4, "came": 5}
_DECODED = {"now": 4, "imagined": 5}
"""Arrays of a file, uint8, with their numbers of axes."""


@dataclass(frozen=True)
class Picture:
    """An inlined image with its label."""

    source: str
    caption: str
    description: str


@dataclass(frozen=True)
class Row:
    """One row: the real frame, then the image of every arm."""

    name: str
    """`now`, `t+3`."""
    pictures: list[Picture]


@dataclass(frozen=True)
class Strip:
    """One decision of the base agent."""

    agent: str
    image: str
    step: int
    arms: list[tuple[str, Kind]]
    rows: list[Row]


@dataclass(frozen=True)
class Strips:
    """The moments on a page, and the number of moments left out."""

    shown: list[Strip]
    left_out: int


def moments(folder: Path, header: Header, *, budget: int = BUDGET) -> Strips:
    """The moments of an evaluation folder, as many as fit into `budget` characters of images.

    For each image of an agent, the middle moment comes first, then moments further out.

    **Errors:** `ValueError` with the file's name if a file is not valid.
    """
    recorded = []
    for name in dict.fromkeys(arm["agent"] for arm in header.arms):
        for number, image in enumerate(header.images.get(name, [])):
            frames, arms = _read_all(folder, header, name, number)
            if frames:
                recorded.append((name, image, frames, arms))
    counts = [len(frames["step"]) for _, _, frames, _ in recorded]
    found: list[tuple[int, Strip]] = []
    spent = 0
    for turn in range(max(counts, default=0)):
        for at, (name, image, frames, arms) in enumerate(recorded):
            if turn >= counts[at]:
                continue
            middle = counts[at] // 2
            index = sorted(range(counts[at]), key=lambda i, m=middle: abs(i - m))[turn]
            moment = _moment(name, image, frames, arms, index)
            spent += sum(len(p.source) for row in moment.rows for p in row.pictures)
            if spent > budget and found:
                return _ordered(found, sum(counts))
            found.append((at, moment))
    return _ordered(found, sum(counts))


def _ordered(found: list[tuple[int, Strip]], count: int) -> Strips:
    ordered = sorted(found, key=lambda one: (one[0], one[1].step))
    return Strips([moment for _, moment in ordered], count - len(found))


def _read_all(
    folder: Path, header: Header, agent: str, image: int
) -> tuple[Arrays, dict[str, Arrays]]:
    """The frames of an agent's image and the images of its arms, the base first.

    An arm with other frames is left out; this happens if an environment ignores its seed.
    """
    paths = {
        arm["arm"]: path
        for at, arm in enumerate(header.arms)
        if arm["agent"] == agent and (path := strip_file(folder, at, image)).is_file()
    }
    if BASE not in paths:
        return {}, {}
    frames = _read(paths[BASE], _FRAMES | _DECODED)
    arms = {BASE: frames}
    for arm, path in paths.items():
        decoded = frames if arm == BASE else _read(path, _DECODED)
        if decoded["frames"] == frames["frames"]:
            arms[arm] = decoded
    return frames, arms


def _read(path: Path, parts: dict[str, int]) -> Arrays:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as content:
            names = (*parts, "step", "ahead", "psnr", "frames")
            arrays = {name: content[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is not a readable strip of frames: {error}. Remove it; the page is made "
            "without it."
        ) from None
    count = len(arrays["step"])
    for name, rank in parts.items():
        images = arrays[name]
        if images.dtype != np.uint8 or images.ndim != rank:
            raise ValueError(
                f"{path}: `{name}` must be uint8 frames with {plural(rank, 'axis', 'axes')}; "
                f"got {images.dtype} {images.shape}."
            )
        ahead = len(arrays["ahead"])
        if len(images) != count or (rank == 5 and images.shape[1] != ahead):
            raise ValueError(
                f"{path}: `{name}` holds frames in shape {images.shape[: rank - 3]}; `step` and "
                f"`ahead` give {(count, ahead)[: rank - 3]}."
            )
    return arrays


def _moment(agent: str, image: str, frames: Arrays, arms: dict[str, Arrays], index: int) -> Strip:
    step = int(frames["step"][index])
    rows = []
    for at, ahead in enumerate([0, *map(int, frames["ahead"])]):
        name = f"t+{ahead}" if ahead else "now"
        came = frames["came"][index][at - 1] if ahead else frames["real"][index]
        where = f"step {step}, {name}" if ahead else f"step {step}"
        pictures = [_picture(came, "", f"{where}: the real frame")]
        for arm, decoded in arms.items():
            shown = decoded["imagined"][index][at - 1] if ahead else decoded["now"][index]
            verb = "imagined" if ahead else "decoded"
            pictures.append(
                _picture(shown, _decibels(decoded, frames, index, at), f"{where}: {verb} by {arm}")
            )
        rows.append(Row(name, pictures))
    return Strip(agent, image, step, [(arm, kind(arm)) for arm in arms], rows)


def _decibels(decoded: Arrays, base: Arrays, index: int, at: int) -> str:
    """The PSNR of the base on a frame; for another arm the difference, if its state differs."""
    own, plain = float(decoded["psnr"][index][at]), float(base["psnr"][index][at])
    if decoded is base:
        return f"{own:.1f}"
    same = np.array_equal(decoded["now"][index], base["now"][index])
    return "as none" if same else f"{own - plain:+.1f}".replace("-0.0", "+0.0")


def _picture(image: np.ndarray, caption: str, description: str) -> Picture:
    # of images that are not RGB, such as a stack of frames, the first channel is shown
    image = image if image.shape[-1] == 3 else image[..., 0]
    file = io.BytesIO()
    # the least effort: a twentieth of the time of a PNG with a palette, and no larger
    Image.fromarray(image).save(file, WEBP, lossless=True, quality=0, method=0)
    source = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(source, caption, description)
