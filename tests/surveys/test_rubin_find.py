"""Which patches hold a position: against sphgeom's own polygons, and against the grid of the tract."""

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from small_coadds import BORDER, COLUMNS, INNER, ROWS, box, options, sky, wcs_cards

from gzscale.errors import ConfigError, Reason
from gzscale.surveys.rubin_find import find_patches
from gzscale.surveys.rubin_skymap import join_regions, make_regions
from gzscale.surveys.rubin_tree import TreeSource, read_patches
from gzscale.surveys.tan import unit_vectors


@pytest.fixture
def source(tmp_path):
    given_options = options(tmp_path)
    return TreeSource(str(tmp_path), given_options["tree"], given_options["index"], "gr")


def polygon(ra, dec, radius, angles):
    """A convex polygon: points of a circle about a position."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [ra, dec], [-1, 1]
    wcs.wcs.crpix = [1, 1]
    return unit_vectors(
        *wcs.wcs_pix2world(radius * np.cos(np.radians(angles)), radius * np.sin(np.radians(angles)), 0)
    )


@settings(max_examples=40, deadline=None)
@given(
    ra=st.floats(0, 360),
    dec=st.floats(-89.9, 89.9),
    turn=st.floats(0, 90),
    seed=st.integers(0, 1000),
    clockwise=st.booleans(),
)
def test_inside_is_what_sphgeom_says(ra, dec, turn, seed, clockwise):
    sphgeom = pytest.importorskip("lsst.sphgeom")
    corners = polygon(ra, dec, 0.5, np.array([0, 80, 170, 250]) + turn)[:: -1 if clockwise else 1]
    regions = make_regions([1], [2], [corners])
    rng = np.random.default_rng(seed)
    points = corners.mean(axis=0) + rng.normal(0, 0.006, (50, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    known = sphgeom.ConvexPolygon.convexHull([sphgeom.UnitVector3d(*v) for v in corners])
    inside = [known.contains(sphgeom.UnitVector3d(*v)) for v in points]
    found = regions.search(points, np.zeros(50))
    assert set(found.position.tolist()) == set(np.flatnonzero(inside).tolist())


def test_depth_is_the_angle_to_the_nearest_edge():
    # A square degree about the pole of the sphere's x axis: edges are meridians and a parallel-like circle.
    corners = unit_vectors(np.array([-1.0, 1, 1, -1]), np.array([-1.0, -1, 1, 1]))
    regions = make_regions([0], [0], [corners])
    points = unit_vectors(np.array([0.0, 0.9, 1.5]), np.zeros(3))
    depth, second = regions.depth(np.zeros(3, np.int64), points)
    assert depth == pytest.approx([1.0, 0.1, -0.5], abs=2e-4)
    assert second[1] == pytest.approx(1.0, abs=2e-4)


def test_a_polygon_that_is_not_convex_is_refused():
    arrow = unit_vectors(np.array([0.0, 2, 0, 0.5]), np.array([0.0, 1, 2, 1]))
    with pytest.raises(ValueError, match="tract 4, patch 5: not convex"):
        make_regions([4], [5], [arrow])
    with pytest.raises(ValueError, match="2 vertices"):
        make_regions([4], [5], [arrow[:2]])


def test_regions_of_different_edges_are_joined():
    triangle = polygon(10, 0, 1, np.array([0, 120, 240]))
    square = polygon(14, 0, 1, np.array([0, 90, 180, 270]))
    joined = join_regions([make_regions([1], [0], [triangle]), make_regions([2], [0], [square])])
    found = joined.search(unit_vectors(np.array([10.0, 14.0, 12.0]), np.zeros(3)), np.zeros(3))
    assert joined.tract[found.region].tolist() == [1, 2]
    assert len(join_regions([])) == 0


def test_the_own_patch_is_the_one_whose_inner_region_holds_the_object(source):
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-0.5, COLUMNS * INNER - 0.5, 3000), rng.uniform(-0.5, ROWS * INNER - 0.5, 3000)
    found = find_patches(*sky(x, y), np.zeros(3000), source, "r", "grid")
    inner = ((y + 0.5) // INNER * COLUMNS + (x + 0.5) // INNER).astype(int)
    assert not found.lost
    assert (found.rank == 0).all()
    own = np.empty(3000, int)
    own[found.row] = found.patch[found.place]
    assert (own == inner).all()
    assert set(found.tract.tolist()) == {7}


def test_neighbours_fill_in_only_where_a_stamp_reaches_beyond_the_own_patch(source):
    # 30 pixels from the inner edge, so 50 from the outer.
    place = sky(np.array([INNER - 30.0] * 2), np.array([100.0] * 2))
    radius = np.array([45.0, 55.0]) * 0.2 / 3600
    found = find_patches(*place, radius, source, "r", "grid")
    pairs = sorted(
        zip(found.row.tolist(), found.patch[found.place].tolist(), found.rank.tolist(), strict=True)
    )
    assert pairs == [(0, 0, 0), (1, 0, 0), (1, 1, 1)]


def test_at_a_corner_four_patches_are_found_deepest_first(source):
    place = sky(np.array([INNER - 6.0]), np.array([INNER - 2.0]))
    found = find_patches(*place, np.array([40 * 0.2 / 3600]), source, "r", "grid")
    order = np.argsort(found.rank)
    assert found.rank[order].tolist() == [0, 1, 2, 3]
    assert found.patch[found.place][order].tolist()[0] == 0
    depth = [
        min(INNER - 6 - box(p)[0], box(p)[2] - INNER + 6, INNER - 2 - box(p)[1], box(p)[3] - INNER + 2)
        for p in found.patch[found.place][order].tolist()
    ]
    assert depth == sorted(depth, reverse=True)


def test_objects_in_no_patch_and_without_position_are_lost_with_a_reason(source):
    ra, dec = sky(np.array([100.0, -BORDER - 5.0]), np.array([100.0, 100.0]))
    found = find_patches(
        np.array([*ra, np.nan, 10.0]), np.array([*dec, 0.0, 95.0]), np.full(4, 1e-5), source, "r", "grid"
    )
    assert {row: reason for row, (reason, _) in found.lost.items()} == {
        1: Reason.OFF_FOOTPRINT,
        2: Reason.BAD_COORDINATES,
        3: Reason.BAD_COORDINATES,
    }
    assert "no tract of skymap 'grid'" in found.lost[1][1]
    assert found.row.tolist() == [0]


def test_a_patch_with_images_goes_before_a_deeper_one_without(source, monkeypatch):
    only = {(1, "r"): None}
    monkeypatch.setattr(source, "datasets", lambda tract: only)
    # In patch 0's inner region, and in patch 1's border.
    found = find_patches(*sky(np.array([INNER - 5.0]), np.array([90.0])), np.zeros(1), source, "r", "grid")
    assert found.patch[found.place].tolist() == [1]
    found = find_patches(*sky(np.array([INNER - 5.0]), np.array([90.0])), np.zeros(1), source, "g", "grid")
    assert found.patch[found.place].tolist() == [0]


def test_a_table_of_patches_comes_back(source, tmp_path):
    patches, corners = read_patches(str(tmp_path / "patches.parquet"))
    assert patches.patch.tolist() == list(range(COLUMNS * ROWS))
    x0, y0, x1, y1 = box(4)
    expected = WCS(wcs_cards()).all_pix2world([(x0 - 0.5, y0 - 0.5), (x1 - 0.5, y1 - 0.5)], 0)
    assert corners[4][[0, 2]] == pytest.approx(unit_vectors(*expected.T), abs=1e-14)
    # The tract is as large as all of its patches.
    edge = unit_vectors(*sky(np.array([1.0, -3.0]), np.array([1.0, 1.0])))
    assert source.tracts().search(edge, np.zeros(2)).position.tolist() == [0]


def test_a_missing_or_foreign_table_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="no table of patches"):
        read_patches(str(tmp_path / "none.parquet"))
    (tmp_path / "text.parquet").write_text("tract, patch")
    with pytest.raises(ConfigError, match="not a table of patches"):
        read_patches(str(tmp_path / "text.parquet"))
