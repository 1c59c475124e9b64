"""Which frames an object's stamp overlaps: edges, corners, neighbours, wrong and missing places."""

import bz2

import numpy as np
import pyarrow as pa
import pytest
from small_frames import SCALE, SHAPE, STEP, frame, header, path, rows, sky, tree, write

from gzscale.errors import Reason
from gzscale.surveys.footprints import write_footprints
from gzscale.surveys.sdss import SdssSurvey
from gzscale.surveys.sdss_ids import Release, encode_objid

NY, NX = SHAPE
#: A stamp of 40 pixels across.
RADIUS = 20 * SCALE * np.sqrt(2)


def find(survey, table, radius=RADIUS):
    cover = survey.find(table, np.full(table.num_rows, radius))
    assert list(cover.images) == sorted(
        cover.images, key=lambda ref: (survey.bands.index(ref.band), ref.name)
    )
    assert len(set(cover.images)) == len(cover.images)
    pairs = np.stack([cover.pair_image, cover.pair_object], axis=1)
    assert (np.lexsort(pairs.T[::-1]) == np.arange(len(pairs))).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert set(cover.pair_image.tolist()) == set(range(len(cover.images)))
    assert set(cover.pair_object.tolist()) | set(cover.lost) == set(range(table.num_rows))
    return cover


def fields_of(cover, row, band="r"):
    images = [cover.images[i] for i in cover.pair_image[cover.pair_object == row]]
    return [int(ref.exposure.split("-")[3]) for ref in images if ref.band == band]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return SdssSurvey(str(tree(tmp_path_factory.mktemp("tree"), (99, 100, 101))), "gri", {})


def test_an_object_in_the_middle_needs_its_own_field_in_every_band(survey):
    cover = find(survey, rows(*sky(128, 150)))
    assert [ref.name for ref in cover.images] == [f"frame-{band}-001234-3-0100" for band in "gri"]
    assert cover.images[0].path == path(100, "g")
    assert cover.images[0].exposure == "301-1234-3-100"
    assert not cover.lost


@pytest.mark.parametrize(
    ("x", "y", "fields"),
    [
        (128, 295, [100, 101]),  # the upper edge
        (128, 3, [99, 100]),  # the lower one
        (0, 0, [99, 100]),  # corners
        (255, 299, [100, 101]),
        (0, 150, [100]),  # sides without a neighbour
        (255, 150, [100]),
    ],
)
def test_an_object_on_an_edge_or_corner_gets_the_field_beside_it(survey, x, y, fields):
    cover = find(survey, rows(*sky(x, y)))
    assert fields_of(cover, 0) == fields
    assert fields_of(cover, 0, "g") == fields


def test_a_large_stamp_reaches_over_several_fields(tmp_path):
    survey = SdssSurvey(str(tree(tmp_path, range(96, 105), "r")), "r", {})
    cover = find(survey, rows(*sky(128, 150)), radius=600 * SCALE)
    # Field 100 + k spans rows 272 k to 272 k + 299; the stamp rows -450 to 750, and 32 to spare.
    spans = [
        field
        for field in range(96, 105)
        if (field - 100) * STEP <= 782 and (field - 100) * STEP + 299 >= -482
    ]
    assert fields_of(cover, 0) == spans == [98, 99, 100, 101, 102]


def test_every_overlap_is_found_and_little_else(survey):
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, NX - 1, 300), rng.uniform(0, NY - 1, 300)
    cover = find(survey, rows(*sky(x, y)))
    for row in range(300):
        sure = (
            {100} | ({101} if y[row] + 20 >= STEP else set()) | ({99} if y[row] - 20 <= NY - STEP else set())
        )
        margin = 20 * np.sqrt(2) + 33
        allowed = (
            {100}
            | ({101} if y[row] + margin >= STEP else set())
            | ({99} if y[row] - margin <= NY - STEP else set())
        )
        assert sure <= set(fields_of(cover, row)) <= allowed


