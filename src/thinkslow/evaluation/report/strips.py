"""Frames of an evaluation as rows of small pictures, inlined as base64 PNG.

A row is one decision of one arm: the frame that came, what the model decodes from the belief
before and after refinement, their difference, and the imagined future above the real one.
Rows are taken in turn from all arms until a budget of bytes is spent, so that a page stays
small however many arms it has.
"""

import base64
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from thinkslow.evaluation.images import psnr
from thinkslow.evaluation.reading import kind
from thinkslow.evaluation.records import Header, strip_file

Key = tuple[str, str, str]
"""Agent, arm, image."""
Strip = dict[str, np.ndarray]
"""Frames real, before, after `[N, H, W, C]`, imagined and came `[N, L, H, W, C]`, all uint8; step
`[N]`; ahead `[L]`, how many steps ahead each looks."""

_PARTS = {"real": 4, "before": 4, "after": 4, "imagined": 5, "came": 5}
"""With their number of axes."""

AMPLIFY = 8
"""How much the difference between the two reconstructions is magnified, around mid-grey."""


@dataclass(frozen=True)
class Picture:
    """An inlined image with the words under it."""

    source: str
    caption: str
    description: str


@dataclass(frozen=True)
class Row:
    """One decision of one arm."""

    agent: str
    arm: str
    image: str
    step: int
    now: list[Picture]
    """Real, before, after, amplified difference."""
    future: Picture | None
    """Imagined frames above the frames that came, a column for each of `ahead`."""
    ahead: list[int]
    """How many steps ahead each column looks."""


def read(folder: Path, header: Header) -> dict[Key, Strip]:
    """The strips of an evaluation folder; those that are not there are left out.

    **Errors:** `ValueError` with the file's name if one cannot be understood.
    """
    return {
        (arm["agent"], arm["arm"], image): _read(path)
        for at, arm in enumerate(header.arms)
        for number, image in enumerate(header.images.get(arm["agent"], []))
        if (path := strip_file(folder, at, number)).is_file()
    }


def rows(strips: dict[Key, Strip], *, budget: int = 1_000_000) -> list[Row]:
    """Rows of all arms within `budget` bytes of text: by agent, refinements first, by step.

    Every arm shows the decision in the middle of its recording, refinements of all agents
    first; then one more of each outward from there, while the budget lasts.
    """
    agents = list(dict.fromkeys(agent for agent, *_ in strips))
    rank = {"refinement": 0, "base": 1, "control": 2}
    order = sorted(strips, key=lambda key: rank[kind(key[1])])
    kept: dict[Key, list[Row]] = {key: [] for key in order}
    spent = 0
    for turn in range(max((len(strip["step"]) for strip in strips.values()), default=0)):
        for key in order:
            count = len(strips[key]["step"])
            if turn >= count:
                continue
            outward = sorted(range(count), key=lambda index: abs(index - count // 2))
            row = _row(*key, strips[key], outward[turn])
            spent += sum(len(p.source) for p in [*row.now, *([row.future] if row.future else [])])
            if spent > budget:
                return _listed(kept, agents)
            kept[key].append(row)
    return _listed(kept, agents)


def _listed(kept: dict[Key, list[Row]], agents: list[str]) -> list[Row]:
    groups = sorted(kept.items(), key=lambda item: agents.index(item[0][0]))
    return [row for _, group in groups for row in sorted(group, key=lambda row: row.step)]


def _row(agent: str, arm: str, image: str, strip: Strip, index: int) -> Row:
    real, before, after = (strip[name][index] for name in ("real", "before", "after"))
    step = int(strip["step"][index])
    change = after.astype(np.int16) - before.astype(np.int16)
    amplified = np.clip(128 + AMPLIFY * change, 0, 255).astype(np.uint8)
    where = f"arm {arm}, {image}, step {step}"
    imagined, came = strip["imagined"][index], strip["came"][index]
    future = None
    if len(imagined):
        both = np.concatenate([np.concatenate(list(frames), axis=1) for frames in (imagined, came)])
        future = _picture(both, "", f"{where}: imagined frames above those that came")
    return Row(
        agent=agent,
        arm=arm,
        image=image,
        step=step,
        now=[
            _picture(real, "real", f"{where}: the real frame"),
            _picture(
                before,
                f"before, {psnr(before, real):.1f} dB",
                f"{where}: decoded from the belief before refinement",
            ),
            _picture(
                after,
                f"after, {psnr(after, real):.1f} dB",
                f"{where}: decoded from the belief after refinement",
            ),
            _picture(
                amplified,
                f"after − before, ×{AMPLIFY}",
                f"{where}: difference of the two, magnified around grey",
            ),
        ],
        future=future,
        ahead=[int(steps) for steps in strip["ahead"]],
    )


def _read(path: Path) -> Strip:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as content:
            strip = {name: content[name] for name in (*_PARTS, "step", "ahead")}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable strip of frames: {error}.") from None
    count = len(strip["step"])
    for name, rank in _PARTS.items():
        images = strip[name]
        if images.dtype != np.uint8 or images.ndim != rank:
            raise ValueError(
                f"{path}: `{name}` must be uint8 frames with {rank} axes; "
                f"got {images.dtype} {images.shape}."
            )
        if len(images) != count:
            raise ValueError(f"{path}: `{name}` has {len(images)} entries, `step` has {count}.")
    for name in ("imagined", "came"):
        if strip[name].shape[1] != len(strip["ahead"]):
            raise ValueError(
                f"{path}: `{name}` has {strip[name].shape[1]} frames a step, "
                f"`ahead` names {len(strip['ahead'])}."
            )
    return strip


def _picture(image: np.ndarray, caption: str, description: str) -> Picture:
    # 256 colours of its own: a third of the size, and decoded noise still looks like itself
    # of other channels than red, green and blue, such as a stack of frames, the first is shown
    image = image if image.shape[-1] == 3 else image[..., 0]
    png = io.BytesIO()
    Image.fromarray(image).quantize(256).save(png, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    return Picture(source, caption, description)
