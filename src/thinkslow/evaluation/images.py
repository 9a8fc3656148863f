"""MSE, PSNR and SSIM of predicted images against the real images, per frame.

Images are arrays `[..., height, width, channels]`, floats in [0, 1] or uint8 (which is
divided by 255). Every measure is one number for each leading index, so that the
caller averages decibels over frames, never the error inside a logarithm. A prediction may
leave [0, 1], as a Gaussian decoder's mean does: it is clipped first. A frame whose
prediction is non-finite scores NaN: that is for the caller to report, not for a mean to hide.
`as_bytes` and `coloured` make images that can be shown.

Computed in float64 on the host. SSIM is a program compiled by JAX, which is imported at its first
use; in NumPy, its many small products would keep all cores busy. Nothing here knows models, beliefs
or episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

PSNR_CAP_DB = 100.0
"""PSNR of identical frames, and the largest value of any pair of frames."""

WINDOW = 11
"""Width and height of the window of SSIM; frames must be at least as large."""
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_CHUNK = 3 << 16  # how many numbers are compared at once: 16 frames of 64x64x3 fit the cache


def mse(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> np.ndarray:
    """Mean squared error of each frame, in squared units of the range [0, 1].

    Takes `[..., H, W, C]`, returns `[...]`. Raises ValueError if the shapes differ or if the
    truth leaves [0, 1].

    >>> float(mse(np.full((8, 8, 3), 0.5), np.zeros((8, 8, 3), np.uint8)))
    0.25
    """
    return _score(prediction, truth, _error)[0]


def psnr(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> np.ndarray:
    """Peak signal-to-noise ratio of each frame in dB: -10 log10(MSE), for a range of 1.

    Takes `[..., H, W, C]`, returns `[...]`, at most `PSNR_CAP_DB` (an MSE below 1e-10, which
    is far finer than uint8 can tell; without a cap one identical frame makes a mean infinite).
    Raises as `mse` does.

    >>> float(psnr(np.full((8, 8, 3), 0.1), np.zeros((8, 8, 3))).round(6))
    20.0
    """
    return _decibels(mse(prediction, truth))


def ssim(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> np.ndarray:
    """Structural similarity of each frame: 1 for identical frames, about 0 for unrelated ones.

    Gaussian window of 11×11 pixels with sigma 1.5, K1 = .01, K2 = .03, range 1, population
    covariance; per channel, averaged over the area where the whole window fits, then over
    channels. Takes `[..., H, W, C]`, returns `[...]`. Raises as `mse` does, and if a side is
    shorter than the window.

    It equals `skimage.metrics.structural_similarity(..., gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1, channel_axis=-1)` to rounding (the tests hold
    that). **Cost:** 0.4 ms of one core for a 64×64×3 frame.

    **References:** Wang et al., Image Quality Assessment: From Error Visibility to
    Structural Similarity, IEEE Trans. Image Processing 13(4), 2004.

    >>> picture = np.random.default_rng(0).random((2, 16, 16, 3))
    >>> ssim(picture, picture)
    array([1., 1.])
    """
    predicted, true = _images(prediction, truth)
    height, width = predicted.shape[-3:-1]
    if min(height, width) < WINDOW:
        raise ValueError(
            f"SSIM needs frames of at least {WINDOW}×{WINDOW} pixels, the size of its window; "
            f"got {height}×{width}."
        )
    return _score(predicted, true, _similarity)[0]


def compared(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> dict[str, np.ndarray]:
    """All of these measures by name, without `ssim` if a side is shorter than its window.

    **Cost:** two thirds of three calls, as frames are converted once and `psnr` follows from `mse`.

    >>> picture = np.zeros((16, 16, 3))
    >>> {name: float(value) for name, value in compared(picture, picture).items()}
    {'psnr': 100.0, 'mse': 0.0, 'ssim': 1.0}
    """
    predicted, true = _images(prediction, truth)
    large = min(predicted.shape[-3:-1]) >= WINDOW
    error, *similarity = _score(predicted, true, _error, *[_similarity] * large)
    found = {"psnr": _decibels(error), "mse": error}
    return found | {"ssim": similarity[0]} if large else found


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] as uint8; non-finite values become 0."""
    if image.dtype == np.uint8:
        return image
    return (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8)


