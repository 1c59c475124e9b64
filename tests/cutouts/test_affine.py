"""The local affine against the full WCS at every pixel."""

import numpy as np
import pytest
from astropy.wcs import WCS, Sip
from memory_survey import make_wcs

from gzscale.cutouts.affine import TOLERANCE, affine_tiles
from gzscale.cutouts.geometry import wcs_of


def error_across(image_wcs, ra, dec, scale, size):
    """Largest distance between the tiles' affine and the full WCS, over every pixel of the stamp."""
    tiles = affine_tiles(image_wcs, np.array([ra]), np.array([dec]), np.array([scale]), size)
    mapped = np.full((size, size, 2), np.nan)
    for (row, column, rows, columns), origin, matrix in zip(
        tiles.box, tiles.origin, tiles.matrix, strict=True
    ):
        j, i = np.mgrid[0:rows, 0:columns]
        mapped[row : row + rows, column : column + columns] = origin + np.stack([i, j], -1) @ matrix.T
    y, x = np.mgrid[0:size, 0:size].astype(float)
    sky = wcs_of(ra, dec, scale, size).all_pix2world(x.ravel(), y.ravel(), 0)
    true = np.stack(image_wcs.all_world2pix(*sky, 0), axis=-1).reshape(size, size, 2)
    return np.abs(mapped - true).max(), len(tiles.stamp)


@pytest.mark.parametrize(("ra", "dec"), [(0.0001, 5.0), (359.9999, -40.0), (50.0, 89.95), (10.0, -90.0)])
@pytest.mark.parametrize("scale", [0.2, 0.396, 2.0])
def test_affine_is_exact_to_the_tolerance(ra, dec, scale):
    image_wcs = make_wcs(ra + 0.05, max(dec - 0.05, -90.0), rotation=57.0, shape=(1489, 2048))
    error, _ = error_across(image_wcs, ra % 360, dec, scale, 64)
    assert error < TOLERANCE, f"{error:.5f} pixel"


def test_a_distorted_image_is_divided_until_the_affine_is_exact():
    image_wcs = make_wcs(150.0, 2.0, rotation=20.0, shape=(2000, 2000))
    image_wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], a[0, 2], a[1, 1], b[2, 0], b[0, 2], b[1, 1] = 4e-5, -3e-5, 2e-5, -3e-5, 4e-5, 1e-5
    image_wcs.sip = Sip(a, b, None, None, image_wcs.wcs.crpix)
    image_wcs.wcs.set()
    error, tiles = error_across(image_wcs, 150.05, 2.05, 0.396, 96)
    assert tiles > 1
    assert error < 2 * TOLERANCE, f"{error:.5f} pixel in {tiles} tiles"


def test_the_other_side_of_the_sky_has_no_tile():
    tiles = affine_tiles(make_wcs(10.0, 20.0), np.array([190.0]), np.array([-20.0]), np.array([0.4]), 64)
    assert len(tiles.stamp) == 0
    assert np.isnan(tiles.centre).all()


def test_a_singular_wcs_has_no_tile():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10.0, 20.0]
    wcs.wcs.cd = [[1e-4, 0.0], [0.0, 1e-4]]
    tiles = affine_tiles(wcs, np.array([10.0]), np.array([20.0]), np.array([0.0]), 64)
    assert len(tiles.stamp) == 0
