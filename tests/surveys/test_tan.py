"""The gnomonic projection against wcslib."""

import numpy as np
import pytest
from astropy.wcs import WCS
from small_frames import SCALE

from gzscale.surveys.tan import TanFrame, edge_distance, tan_pixels, tan_sky


def astropy_of(frame: TanFrame) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = frame.crval, frame.crpix, np.reshape(frame.cd, (2, 2))
    wcs.wcs.set()
    return wcs


@pytest.mark.parametrize("crval", [(150.0, 2.0), (0.0, 0.0), (359.9999, -60.0), (33.0, 90.0), (33.0, -89.99)])
def test_pixels_and_sky_are_wcslib_s(crval):
    turn = np.radians(33)
    cd = tuple(SCALE * np.array([-np.cos(turn), np.sin(turn), np.sin(turn) * 1.01, np.cos(turn)]))
    frame = TanFrame(crval, (1025.0, 745.0), cd, (1489, 2048))
    x, y = np.random.default_rng(0).uniform(-500, 2500, (2, 400))
    ra, dec = astropy_of(frame).all_pix2world(x, y, 0)
    np.testing.assert_allclose(frame.pixels(ra, dec), (x, y), atol=2e-6)
    mine = tan_sky(np.array([*frame.crval, *frame.crpix, *frame.cd]), x, y)
    np.testing.assert_allclose(mine[1], dec, atol=1e-10)
    separation = (mine[0] - ra + 180) % 360 - 180
    assert np.max(np.abs(separation * np.cos(np.radians(dec)))) < 1e-10


def test_one_call_serves_many_images():
    rng = np.random.default_rng(1)
    ra0, dec0 = rng.uniform(0, 360, 50), rng.uniform(-80, 80, 50)
    parameters = np.stack(
        [ra0, dec0, *np.full((2, 50), 100.0), *np.outer([-SCALE, 0, 0, SCALE], np.ones(50))]
    )
    x, y = tan_pixels(parameters, ra0, dec0)
    np.testing.assert_allclose([x, y], 99.0, atol=1e-9)


def test_the_far_side_of_the_sky_is_nowhere():
    frame = TanFrame((10.0, 0.0), (1.0, 1.0), (-SCALE, 0, 0, SCALE), (10, 10))
    x, y = frame.pixels(np.array([10.0, 190.0, 100.0]), np.array([0.0, 0.0, 90.0]))
    assert x[0] == 0
    assert np.isnan(x[1])
    assert (edge_distance(x, y, frame.shape) == [0.5, -np.inf, -np.inf]).tolist()[:2] == [True, True]


def test_edge_distance_by_hand():
    x = np.array([-0.5, 4.5, 0.0, -3.5, -3.5, 12.5])
    y = np.array([3.0, 9.5, 9.0, 3.0, 13.5, 3.0])
    expected = [0, 0, 0.5, -3, -5, -3]
    np.testing.assert_allclose(edge_distance(x, y, (10, 10)), expected)


def test_scale_and_centre():
    frame = TanFrame((359.99, 10.0), (1.0, 1.0), (-SCALE, 0, 0, SCALE), (101, 201))
    assert frame.scale == pytest.approx(SCALE)
    ra, dec = astropy_of(frame).all_pix2world(100, 50, 0)
    assert frame.centre() == pytest.approx((float(ra), float(dec)), abs=1e-9)
