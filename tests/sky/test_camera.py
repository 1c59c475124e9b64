"""The synthetic camera's noise against the SDSS data model's formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.sky import camera, scan

KEY = scan.FieldKey(3, 11)


@pytest.fixture(scope="module")
def blank():
    return np.zeros((scan.ROWS, scan.COLUMNS), np.float32)


@pytest.mark.parametrize(("band", "gain", "dark"), [("u", 1.59, 8.7025), ("z", 4.885, 1.0)])
def test_noise_is_that_of_the_data_model(blank, band, gain, dark):
    pixels = camera.observe(blank, KEY, band, seed=1)
    calib = camera.calibration(3, band)
    sky = camera.sky_counts(3, band, np.arange(scan.ROWS), np.arange(scan.COLUMNS))
    sigma = np.sqrt(sky / gain + dark) * calib
    normalised = pixels / sigma
    # 3 million pixels: the mean is known to 0.0006, the standard deviation to 0.0004.
    assert abs(normalised.mean()) < 0.003
    assert abs(normalised.std() - 1) < 0.003


def test_a_source_brings_its_own_noise(blank):
    bright = blank + np.float32(20)
    pixels = camera.observe(bright, KEY, "r", seed=1)
    calib = camera.calibration(3, "r")
    sigma = np.sqrt((20 / calib.mean() + 97) / 4.72 + 1.3225) * calib.mean()
    assert pixels.mean() == pytest.approx(20, rel=1e-3)
    # Ten binary digits round 20 to steps of 2^-5: a variance of step^2 / 12.
    assert pixels.std() == pytest.approx(np.hypot(sigma, 2**-5 / np.sqrt(12)), rel=0.01)


def test_fields_share_their_common_rows(blank):
    step = scan.FIELD_STEP
    here = camera.observe(blank, KEY, "g", seed=5)
    there = camera.observe(blank, scan.FieldKey(3, 12), "g", seed=5)
    np.testing.assert_array_equal(here[step:], there[: scan.ROWS - step])
    assert not np.array_equal(here[: scan.ROWS - step], there[: scan.ROWS - step])


@given(st.floats(2**-20, 2**20, width=32), st.sampled_from([-1, 1]))
def test_ten_binary_digits_are_kept(value, sign):
    rounded = float(camera.float_compress(np.array([sign * value], np.float32))[0])
    mantissa, _ = np.frexp(rounded)
    assert mantissa * 2**10 == round(mantissa * 2**10)
    assert abs(rounded - sign * value) <= abs(value) * 2**-10


def test_values_saturate(blank):
    pixels = camera.observe(blank + np.float32(1e6), KEY, "r", seed=1)
    assert pixels.max() <= camera.SATURATION * camera.calibration(3, "r").max() * 1.001
