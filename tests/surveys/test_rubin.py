"""Coadds to cutouts: fluxes and positions of stars, patch edges, masks, and what is missing or wrong."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import erf
from small_coadds import (
    COLUMNS,
    INNER,
    NANOJANSKY_A_NANOMAGGY,
    PLANES,
    ROWS,
    box,
    coadd,
    options,
    path,
    sky,
    tree,
    wcs_cards,
    write,
)

from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.store import read_cutouts
from gzscale.errors import ConfigError, ImageError, Reason
from gzscale.storage import open_storage
from gzscale.surveys.base import ImageRef, Survey
from gzscale.surveys.registry import load_survey
from gzscale.surveys.rubin import RubinSurvey

SHAPE = (ROWS * INNER, COLUMNS * INNER)
GEOMETRY = {"sky": GeometryConfig(size=32, scale=0.25)}


def star_field(x, y, flux, sigma=2.0, noise=0.1, seed=0):
    """Stars with a Gaussian profile integrated over pixels, nJy."""
    image = np.random.default_rng(seed).normal(0, noise, SHAPE)
    rows, columns = np.arange(SHAPE[0])[:, None], np.arange(SHAPE[1])[None, :]
    for x0, y0, total in zip(x, y, flux, strict=True):
        shares = [
            (erf((axis + 0.5 - at) / sigma / 2**0.5) - erf((axis - 0.5 - at) / sigma / 2**0.5)) / 2
            for axis, at in ((columns, x0), (rows, y0))
        ]
        image += total * shares[0] * shares[1]
    return image


def rows_at(x, y, sip=0.0):
    ra, dec = sky(np.asarray(x, float), np.asarray(y, float), sip)
    return pa.table({"object_id": np.arange(len(ra)), "ra": ra, "dec": dec})


def cut(survey, rows, folder, geometry=GEOMETRY):
    storage = open_storage(folder)
    result = cut_partition(survey, rows, geometry, storage, "p.zarr")
    assert result.done["sky"] + result.quarantine.num_rows == rows.num_rows
    return result, read_cutouts(storage, "p.zarr", "sky", result.inventory)


def centroid(stamp):
    axis = np.arange(stamp.shape[-1])
    return (stamp * axis).sum() / stamp.sum(), (stamp * axis[:, None]).sum() / stamp.sum()


@pytest.mark.parametrize("sip", [0.0, 1.5])
def test_fluxes_and_positions_of_stars_in_every_band(tmp_path, sip):
    rng = np.random.default_rng(4)
    # Far enough apart not to share stamps; some straddle the patches' inner edges at 200 and 400.
    x, y = (
        grid.ravel()
        for grid in np.meshgrid([33, 101, 199, 268, 331, 401, 470, 540], [40, 120, 199, 285, 350])
    )
    x, y = x + rng.uniform(-0.5, 0.5, len(x)), y + rng.uniform(-0.5, 0.5, len(y))
    flux = {band: rng.uniform(2e3, 2e4, len(x)) for band in "ugrizy"}
    tree(
        tmp_path,
        lambda band: (star_field(x, y, flux[band], noise=0.02, seed=ord(band)), None, np.full(SHAPE, 4e-4)),
        "ugrizy",
        sip=sip,
    )
    survey = RubinSurvey(str(tmp_path), "ugrizy", options(tmp_path))
    result, cutouts = cut(survey, rows_at(x, y, sip), tmp_path / "out")
    assert result.quarantine.num_rows == result.gaps.num_rows == 0
    stamps = cutouts.images.astype(np.float64)
    for index, band in enumerate("ugrizy"):
        found = stamps[:, index].sum(axis=(1, 2)) * NANOJANSKY_A_NANOMAGGY
        assert found == pytest.approx(flux[band], rel=0.01)
        places = np.array([centroid(stamp) for stamp in stamps[:, index]])
        # In pixels of the coadd.
        assert np.abs(places - 15.5).max() * 0.25 / 0.2 < 0.02
    # The distortion changes the area of the coadd's pixels by up to 1 %.
    assert cutouts.noise == pytest.approx(0.02 * 1.25 / NANOJANSKY_A_NANOMAGGY, rel=1e-2 if sip else 1e-3)


def test_a_stamp_over_an_edge_is_the_own_patchs_then_the_neighbours(tmp_path):
    # The patches differ by less than their noise, so that it can be seen whose pixels are where.
    for patch in range(COLUMNS * ROWS):
        x0, y0, x1, y1 = box(patch)
        level = np.full((y1 - y0, x1 - x0), 100.0 + 2 * patch)
        write(tmp_path, path(patch, "r"), coadd(level, cards=wcs_cards(x0, y0)))
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    same = {"sky": GeometryConfig(size=64, scale=0.2)}
    # A stamp of 64 x 64 from column 158.5 - 31.5 on: patch 0 ends with column 219, patch 1 fills the rest in.
    rows = rows_at([190.5], [100.5])
    _, cutouts = cut(survey, rows, tmp_path / "out", same)
    level = np.median(cutouts.images[0, 0].astype(float), axis=0) * NANOJANSKY_A_NANOMAGGY
    assert level[:60] == pytest.approx(100, rel=1e-3)
    assert level[62:] == pytest.approx(102, rel=1e-3)
    assert cutouts.coverage == pytest.approx(1.0)
    assert [cutouts.sources[i]["name"] for i in cutouts.image_index[0, 0] if i >= 0] == [
        "coadd-r-7-0",
        "coadd-r-7-1",
    ]
    # Wholly on its own patch, nothing of the neighbour is in it, though both hold the position.
    _, cutouts = cut(
        survey, rows_at([197.0], [100.0]), tmp_path / "own", {"sky": GeometryConfig(size=16, scale=0.2)}
    )
    assert cutouts.images.astype(float) * NANOJANSKY_A_NANOMAGGY == pytest.approx(100, rel=1e-3)


def test_two_patches_that_disagree_are_named_and_neither_is_believed(tmp_path):
    for patch in range(COLUMNS * ROWS):
        x0, y0, x1, y1 = box(patch)
        for band in "gr":
            # Twice as bright in r: another calibration.
            level = np.full((y1 - y0, x1 - x0), 200.0 if (patch, band) == (1, "r") else 100.0)
            write(tmp_path, path(patch, band), coadd(level, cards=wcs_cards(x0, y0)))
    same = {"sky": GeometryConfig(size=64, scale=0.2)}
    rows = rows_at([190.5, 100], [100.5, 100])
    survey = RubinSurvey(str(tmp_path), "gr", options(tmp_path))
    result, cutouts = cut(survey, rows, tmp_path / "two", same)
    assert result.done == {"sky": 2}
    (gap,) = result.gaps.to_pylist()
    assert (gap["object_id"], gap["band"], gap["reason"]) == (0, "r", "BAD_IMAGE")
    assert "coadd-r-7-0 and coadd-r-7-1 disagree here" in gap["detail"]
    assert np.isnan(cutouts.images[0, 1]).all()
    assert np.isfinite(cutouts.images[0, 0]).all()
    alone = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    result, _ = cut(alone, rows, tmp_path / "one", same)
    (lost,) = result.quarantine.to_pylist()
    assert (lost["object_id"], lost["reason"]) == (0, "BAD_IMAGE")


def test_a_damaged_coadd_is_named_with_what_is_wrong(tmp_path):
    tree(tmp_path, lambda band: (star_field([], [], []), None, None), "r")
    file = tmp_path / path(1, "r")
    stored = bytearray(file.read_bytes())
    stored[len(stored) // 2] ^= 0x10
    file.write_bytes(stored)
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    result, _ = cut(survey, rows_at([300], [100]), tmp_path / "out")
    (lost,) = result.quarantine.to_pylist()
    assert lost["reason"] == "CHECKSUM"
    assert "coadd {band: 'r', tract: 7, patch: 1}" in lost["detail"]
    assert path(1, "r") in lost["detail"]


def test_a_missing_neighbour_leaves_a_hole_and_a_missing_own_patch_a_reason(tmp_path):
    tree(tmp_path, lambda band: (star_field([], [], []), None, None), "gr", patches=[0, 2, 3, 4, 5])
    survey = RubinSurvey(str(tmp_path), "gr", options(tmp_path))
    rows = rows_at([190, 300], [100, 100])
    result, cutouts = cut(survey, rows, tmp_path / "out", {"sky": GeometryConfig(size=96, scale=0.2)})
    assert result.done == {"sky": 1}
    assert 0.5 < cutouts.coverage[0, 0] < 1
    (lost,) = result.quarantine.to_pylist()
    assert lost["object_id"] == 1
    assert lost["reason"] == "MISSING_IMAGE"
    assert "coadd {band: 'g', tract: 7, patch: 1}" in lost["detail"]
    assert path(1, "g") in lost["detail"]


def test_a_band_that_is_not_there_is_a_gap(tmp_path):
    tree(tmp_path, lambda band: (star_field([], [], []), None, None), "r")
    survey = RubinSurvey(str(tmp_path), "ir", options(tmp_path))
    result, cutouts = cut(survey, rows_at([100], [100]), tmp_path / "out")
    assert result.done == {"sky": 1}
    (gap,) = result.gaps.to_pylist()
    assert (gap["band"], gap["reason"]) == ("i", "MISSING_BAND")
    assert np.isnan(cutouts.images[0, 0]).all()


def test_masks_blank_and_flag(tmp_path):
    mask = np.zeros(SHAPE, int)
    mask[100:103, 100:103] = 1 << PLANES["SAT"]
    mask[90:96, 90:96] |= 1 << PLANES["NO_DATA"]
    mask[300, 300] = 1 << PLANES["DETECTED_NEGATIVE"]
    tree(tmp_path, lambda band: (np.ones(SHAPE), mask, None), "r")
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    _, cutouts = cut(survey, rows_at([100, 300, 500], [100, 300, 100]), tmp_path / "out")
    names = cutouts.flag_meanings
    flagged = [{names[bit] for bit in range(8) if bits & 1 << bit} for bits in cutouts.flags[:, 0].tolist()]
    assert flagged == [{"SAT", "NO_DATA"}, {"DETECTED_NEGATIVE"}, set()]
    assert cutouts.coverage[0, 0] < 1
    assert cutouts.coverage[1:, 0] == pytest.approx(1)


def test_few_objects_are_cut_alike_from_a_part_of_the_coadd_and_from_all_of_it(tmp_path, monkeypatch):
    tree(tmp_path, lambda band: (star_field([100], [100], [500]), None, None), "r")
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    _, part = cut(survey, rows_at([100.3], [100.8]), tmp_path / "part")
    ref = survey.find(rows_at([100.3], [100.8]), np.array([0.001])).images[0]
    assert np.isnan(survey.open(ref).pixels).mean() > 0.5
    monkeypatch.setattr("gzscale.surveys.rubin_planes.WHOLE_FROM", 0.0)
    assert not np.isnan(survey.open(ref).pixels).any()
    _, whole = cut(survey, rows_at([100.3], [100.8]), tmp_path / "whole")
    assert (part.images == whole.images).all()
    assert (part.noise == whole.noise).all()


def test_another_patchs_image_under_this_name_is_refused(tmp_path):
    tree(tmp_path, lambda band: (np.ones(SHAPE), None, None), "r")
    (tmp_path / path(1, "r")).write_bytes((tmp_path / path(2, "r")).read_bytes())
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    result, _ = cut(survey, rows_at([300], [100]), tmp_path / "out")
    (lost,) = result.quarantine.to_pylist()
    assert lost["reason"] == "BAD_WCS"
    assert "another patch's image" in lost["detail"]


def test_damage_names_the_dataset_and_stops_nothing_else(tmp_path):
    tree(tmp_path, lambda band: (np.ones(SHAPE), None, None), "r")
    stored = (tmp_path / path(1, "r")).read_bytes()
    (tmp_path / path(1, "r")).write_bytes(stored[: len(stored) // 2])
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    result, cutouts = cut(survey, rows_at([300, 100], [100, 100]), tmp_path / "out")
    (lost,) = result.quarantine.to_pylist()
    assert (lost["object_id"], lost["reason"]) == (0, "TRUNCATED_IMAGE")
    assert "tract: 7, patch: 1" in lost["detail"]
    assert cutouts.object_id.tolist() == [1]


def test_a_mask_plane_that_is_not_declared_is_told_with_the_dataset_and_those_that_are(tmp_path):
    tree(tmp_path, lambda band: (np.ones(SHAPE), None, None), "r")
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path, blank=["NO_DATA", "BURNT"]))
    result, _ = cut(survey, rows_at([300], [100]), tmp_path / "out")
    (lost,) = result.quarantine.to_pylist()
    assert lost["reason"] == "BAD_IMAGE"
    assert "coadd {band: 'r', tract: 7, patch: 1}" in lost["detail"]
    assert "declares no plane BURNT; it has BAD, BRIGHT_OBJECT" in lost["detail"]


def test_an_object_in_no_tract_is_told_with_the_skymap(tmp_path):
    tree(tmp_path, lambda band: (np.ones(SHAPE), None, None), "r")
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    result, _ = cut(survey, rows_at([300, 5000], [100, 100]), tmp_path / "out")
    (lost,) = result.quarantine.to_pylist()
    assert (lost["object_id"], lost["reason"]) == (1, "OFF_FOOTPRINT")
    assert "lies in no tract of skymap 'patches.parquet'" in lost["detail"]


def test_the_state_changes_with_the_file(tmp_path):
    tree(tmp_path, lambda band: (np.ones(SHAPE), None, None), "r", patches=[0])
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    here, gone = (ImageRef(f"coadd-r-7-{p}", "r", f"7/{p}/r", f"x-7-{p}") for p in (0, 1))
    before = survey.state(here)
    assert survey.state(gone) == "absent"
    tree(tmp_path, lambda band: (np.zeros(SHAPE), None, None), "r", patches=[0], unit="nJy", compress=False)
    assert survey.state(here) != before


def test_a_survey_is_found_by_name_pickled_and_opens_nothing_by_itself(tmp_path):
    survey = load_survey(
        "rubin", f"file://{tmp_path}/none", "gri", {"tree": "{tract}{patch}{band}", "index": "x"}
    )
    assert isinstance(survey, Survey)
    again = pickle.loads(pickle.dumps(survey))
    assert (again.root, again.bands, again.options) == (survey.root, survey.bands, survey.options)
    with pytest.raises(ConfigError, match="no table of patches"):
        again.find(rows_at([1], [1]), np.zeros(1))


@pytest.mark.parametrize(
    ("bands", "given", "says"),
    [
        ("grw", {"collections": ["a"]}, "has the bands ugrizy"),
        ("gr", {}, "collections to search"),
        ("gr", {"collections": ["a"], "colections": 1}, "unknown colections"),
        ("gr", {"tree": "{tract}/{patch}/{band}"}, "needs a table"),
        ("gr", {"tree": "{tract}/{patch}", "index": "t"}, "{band}"),
        ("gr", {"collections": ["a"], "zero_point": "27"}, "not an AB magnitude"),
        ("gr", {"collections": ["a"], "flags": list("abcdefghi")}, "at most 8"),
        ("gr", {"collections": ["a"], "blank": "NO_DATA"}, "not a list"),
        ("gr", {"collections": ["a"], "cache_cap": "much"}, "not a number of bytes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(bands, given, says):
    with pytest.raises(ConfigError, match=says):
        RubinSurvey("/nowhere", bands, given)


def test_a_coadd_that_never_existed_is_missing(tmp_path):
    survey = RubinSurvey(str(tmp_path), "r", options(tmp_path))
    with pytest.raises(ImageError) as caught:
        survey.open(ImageRef("coadd-r-7-0", "r", "7/0/r", "x"))
    assert caught.value.reason is Reason.MISSING_IMAGE
