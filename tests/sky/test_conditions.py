"""Seeing against GalSim's own Moffat profile; conditions within what the survey has."""

import galsim
import numpy as np
import pytest

from gzscale.errors import ConfigError
from gzscale.sky import camera, conditions, rubin_camera
from gzscale.sky.patches import field_images


def drawn(seed, survey="sdss", bands="ugriz"):
    return conditions.draw_conditions(survey, bands, np.random.default_rng(seed))


@pytest.mark.parametrize("side", [64, 160])
def test_seeing_is_the_transform_of_a_moffat_and_a_pixel(side):
    field = drawn(1)
    psf = galsim.Convolve(
        galsim.Moffat(field.wings, fwhm=field.seeing[2], gsparams=galsim.GSParams(kvalue_accuracy=1e-7)),
        galsim.Pixel(0.396),
    )
    found = field.seeing_transform(2, side)
    step = 2 * np.pi / (side * 0.396)
    for row, column in ((0, 0), (3, 5), (-7, 2), (side // 2 - 1, side // 2), (0, side // 4)):
        expected = psf.kValue(step * column, step * row).real
        assert found[row, column] == pytest.approx(expected, abs=2e-4)


def test_conditions_scatter_about_the_survey_s_medians():
    fields = [drawn(seed) for seed in range(400)]
    seeing = np.array([field.seeing for field in fields])
    medians = [camera.SEEING[band] for band in "ugriz"]
    np.testing.assert_allclose(np.median(seeing, axis=0), medians, rtol=0.03)
    reddening = np.array([field.reddening for field in fields])
    assert np.median(reddening) == pytest.approx(0.03, rel=0.15)
    assert (reddening > 0).all()
    assert (reddening <= 0.3).all()
    # What the real frames of 3918-3-213 scatter by, in r.
    assert np.median([field.background_sigma[2] for field in fields]) == pytest.approx(0.024, rel=0.1)


def test_rubins_noise_has_the_depth_of_a_year():
    """Five sigma of a point source by LSE-40's effective area, from pixels that were drawn."""
    depths = []
    for seed in range(60):
        field = drawn(seed, "rubin", "ugrizy")
        blank = np.zeros((6, 96, 96), np.float32)
        images = field_images(blank, field, "ugrizy", 1, "field", np.random.default_rng(seed))
        sigma = np.array([image.pixels.std() for image in images])
        assert sigma == pytest.approx(field.background_sigma, rel=0.05)
        pixels = 2.266 * (np.array([rubin_camera.SEEING[band] for band in "ugrizy"]) / 0.2) ** 2
        depths.append(22.5 - 2.5 * np.log10(5 * sigma * np.sqrt(pixels)))
    expected = [rubin_camera.DEPTH[band] for band in "ugrizy"]
    np.testing.assert_allclose(np.median(depths, axis=0), expected, atol=0.05)
    assert np.std(depths, axis=0) == pytest.approx(np.full(6, 0.14), abs=0.04)


def test_rubins_photons_have_the_noise_of_the_simulated_coadds():
    field = drawn(3, "rubin", "ugrizy")
    bright = np.full((6, 96, 96), 10.0, np.float32)
    seen = np.ones((96, 96), bool)
    images = field_images(bright, field, "ugrizy", 1, "field", np.random.default_rng(1))
    for number, band in enumerate("ugrizy"):
        coadd = rubin_camera.expose(bright[number], band, (0, 0, 96, 96), seen, (1, 0))[2] / 3630.78**2
        share = images[number].pixels.var() / coadd.mean()
        # Each field has a throughput of its own.
        assert share == pytest.approx(1, abs=0.12)
        assert images[number].pixels.mean() == pytest.approx(10, rel=1e-3)


def test_rubins_bands_share_one_grid_whose_columns_grow_to_the_west():
    field = drawn(5, "rubin", "ugrizy")
    assert (field.shifts == 0).all()
    assert abs(field.column_angle - 270) <= 2
    assert field.pixel_scale == 0.2
    seeing = np.array([drawn(seed, "rubin", "ugrizy").seeing for seed in range(200)])
    np.testing.assert_allclose(
        np.median(seeing, axis=0), [rubin_camera.SEEING[band] for band in "ugrizy"], rtol=0.03
    )


@pytest.mark.parametrize(("survey", "band"), [("sdss", "r"), ("rubin", "i")])
def test_electrons_a_nanomaggy(survey, band):
    """Photon noise: the variance of a flux is the flux over the electrons that a unit of it makes."""
    if survey == "rubin":
        # 18.4 visits of 30 s; magnitude 27.79 gives an electron a second.
        expected = 18.4 * 30 * 10 ** (0.4 * (27.79 - 22.5))
    else:
        expected = np.mean(camera.GAIN[band]) / camera.NANOMAGGIES_PER_COUNT[band]
    assert conditions.CAMERAS[survey].electrons(band) == pytest.approx(expected)


def test_an_unknown_camera_is_refused():
    with pytest.raises(ConfigError, match="sdss"):
        conditions.draw_conditions("euclid", "r", np.random.default_rng(1))
