"""Image metrics against answers known by hand and against scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from thinkslow.evaluation import images


def pictures(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth predictions and the noisy uint8 frames they predict."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, shape[-3])[:, None, None] * np.linspace(0.2, 1, shape[-2])[:, None]
    truth = np.clip(ramp + 0.05 * rng.normal(size=shape), 0, 1)
    return np.clip(truth + 0.1 * rng.normal(size=shape), 0, 1), np.round(255 * truth).astype("u1")


def reference_ssim(prediction: np.ndarray, truth: np.ndarray) -> float:
    score = structural_similarity(
        prediction.astype(np.float64),
        truth.astype(np.float64) / 255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=-1,
    )
    assert isinstance(score, float)
    return score


def test_psnr_of_a_constant_error_is_minus_twenty_log_of_it():
    truth = np.full((3, 16, 16, 3), 0.5)
    errors = np.array([0.1, 0.01, 0.5])
    prediction = truth + errors[:, None, None, None]
    np.testing.assert_allclose(images.mse(prediction, truth), errors**2, rtol=1e-12)
    np.testing.assert_allclose(images.psnr(prediction, truth), [20, 40, 6.0206], atol=1e-4)


def test_black_against_white_scores_zero_decibels():
    black, white = np.zeros((16, 16, 3)), np.full((16, 16, 3), 255, np.uint8)
    assert images.mse(black, white) == 1.0
    assert images.psnr(black, white) == 0.0
    # every window has means 0 and 1 and no variance: SSIM = C1 / (1 + C1)
    np.testing.assert_allclose(images.ssim(black, white), 1e-4 / (1 + 1e-4), rtol=1e-9)


def test_identical_frames_are_capped_and_wholly_similar():
    _, truth = pictures(4, 20, 20, 3)
    np.testing.assert_array_equal(images.mse(truth, truth), 0.0)
    np.testing.assert_array_equal(images.psnr(truth, truth), images.PSNR_CAP_DB)
    np.testing.assert_array_equal(images.ssim(truth, truth), 1.0)


def test_frames_are_averaged_in_decibels_not_in_error():
    truth = np.zeros((2, 16, 16, 1))
    prediction = truth + np.array([0.1, 0.001])[:, None, None, None]
    assert images.psnr(prediction, truth).mean() == pytest.approx(40.0)


@pytest.mark.parametrize("side", [8, 16])  # the window of SSIM has 11 pixels
def test_measures_together_are_the_measures_alone(side):
    rng = np.random.default_rng(side)
    prediction, truth = rng.random((3, side, side, 3)), rng.random((3, side, side, 3))
    prediction[1, 0, 0, 0] = np.nan
    found = images.compared(prediction, truth)
    alone = [images.psnr, images.mse] + [images.ssim] * (side > 11)
    assert set(found) == {measure.__name__ for measure in alone}
    for measure in alone:
        np.testing.assert_array_equal(found[measure.__name__], measure(prediction, truth))


@pytest.mark.parametrize("metric", [images.mse, images.psnr, images.ssim])
def test_predictions_are_clipped_to_the_range(metric):
    prediction, truth = pictures(3, 16, 16, 3)
    wild = np.where(prediction > 0.5, prediction * 4, prediction - 0.3)
    np.testing.assert_array_equal(metric(wild, truth), metric(np.clip(wild, 0, 1), truth))


@pytest.mark.parametrize("shape", [(64, 64, 3), (11, 40, 1), (33, 17, 3)])
def test_scores_agree_with_scikit_image(shape):
    prediction, truth = pictures(5, *shape)
    pairs = list(zip(prediction, truth, strict=True))
    np.testing.assert_allclose(
        images.ssim(prediction, truth), [reference_ssim(x, y) for x, y in pairs], atol=1e-9
    )
    np.testing.assert_allclose(
        images.psnr(prediction, truth),
        [peak_signal_noise_ratio(y / 255, x, data_range=1) for x, y in pairs],
        rtol=1e-12,
    )


def test_a_flat_bright_frame_loses_no_accuracy_to_cancellation():
    truth = np.full((16, 16, 3), 250, np.uint8)
    prediction = truth / 255 - 1e-6 * np.random.default_rng(0).random((16, 16, 3))
    np.testing.assert_allclose(
        images.ssim(prediction, truth), reference_ssim(prediction, truth), atol=1e-12
    )


@pytest.mark.parametrize("metric", [images.mse, images.psnr, images.ssim])
def test_a_frame_scores_the_same_alone_and_in_any_batch(metric):
    prediction, truth = pictures(4, 30, 16, 16, 3)  # more than one chunk of the computation
    batched = metric(prediction, truth)
    assert batched.shape == (4, 30)
    assert metric(prediction[2, 3], truth[2, 3]).shape == ()
    # products of other sizes may round in another order
    np.testing.assert_allclose(batched[2, 3], metric(prediction[2, 3], truth[2, 3]), rtol=1e-12)
    assert metric(prediction[:, :0], truth[:, :0]).shape == (4, 0)


@pytest.mark.parametrize("metric", [images.mse, images.psnr, images.ssim])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_scores_nan_and_spares_its_neighbours(metric, bad):
    prediction, truth = pictures(3, 16, 16, 3)
    clean = metric(prediction, truth)
    prediction[1, 4, 4, 0] = bad
    scores = metric(prediction, truth)
    assert np.isnan(scores[1])
    np.testing.assert_allclose(scores[[0, 2]], clean[[0, 2]], rtol=1e-12)


def test_what_a_model_computes_in_is_taken_as_it_is():
    _, truth = pictures(2, 16, 16, 3)
    half = jnp.asarray(truth / 255.0, jnp.bfloat16)
    np.testing.assert_allclose(
        images.mse(half, truth), images.mse(np.asarray(half, np.float64), truth), rtol=1e-12
    )


@pytest.mark.parametrize("metric", [images.mse, images.psnr, images.ssim])
def test_wrong_images_are_refused_with_the_rule_and_the_value(metric):
    images = np.zeros((2, 16, 16, 3))
    with pytest.raises(ValueError, match=r"\(2, 16, 16, 3\).* \(16, 16, 3\)"):
        metric(images, images[0])
    with pytest.raises(ValueError, match="height, width, channels"):
        metric(images[0, 0], images[0, 0])
    with pytest.raises(ValueError, match="got floats from 255 to 255"):
        metric(images, np.full_like(images, 255.0))
    with pytest.raises(ValueError, match="truth must lie in"):
        metric(images, np.full_like(images, np.nan))
    with pytest.raises(TypeError, match="got int64"):
        metric(images.astype(np.int64), images)


def test_a_frame_smaller_than_the_window_has_no_ssim():
    with pytest.raises(ValueError, match=r"at least 11×11 pixels.*got 8×16"):
        images.ssim(np.zeros((8, 16, 3)), np.zeros((8, 16, 3)))
