"""Images inside a page: small, inlined, and limited in total size.

WebP of high quality without reduced colour resolution at edges: a tenth of a PNG, and
reconstructions still look the same. The numbers next to an image are computed from the array, not
from the WebP.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, WebPImagePlugin

from thinkslow.evaluation.images import as_bytes, coloured

WEBP = WebPImagePlugin.WebPImageFile.format
"""Named by its plugin: for a format that is not loaded, Pillow imports all of its formats."""
LARGEST = 192
"""Length of the longer side to which larger images are reduced, in pixels."""
QUALITY = 92
LOSSLESS = 32 * 32
"""Largest number of pixels of an image that is stored without loss."""
BUDGET = 12_000_000
"""Largest number of characters of all images of a page."""
STRIDES = (1, 2, 4, 8, 16, 32)
"""Possible intervals, in decisions, at which imagined images are kept."""


def inlined(image: np.ndarray) -> str:
    """An image as a `data:` address.

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
    picture.save(file, WEBP, quality=QUALITY, lossless=exact, use_sharp_yuv=True)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def stride(fixed: int, each: Sequence[int], budget: int = BUDGET) -> int | None:
    """The interval, in decisions, at which imagined images fit into a page; None: they never fit.

    Args:
        fixed: number of characters of all other images.
        each: number of characters of the imagined images of each decision.
        budget: largest number of characters of all images together.

    >>> stride(10, [5, 5, 5, 5], budget=20), stride(10, [50], budget=20)
    (2, None)
    """
    return next((one for one in STRIDES if fixed + sum(each[::one]) <= budget), None)
