"""The noise model against simulated counting, and its sky against an independent interpolation."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from gzscale.surveys.sdss_noise import NoiseModel, dark_variance, gain

RNG = np.random.default_rng(5)


def model(ny=240, nx=320, sky=None, gain=4.7, dark=1.3):
    sky = np.full((6, 8), 100.0, np.float32) if sky is None else sky
    calibration = (0.005 * (1 + 0.2 * np.sin(np.arange(nx) / 50))).astype(np.float32)
    x = np.linspace(-0.5, sky.shape[1] - 0.5, nx, dtype=np.float32)
    y = np.linspace(-0.5, sky.shape[0] - 0.5, ny, dtype=np.float32)
    return NoiseModel(calibration, sky.astype(np.float32), x, y, gain, dark)


def expose(noise, flux=0.0):
    """Counts of electrons and read noise, sky-subtracted and calibrated: what the model describes."""
    sky = noise.sky_rows(np.arange(len(noise.y)))
    electrons = RNG.poisson((flux / noise.calibration + sky) * noise.gain)
    counts = electrons / noise.gain + RNG.normal(0, np.sqrt(noise.dark_variance), sky.shape)
    return (counts - sky) * noise.calibration


def test_background_sigma_is_the_scatter_of_blank_pixels():
    noise = model(sky=np.linspace(40, 160, 48).reshape(6, 8))
    blank = expose(noise)
    sigma = noise.background_sigma((4, 5))
    measured = blank.reshape(4, 60, 5, 64).std(axis=(1, 3))
    np.testing.assert_allclose(sigma, measured, rtol=0.06)
    assert sigma.dtype == np.float32


def test_inverse_variance_has_the_source_s_own_noise():
    noise = model()
    flux = np.full((240, 320), 2.0, np.float32)
    variance = np.mean([(expose(noise, flux) - flux) ** 2 for _ in range(20)], axis=0).mean()
    assert np.mean(1 / noise.inverse_variance(flux)) == pytest.approx(variance, rel=0.02)
    assert np.mean(noise.inverse_variance(flux)) < 0.5 * np.mean(noise.inverse_variance(0 * flux))


def test_inverse_variance_of_blank_sky_agrees_with_the_grid():
    noise = model()
    ivar = noise.inverse_variance(np.zeros((240, 320), np.float32))
    sigma = noise.background_sigma((240, 320))
    np.testing.assert_allclose(1 / np.sqrt(ivar), sigma, rtol=1e-5)


def test_nan_pixels_have_no_weight():
    pixels = np.zeros((240, 320), np.float32)
    pixels[3, 4] = np.nan
    ivar = model().inverse_variance(pixels)
    assert ivar[3, 4] == 0
    assert np.count_nonzero(ivar == 0) == 1


def test_the_sky_is_bilinear_and_constant_beyond_its_edge():
    sky = RNG.uniform(50, 150, (6, 8))
    noise = model(sky=sky)
    truth = map_coordinates(
        noise.sky.astype(float), np.meshgrid(noise.y, noise.x, indexing="ij"), order=1, mode="nearest"
    )
    np.testing.assert_allclose(noise.sky_rows(np.arange(240)), truth, rtol=1e-5)


def test_a_sky_that_ends_early_is_extended():
    # At the end of a run the stored sky has fewer rows than the interpolation asks for.
    noise = model(sky=np.linspace(40, 160, 48).reshape(6, 8))
    short = NoiseModel(noise.calibration, noise.sky[:4], noise.x, noise.y, noise.gain, noise.dark_variance)
    np.testing.assert_allclose(short.sky_rows(np.array([239])), short.sky_rows(np.array([200])))


def test_a_grid_finer_than_the_image_has_one_cell_a_pixel():
    assert model(ny=10, nx=12).background_sigma((24, 32)).shape == (10, 12)
    assert model(ny=100, nx=120).background_sigma((24, 32)).shape == (24, 32)


def test_the_camera_s_changes():
    # Values of the data model, and of psField 2583-2-136 (GAIN and DARK_VARIANCE in ugriz).
    assert [gain(band, 2, 2583) for band in "ugriz"] == [1.825, 3.855, 4.6, 5.195, 5.155]
    assert [dark_variance(band, 2, 2583) for band in "ugriz"] == [12.6025, 1.44, 1.0, 6.25, 1.0]
    assert gain("u", 2, 1100) == 1.595
    assert gain("u", 1, 5000) == 1.62
    assert (dark_variance("z", 4, 1500), dark_variance("z", 4, 1501)) == (9.61, 12.6025)
    assert (dark_variance("z", 5, 745), dark_variance("z", 5, 3918)) == (1.8225, 2.1025)
