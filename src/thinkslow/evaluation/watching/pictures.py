"""Pictures inside a page: small, inlined, and as many as a page can carry.

WebP of high quality without colour halving at edges: a tenth of a PNG, and what a decoder draws
still looks like itself. The numbers beside a picture are computed from the array, not from it.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

LARGEST = 192
"""Pixels of the longer side, to which larger pictures are reduced."""
QUALITY = 92
LOSSLESS = 32 * 32
"""Pixels up to which a picture is kept exactly."""
BUDGET = 12_000_000
"""Characters that all pictures of a page may take."""
STRIDES = (1, 2, 4, 8, 16, 32)
"""Every so many decisions of which the imagined pictures may be kept."""


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] as uint8; what is non-finite becomes 0."""
    if image.dtype == np.uint8:
        return image
    return (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8)


def coloured(image: np.ndarray) -> np.ndarray:
    """`[H, W, 3]`: of other channels than red, green and blue the first is shown, in grey."""
    return image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)


def inlined(image: np.ndarray) -> str:
    """A picture as a `data:` address.

    >>> inlined(np.zeros((2, 2, 1), np.uint8))[:23]
    'data:image/webp;base64,'
    """
    picture = Image.fromarray(coloured(as_bytes(image)))
    longest = max(picture.size)
    if longest > LARGEST:
        size = [max(1, round(side * LARGEST / longest)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BOX)
    file = io.BytesIO()
    exact = picture.width * picture.height <= LOSSLESS
    picture.save(file, "WEBP", quality=QUALITY, lossless=exact, use_sharp_yuv=True)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def stride(fixed: int, each: Sequence[int], budget: int = BUDGET) -> int | None:
    """Every how many decisions the imagined pictures fit into a page; None: none do.

    Args:
        fixed: Characters that all others take.
        each: Characters of the imagined pictures of each decision.
        budget: Of all together.

    >>> stride(10, [5, 5, 5, 5], budget=20), stride(10, [50], budget=20)
    (2, None)
    """
    return next((one for one in STRIDES if fixed + sum(each[::one]) <= budget), None)
