"""The grids of cutouts against astropy's own projections."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from gzscale.config import GeometryConfig
from gzscale.cutouts.geometry import (
    MAX_WIDTH,
    check_sizes,
    grid_to_sky,
    half_diagonal,
    pixel_scales,
    wcs_of,
)
from gzscale.errors import Reason

POSITIONS = [(0.0001, 0.0), (359.9999, 12.0), (180.0, -89.9999), (77.0, 90.0), (200.0, -90.0), (12.5, 60.0)]


@pytest.mark.parametrize(("ra", "dec"), POSITIONS)
@pytest.mark.parametrize("size", [64, 65])
def test_wcs_puts_the_object_at_the_exact_centre(ra, dec, size):
    wcs = wcs_of(ra, dec, 0.396, size)
    sky = wcs.pixel_to_world((size - 1) / 2, (size - 1) / 2)
    assert sky.separation(SkyCoord(ra, dec, unit="deg")).arcsec < 1e-6


@pytest.mark.parametrize(("ra", "dec"), POSITIONS)
def test_grid_to_sky_agrees_with_the_wcs(ra, dec):
    size, scale = 64, 1.3
    y, x = np.mgrid[0:size:7, 0:size:7].astype(float)
    offset = (size - 1) / 2
    found = grid_to_sky(
        np.array([[ra]]),
        np.array([[dec]]),
        (x.ravel() - offset)[None] * scale,
        (y.ravel() - offset)[None] * scale,
    )
    expected = wcs_of(ra, dec, scale, size).pixel_to_world(x.ravel(), y.ravel())
    apart = SkyCoord(found[0][0], found[1][0], unit="deg").separation(expected).arcsec
    assert apart.max() < 1e-6, f"{apart.max()} arcsec"


def test_north_is_up_and_east_is_left():
    wcs = wcs_of(30.0, 20.0, 1.0, 64)
    centre, above, left = (wcs.pixel_to_world(x, y) for x, y in [(31.5, 31.5), (31.5, 41.5), (21.5, 31.5)])
    assert above.dec.deg - centre.dec.deg == pytest.approx(10 / 3600, rel=1e-6)
    assert (left.ra.deg - centre.ra.deg) * np.cos(centre.dec.rad) == pytest.approx(10 / 3600, rel=1e-4)


def test_sizes_that_cannot_be_cut_are_refused_with_a_reason():
    config = GeometryConfig(size=96, scale="0.08 * size")
    sizes = np.array([3.0, 0.0, -2.0, np.nan, np.inf, 1e6, 234.0])
    refused = check_sizes(config, sizes, len(sizes))
    assert {row: reason for row, (reason, _) in refused.items()} == {
        1: Reason.BAD_SIZE,
        2: Reason.BAD_SIZE,
        3: Reason.MISSING_SIZE,
        4: Reason.BAD_SIZE,
        5: Reason.BAD_SIZE,
    }
    scales = pixel_scales(config, sizes, len(sizes))
    assert np.array_equal(np.isfinite(scales), [True, False, False, False, False, False, True])
    assert scales[0] == pytest.approx(0.24)
    assert half_diagonal(config, scales)[6] * np.sqrt(2) <= MAX_WIDTH


def test_a_fixed_scale_needs_no_size():
    config = GeometryConfig(size=64, scale=0.396)
    assert check_sizes(config, None, 2) == {}
    assert np.array_equal(pixel_scales(config, np.array([np.nan, -1.0]), 2), [0.396, 0.396])
    assert half_diagonal(config, np.array([0.396]))[0] == pytest.approx(64 * 0.396 / 3600 / np.sqrt(2))


def test_a_catalog_without_sizes_is_refused_as_a_whole():
    refused = check_sizes(GeometryConfig(size=96, scale="0.08 * size"), None, 3)
    assert [reason for reason, _ in refused.values()] == [Reason.MISSING_SIZE] * 3


@pytest.mark.parametrize(("size", "scale"), [(1024, 2.0), (8, 31.0)])
def test_a_fixed_geometry_that_is_too_wide_or_too_coarse_refuses_everybody(size, scale):
    config = GeometryConfig(size=size, scale=scale)
    assert [reason for reason, _ in check_sizes(config, None, 2).values()] == [Reason.BAD_SIZE] * 2
    assert np.isnan(pixel_scales(config, None, 2)).all()
