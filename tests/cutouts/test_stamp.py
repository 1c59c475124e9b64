"""Resampled stamps against reproject_exact, and against what flux conservation demands."""

import numpy as np
import pytest
from astropy.wcs.utils import proj_plane_pixel_area
from hypothesis import example, given, settings
from hypothesis import strategies as st
from memory_survey import make_wcs
from reproject import reproject_exact

from gzscale.cutouts.affine import affine_tiles
from gzscale.cutouts.geometry import wcs_of
from gzscale.cutouts.overlap import PHASES
from gzscale.cutouts.stamp import CLIPPED, COVERED, FINITE, Target, finish_stamps, resample
from gzscale.cutouts.sums import is_parallel

SHAPE = (200, 240)


def cut(pixels, wcs, ra, dec, scale, size, direct=True):
    """One stamp as float16, and its tally."""
    slots = 0 if direct else 1
    target = Target(
        out=np.full(size * size, 0x7E00, dtype=np.uint16),
        start=np.zeros(1, dtype=np.int64),
        slot=np.array([-1 if direct else 0]),
        sums=np.zeros((slots, 2, size, size), dtype=np.float32),
        tally=np.zeros((1, 3)),
    )
    tiles = affine_tiles(wcs, np.array([ra]), np.array([dec]), np.array([scale]), size)
    resample(np.ascontiguousarray(pixels, dtype=np.float32), tiles, target)
    if not direct:
        finish_stamps(target, np.array([0]))
    return target.out.view(np.float16).reshape(size, size).astype(float), target.tally[0]


def truth(pixels, wcs, ra, dec, scale, size):
    """Flux a target pixel by reproject_exact: surface brightness times area, and covered fraction."""
    target = wcs_of(ra, dec, scale, size)
    area = proj_plane_pixel_area(target) / proj_plane_pixel_area(wcs)
    flux, covered = reproject_exact((pixels, wcs), target, shape_out=(size, size), parallel=False)
    return flux * area, covered, area