def coloured(image: np.ndarray) -> np.ndarray:
    """The image as `[H, W, 3]`. If it is not RGB, the first channel is shown in grey."""
    return image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)


def _decibels(error: np.ndarray) -> np.ndarray:
    """The PSNR of a mean squared error."""
    floor = 10.0 ** (-PSNR_CAP_DB / 10.0)
    return np.asarray(-10.0 * np.log10(np.maximum(error, floor)))


def _score(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    *measures: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> list[np.ndarray]:
    """Apply each measure to frames `[N, H, W, C]` in [0, 1] as float64, in chunks that fit the
    cache.
    """
    predicted, true = _images(prediction, truth)
    lead, frame = predicted.shape[:-3], predicted.shape[-3:]
    predicted, true = predicted.reshape(-1, *frame), true.reshape(-1, *frame)
    scores = np.empty((len(measures), len(predicted)))
    chunk = max(1, _CHUNK // math.prod(frame))
    for at in range(0, len(predicted), chunk):
        part = slice(at, at + chunk)
        x, y = _unit(predicted[part]), _unit(true[part])
        if not (np.min(y) >= 0.0 and np.max(y) <= 1.0):  # also true of NaN
            raise ValueError(
                f"The truth must lie in [0, 1] or be uint8; got floats from {np.min(y):g} to "
                f"{np.max(y):g}. Divide by 255, or pass the uint8 frames themselves."
            )
        finite = np.all(np.isfinite(x), axis=(1, 2, 3))
        x = np.where(finite[:, None, None, None], x, 0.0)
        x = np.clip(x, 0.0, 1.0)
        for row, measure in zip(scores, measures, strict=True):
            row[part] = np.where(finite, measure(x, y), np.nan)
    return [row.reshape(lead) for row in scores]


def _error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """MSE of `[N, H, W, C]` against the same shape, as `[N]`."""
    return np.mean(np.square(x - y), axis=(1, 2, 3))


def _similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean SSIM of `[N, H, W, C]` against the same shape, as `[N]`.

    Computed for a full chunk for every N, so one program is enough for frames of one size.
    """
    import jax

    count, size = len(x), max(1, _CHUNK // math.prod(x.shape[1:]))
    padded = [np.pad(each, ((0, size - count), (0, 0), (0, 0), (0, 0))) for each in (x, y)]
    with jax.enable_x64(True):
        return np.asarray(_program()(*padded))[:count]


@cache
def _program() -> Callable[[Any, Any], Any]:
    """The two variances enter the formula only as their sum, so four filtered images suffice."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def similarity(x: Any, y: Any) -> Any:
        rows, columns = _window_matrix(x.shape[1]), _window_matrix(x.shape[2])

        def smooth(image: Any) -> Any:
            return jnp.einsum("ij,njkc,lk->nilc", rows, image, columns)

        mean_x, mean_y = smooth(x), smooth(y)
        means_squared = mean_x * mean_x + mean_y * mean_y
        means_product = mean_x * mean_y
        variances = smooth(x * x + y * y) - means_squared
        covariance = smooth(x * y) - means_product
        numerator = (2 * means_product + _C1) * (2 * covariance + _C2)
        denominator = (means_squared + _C1) * (variances + _C2)
        return jnp.mean(numerator / denominator, axis=(1, 2, 3))

    return similarity


def _window_matrix(size: int) -> np.ndarray:
    """The Gaussian window as a banded matrix `[size - 10, size]`: a correlation as a product."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size - WINDOW + 1, size))
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = weights
    return matrix


def _images(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of one image shape and a type that is meant for images."""
    predicted, true = np.asarray(prediction), np.asarray(truth)
    if predicted.shape != true.shape or predicted.ndim < 3 or 0 in predicted.shape[-3:]:
        raise ValueError(
            "Prediction and truth must be images [..., height, width, channels] of one shape; "
            f"got {predicted.shape} and {true.shape}."
        )
    for array in (predicted, true):
        # excludes other kinds, because bfloat16 is not a NumPy floating type
        if array.dtype != np.uint8 and array.dtype.kind in "biucOSUmM":
            raise TypeError(f"Images must be floats in [0, 1] or uint8; got {array.dtype}.")
    return predicted, true


def _unit(image: np.ndarray) -> np.ndarray:
    """The image as float64; uint8 is divided by 255."""
    return image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)