def test_an_identifier_of_dr7_finds_the_same_frames(survey):
    dr7 = encode_objid(Release.DR7, 40, 1234, 3, 100, [7])
    assert fields_of(find(survey, rows(*sky(128, 150), object_id=dr7)), 0) == [100]


def test_columns_go_before_the_identifier_and_missing_ones_after(survey):
    wrong = encode_objid(Release.DR8, 301, 999, 1, 5, [1, 2])
    table = rows([sky(128, 150)[0]] * 2, [sky(128, 150)[1]] * 2, object_id=wrong,
                 run=[1234, 1234], camcol=[3, 3], field=[100, 100])  # fmt: skip
    assert not find(survey, table).lost
    own = encode_objid(Release.DR8, 301, 1234, 3, 100, [1])
    table = rows(*sky(128, 150), object_id=own, run=[None], camcol=[None], field=[None])
    assert fields_of(find(survey, table), 0) == [100]


def test_a_position_on_the_next_field_is_found_there(survey):
    ra, dec = sky(128, 150, field=101)
    cover = find(survey, rows(ra, dec))
    assert fields_of(cover, 0) == [101]
    assert not cover.lost


def test_a_position_just_off_the_reference_band_is_kept(survey):
    assert fields_of(find(survey, rows(*sky(-5, 150))), 0) == [100]


@pytest.mark.parametrize("place", [(150.0, 2.5), (151.0, 2.0), (330.0, -2.0), (10.0, 90.0), (10.0, -90.0)])
def test_a_position_outside_every_frame(survey, place):
    cover = find(survey, rows([place[0], sky(128, 150)[0]], [place[1], sky(128, 150)[1]]))
    assert set(cover.lost) == {0}
    reason, detail = cover.lost[0]
    assert reason is Reason.OFF_FOOTPRINT
    assert "run 1234, camcol 3, field 100" in detail


def test_an_identifier_that_is_none(survey):
    ra, dec = sky(128, 150)
    cover = find(
        survey, rows([ra, ra], [dec, dec], object_id=[17, encode_objid(Release.DR8, 301, 1234, 3, 100, 1)])
    )
    assert cover.lost[0][0] is Reason.BAD_ID
    assert "17" in cover.lost[0][1]
    assert "survey.options.index" in cover.lost[0][1]
    assert fields_of(cover, 1) == [100]


def test_coordinates_that_are_none(survey):
    ra, dec = sky(128, 150)
    cover = find(survey, rows([np.nan, ra, ra, ra], [dec, np.inf, 90.1, dec]))
    assert {row: lost[0] for row, lost in cover.lost.items()} == dict.fromkeys(
        range(3), Reason.BAD_COORDINATES
    )
    assert fields_of(cover, 3) == [100]


def test_no_rows_and_one_row(survey):
    none = survey.find(rows([], [], object_id=[]), np.zeros(0))
    assert (none.images, len(none.pair_object), len(none.pair_image), none.lost) == ((), 0, 0, {})
    assert len(find(survey, rows(*sky(128, 150))).pair_object) == 3


def test_columns_in_chunks(survey):
    table = rows(*sky(np.array([100, 128]), np.array([150, 150])))
    assert len(find(survey, pa.concat_tables([table.slice(0, 1), table.slice(1)])).pair_object) == 6


def test_a_missing_band_is_listed_so_that_opening_it_says_so(tmp_path):
    root = tree(tmp_path)
    (root / path(100, "r")).unlink()
    cover = find(SdssSurvey(str(root), "gri", {}), rows(*sky(128, 150)))
    assert [ref.band for ref in cover.images] == ["g", "r", "i"]


def test_a_missing_field(tmp_path):
    root = tree(tmp_path, (101,))
    (ra, dec), (ra1, dec1) = sky(128, 100), sky(128, 290)
    cover = find(SdssSurvey(str(root), "gri", {}), rows([ra, ra1], [dec, dec1]))
    assert cover.lost[0][0] is Reason.MISSING_IMAGE
    assert "field 100" in cover.lost[0][1]
    # The second lies on the field beside as well.
    assert fields_of(cover, 1) == [101]


