"""Seeing against GalSim's own Moffat profile; conditions within what the survey has."""

import galsim
import numpy as np
import pytest

from gzscale.errors import ConfigError
from gzscale.sky import camera, conditions


def drawn(seed):
    return conditions.draw_conditions("sdss", "ugriz", np.random.default_rng(seed))


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


def test_an_unknown_camera_is_refused():
    with pytest.raises(ConfigError, match="sdss"):
        conditions.draw_conditions("euclid", "r", np.random.default_rng(1))