def star(x, y, sigma=1.6, flux=50.0, shape=SHAPE):
    j, i = np.mgrid[0 : shape[0], 0 : shape[1]]
    return flux * np.exp(-((i - x) ** 2 + (j - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def centroid(stamp):
    j, i = np.mgrid[0 : stamp.shape[0], 0 : stamp.shape[1]]
    return (stamp * i).sum() / stamp.sum(), (stamp * j).sum() / stamp.sum()


@pytest.mark.parametrize(
    ("scale", "rotation", "parity"),
    [(0.396, 0.0, -1.0), (0.396, 56.0, 1.0), (0.2, 33.0, -1.0), (0.7, 120.0, 1.0), (1.9, 10.0, -1.0)],
)
def test_stamps_match_reproject_exact(scale, rotation, parity):
    rng = np.random.default_rng(7)
    noise = 0.02
    pixels = rng.normal(0, noise, SHAPE) + star(118, 99) + star(90, 120, 3.0, 30.0)
    wcs = make_wcs(150.0, 30.0, rotation=rotation, parity=parity)
    size = 48 if scale < 1 else 24
    found, _ = cut(pixels, wcs, 150.0, 30.0, scale, size)
    expected, _, area = truth(pixels, wcs, 150.0, 30.0, scale, size)
    difference = np.median(np.abs(found - expected)) / (noise * np.sqrt(area))
    assert difference < 0.01, f"median |difference| is {difference:.4f} of the noise"
    assert found.sum() == pytest.approx(expected.sum(), rel=0.005)


@pytest.mark.parametrize("turn", [-0.45, -0.03, 0.0, 0.2, 0.45])
@pytest.mark.parametrize("stretch", [1.0, 0.9998, 1.0002])
def test_stamps_along_the_pixels_match_reproject_exact(turn, stretch):
    rng = np.random.default_rng(7)
    noise = 0.02
    pixels = rng.normal(0, noise, SHAPE) + star(118, 99) + star(90, 120, 3.0, 30.0)
    pixels[60:63, 100:104] = np.nan
    wcs = make_wcs(150.0, 30.0, rotation=turn)
    ra, dec = (float(v) for v in wcs.wcs_pix2world(90.3, 70.8, 0))
    tiles = affine_tiles(wcs, np.array([ra]), np.array([dec]), np.array([0.396 * stretch]), 150)
    assert all(is_parallel(matrix) for matrix in tiles.matrix), "the way that is tested is taken"
    found, tally = cut(pixels, wcs, ra, dec, 0.396 * stretch, 150)
    good = np.isfinite(pixels)
    flux, _, area = truth(np.where(good, pixels, 0.0), wcs, ra, dec, 0.396 * stretch, 150)
    share, inside, _ = truth(good.astype(float), wcs, ra, dec, 0.396 * stretch, 150)
    # reproject_exact takes no account of what lies beyond the image's edge.
    share = np.nan_to_num(share / area) * inside
    whole = share > 0.999
    difference = np.abs(found - flux)[whole] / (noise * np.sqrt(area))
    assert np.median(difference) < 0.01
    assert np.percentile(difference, 99) < 0.03
    clear = np.abs(share - 0.5) > 0.01
    np.testing.assert_array_equal(np.isfinite(found)[clear], (share >= 0.5)[clear])
    assert tally[COVERED] == pytest.approx(share.sum(), rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(0.15, 1.5),
    rotation=st.floats(0, 360),
    parity=st.sampled_from([-1.0, 1.0]),
    dx=st.floats(-0.5, 0.5),
    dy=st.floats(-0.5, 0.5),
)
def test_flux_is_conserved_and_stays_in_place(scale, rotation, parity, dx, dy):
    x, y = SHAPE[1] / 2 + dx, SHAPE[0] / 2 + dy
    wcs = make_wcs(200.0, -20.0, rotation=rotation, parity=parity)
    ra, dec = (float(v) for v in wcs.wcs_pix2world(x, y, 0))
    size = max(16, 2 * int(14 * 0.396 / scale / 2))
    stamp, tally = cut(star(x, y), wcs, ra, dec, scale, size)
    assert tally[FINITE] == size * size
    assert stamp.sum() == pytest.approx(50.0, rel=0.005), f"{stamp.sum()} of 50"
    # A footprint's flux goes to the middle of a stamp's pixel: that alone moves a star on coarse pixels.
    exact, _, _ = truth(star(x, y), wcs, ra, dec, scale, size)
    moved = (np.array(centroid(stamp)) - np.array(centroid(exact))) * scale / 0.396
    assert np.abs(moved).max() < 0.02, f"centroid off by {moved} source pixels from exact resampling"
    offset = (np.array(centroid(stamp)) - (size - 1) / 2) * min(1.0, scale / 0.396)
    assert np.abs(offset).max() < 0.02, f"centroid off by {offset} of the coarser pixels"


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1.0, 4.0), rotation=st.floats(0, 360), dx=st.floats(-8, 8), dy=st.floats(-8, 8))
@example(scale=4.0, rotation=0.0, dx=0.5, dy=0.625)
def test_a_star_keeps_its_flux_in_large_pixels_wherever_it_falls(scale, rotation, dx, dy):
    sigma = 1.2
    pixels = star(SHAPE[1] / 2 + dx, SHAPE[0] / 2 + dy, sigma=sigma)
    stamp, _ = cut(pixels, make_wcs(10.0, 0.0, rotation=rotation), 10.0, 0.0, scale, 12)
    # Where footprints lie along the source's pixels, the far edge of one may enter a pixel between tabulated
    # phases: a weight is then off by a quarter of a phase, along the star's steepest slope on both axes.
    slope = 1 / (sigma**2 * np.sqrt(2 * np.pi * np.e))
    bound = 2 * slope / (4 * PHASES) + 2.0**-11
    assert bound < 0.006
    assert stamp.sum() == pytest.approx(50.0, rel=bound), f"{stamp.sum()} of 50"


def test_a_target_pixel_of_twice_the_side_holds_four_times_the_sky():
    wcs = make_wcs(10.0, 45.0, rotation=20.0)
    small, _ = cut(np.ones(SHAPE), wcs, 10.0, 45.0, 0.396, 32)
    large, _ = cut(np.ones(SHAPE), wcs, 10.0, 45.0, 0.792, 32)
    assert small == pytest.approx(np.ones((32, 32)), rel=1e-3)
    assert large == pytest.approx(np.full((32, 32), 4.0), rel=1e-3)


@pytest.mark.parametrize("corner", [(0, 0), (0, 239), (199, 0), (199, 239), (100, 0), (0, 100)])
def test_edges_and_corners_are_honestly_empty(corner):
    wcs = make_wcs(359.9999, 0.0, rotation=25.0)
    ra, dec = (float(v) for v in wcs.wcs_pix2world(corner[1], corner[0], 0))
    pixels = np.random.default_rng(3).normal(1, 0.02, SHAPE)
    stamp, tally = cut(pixels, wcs, ra, dec, 0.45, 40)
    expected, covered, _ = truth(pixels, wcs, ra, dec, 0.45, 40)
    doubtful = np.abs(covered - 0.5) < 0.03
    assert np.array_equal(np.isfinite(stamp)[~doubtful], (covered > 0.5)[~doubtful])
    both = np.isfinite(stamp) & (covered > 0.5)
    assert np.nanmax(np.abs(stamp - expected)[both]) < 0.02
    assert 0.2 < tally[FINITE] / 1600 < 0.6
    assert tally[COVERED] == pytest.approx(covered.sum(), rel=0.01)


def test_missing_pixels_have_no_weight():
    pixels = np.ones(SHAPE)
    pixels[95:105, 115:125] = np.nan
    pixels[80, 100] = np.inf
    wcs = make_wcs(20.0, 20.0, rotation=40.0)
    stamp, tally = cut(pixels, wcs, 20.0, 20.0, 0.396, 40)
    assert tally[FINITE] == np.isfinite(stamp).sum()
    assert 60 < 1600 - tally[FINITE] < 140
    assert np.nanmax(np.abs(stamp - 1)) < 2e-3, "pixels beside a hole keep the surface brightness"


def test_one_image_at_once_or_accumulated_is_the_same():
    pixels = np.random.default_rng(5).normal(0, 1, SHAPE)
    pixels[:60] = np.nan
    wcs = make_wcs(20.0, 20.0, rotation=40.0)
    direct, tally = cut(pixels, wcs, 20.0, 20.003, 0.3, 64)
    accumulated, tally2 = cut(pixels, wcs, 20.0, 20.003, 0.3, 64, direct=False)
    assert np.array_equal(direct, accumulated, equal_nan=True)
    assert np.array_equal(tally, tally2)


def test_clipped_pixels_are_counted():
    pixels = np.zeros(SHAPE)
    pixels[90:110, 110:130] = 1e6
    stamp, tally = cut(pixels, make_wcs(20.0, 20.0), 20.0, 20.0, 0.396, 32)
    assert tally[CLIPPED] == (np.abs(stamp) == 65504).sum() > 300
    assert np.isfinite(stamp).all()


@pytest.mark.parametrize(
    ("ra", "dec"), [(0.0001, 0.0), (359.9999, 0.0), (123.0, 90.0), (45.0, -90.0), (80.0, 89.996)]
)
def test_seams_of_the_sky_are_no_seams(ra, dec):
    wcs = make_wcs(0.0 if dec == 0.0 else 30.0, np.sign(dec) * 89.995 if dec else 0.0, rotation=15.0)
    x, y = (float(v) for v in wcs.wcs_world2pix(ra, dec, 0))
    stamp, tally = cut(star(x, y), wcs, ra, dec, 0.396, 32)
    assert tally[FINITE] == 1024
    assert np.abs(np.array(centroid(stamp)) - 15.5).max() < 0.02
    assert stamp.sum() == pytest.approx(50.0, rel=0.005)


def test_bands_with_different_grids_are_aligned():
    first = make_wcs(20.0, 20.0, rotation=40.0)
    second = make_wcs(20.0, 20.0, rotation=40.6, shift=(-7.3, 4.6), scale=0.3962)
    ra, dec = 20.001, 20.001
    centroids = []
    for wcs in (first, second):
        x, y = (float(v) for v in wcs.wcs_world2pix(ra, dec, 0))
        centroids.append(centroid(cut(star(x, y), wcs, ra, dec, 0.396, 48)[0]))
    assert np.abs(np.subtract(*centroids)).max() < 0.02