def test_a_damaged_field_is_listed_so_that_opening_it_says_so(tmp_path):
    root = tree(tmp_path, (100, 101), change=lambda stored: bz2.compress(stored)[:300])
    cover = find(SdssSurvey(str(root), "gri", {}), rows(*sky(128, 150)))
    assert 100 in fields_of(cover, 0)
    assert not cover.lost


@pytest.mark.parametrize(
    ("ra0", "dec0"), [(0.0, 0.0), (359.9999, 60.0), (0.0001, -30.0), (40.0, 89.995), (40.0, -89.995)]
)
def test_across_the_meridian_and_near_the_poles(tmp_path, ra0, dec0):
    survey = SdssSurvey(str(tree(tmp_path, (99, 100, 101), "r", ra0=ra0, dec0=dec0)), "r", {})
    x, y = np.meshgrid([0.0, 60.0, 128.0, 255.0], [0.0, 150.0, 299.0])
    ra, dec = sky(x.ravel(), y.ravel(), ra0=ra0, dec0=dec0)
    cover = find(survey, rows(ra, dec))
    assert not cover.lost
    assert all(100 in fields_of(cover, row) for row in range(12))
    shifted = find(survey, rows((ra + 180) % 360, -dec))
    assert set(shifted.lost) == set(range(12))


def test_the_poles_themselves(tmp_path):
    for dec in (90.0, -90.0):
        root = tmp_path / str(dec)
        head = header()
        head["CRVAL1"], head["CRVAL2"] = 33.0, np.sign(dec) * 89.99
        write(root, path(), bz2.compress(frame(cards=head)))
        cover = find(SdssSurvey(str(root), "r", {}), rows([0.0, 271.0], [dec, dec]))
        assert not cover.lost
        assert fields_of(cover, 0) == fields_of(cover, 1) == [100]


# ---- by position


@pytest.fixture
def indexed(tmp_path):
    """Two runs over the same sky, the second shifted by 100 columns, and their index."""
    root = tree(tmp_path / "tree", (100, 101), "gr")
    for field in (100, 101):
        for band in "gr":
            write(root, path(field, band, run=2000),
                  bz2.compress(frame(field=field, band=band, run=2000, ra0=150.0 - 100 * SCALE)))  # fmt: skip
    write_footprints(SdssSurvey(str(root), "gr", {}).scan(), f"{tmp_path}/index.parquet")
    return SdssSurvey(str(root), "gr", {"index": f"{tmp_path}/index.parquet"})


def runs_of(cover, row):
    return {int(cover.images[i].exposure.split("-")[1]) for i in cover.pair_image[cover.pair_object == row]}


def test_by_position_the_run_that_holds_it_deepest_is_taken_alone(indexed):
    x = np.array([20.0, 128.0, 200.0, 240.0, 330.0])
    cover = find(indexed, rows(*sky(x, np.full(5, 150.0)), object_id=np.arange(5)))
    # Depths: in run 1234 from its sides at 0 and 255; in run 2000 from 100 and 355.
    assert [runs_of(cover, row) for row in range(5)] == [{1234}, {1234}, {2000}, {2000}, {2000}]


def test_by_position_neighbouring_fields_are_added(indexed):
    cover = find(indexed, rows(*sky(60, 275), object_id=[3]))
    assert sorted(fields_of(cover, 0)) == [100, 101]
    assert runs_of(cover, 0) == {1234}


def test_by_position_off_the_footprint(indexed):
    cover = find(indexed, rows([10.0], [-40.0], object_id=[3]))
    assert cover.lost[0][0] is Reason.OFF_FOOTPRINT


def test_a_named_frame_is_kept_though_another_run_holds_it_deeper(indexed):
    assert runs_of(find(indexed, rows(*sky(240, 150))), 0) == {1234}


def test_a_wrong_name_is_mended_by_the_index(indexed):
    wrong = encode_objid(Release.DR8, 301, 1234, 3, 100, [1])
    cover = find(indexed, rows(*sky(330, 150), object_id=wrong))
    assert runs_of(cover, 0) == {2000}
