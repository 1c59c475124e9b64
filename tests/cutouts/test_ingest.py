"""A partition from a survey in memory to a store: what is cut, what is not, and why."""

import dataclasses

import numpy as np
import pytest
from memory_survey import MemorySurvey, make_image, make_rows, make_wcs

from gzscale.catalog.schema import QUARANTINE_SCHEMA
from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.store import read_cutouts
from gzscale.errors import Reason
from gzscale.storage import open_storage

SKY = {"sky": GeometryConfig(size=32, scale=0.396)}
BOTH = SKY | {"galaxy": GeometryConfig(size=24, scale="0.08 * size")}
PREFIX = "cutouts/Norder=3/Dir=0/Npix=7.zarr"


def noise_image(band="r", name=None, exposure="1", seed=1, wcs=None, pixels=None):
    if pixels is None:
        pixels = np.random.default_rng(seed).normal(0, 0.02, (200, 240))
    wcs = wcs or make_wcs(150.0, 2.0, rotation=30.0)
    return make_image(pixels, wcs, name or f"frame-{band}-{exposure}", band, exposure=exposure)


def at(*positions):
    """Sky positions of pixel positions of the standard image."""
    x, y = np.array(positions, float).T
    return make_wcs(150.0, 2.0, rotation=30.0).wcs_pix2world(x, y, 0)


def cut(survey, rows, folder, geometries=SKY):
    storage = open_storage(folder)
    result = cut_partition(survey, rows, geometries, storage, PREFIX)
    cutouts = {name: read_cutouts(storage, PREFIX, name, result.inventory) for name in geometries}
    for name in geometries:
        mine = result.quarantine.column("task").to_pylist().count(name)
        assert result.done[name] + mine == rows.num_rows
        assert len(cutouts[name]) == result.done[name]
    return result, cutouts


def reasons(result, geometry="sky"):
    return {
        row["object_id"]: row["reason"] for row in result.quarantine.to_pylist() if row["task"] == geometry
    }


def test_a_store_says_the_seeing_of_its_images(tmp_path):
    images = [noise_image("g", seed=1), noise_image("r", seed=2), noise_image("r", exposure="2", seed=3)]
    images[0].seeing, images[2].seeing = 1.4321, 1.1
    ra, dec = at((100, 100), (120, 80))
    _, cutouts = cut(MemorySurvey(images, "gr"), make_rows(ra, dec), tmp_path)
    found = cutouts["sky"].seeing
    # Of two images of one band the first whose seeing is known.
    np.testing.assert_array_equal(found, np.float32([[1.432, 1.1]] * 2))
    assert ["seeing" in source for source in cutouts["sky"].sources] == [True, False, True]


def test_every_object_is_cut_in_every_geometry_and_each_image_opened_once(tmp_path):
    survey = MemorySurvey([noise_image("g", seed=1), noise_image("r", seed=2)], "gr")
    ra, dec = at((100, 100), (120, 80), (60, 90))
    result, cutouts = cut(survey, make_rows(ra, dec, [4.0, 5.0, 6.0]), tmp_path, BOTH)
    assert survey.opened == ["frame-g-1", "frame-r-1"]
    assert result.done == {"galaxy": 3, "sky": 3}
    assert result.quarantine.num_rows == 0
    assert result.quarantine.schema == QUARANTINE_SCHEMA
    assert set(result.seconds) == {"find", "decode", "resample", "write"}
    assert result.bytes_read == sum(image.size for image in survey.images)
    sky, galaxy = cutouts["sky"], cutouts["galaxy"]
    assert sky.images.shape == (3, 2, 32, 32)
    assert sky.images.dtype == np.float16
    assert (sky.coverage == 1).all()
    assert (sky.band_status == 0).all()
    assert sky.noise == pytest.approx(np.full((3, 2), 0.02), rel=1e-3)
    assert galaxy.scale == pytest.approx([0.32, 0.4, 0.48])
    assert galaxy.noise[2] == pytest.approx(0.02 * 0.48 / 0.396, rel=1e-3)
    assert [source["name"] for source in sky.sources] == ["frame-g-1", "frame-r-1"]
    assert sky.image_index.tolist() == [[[0], [1]]] * 3


def test_two_overlapping_images_are_as_good_as_one(tmp_path):
    pixels = np.random.default_rng(3).normal(0, 0.02, (200, 240))
    ra, dec = at((100, 100), (110, 100), (130, 60), (20, 50))
    whole = MemorySurvey([noise_image(pixels=pixels)])
    left = noise_image(name="frame-r-1", pixels=pixels[:, :125])
    right = make_wcs(150.0, 2.0, rotation=30.0)
    right.wcs.crpix = right.wcs.crpix - [105, 0]
    right = noise_image(name="frame-r-2", exposure="2", pixels=pixels[:, 105:], wcs=right)
    _, one = cut(whole, make_rows(ra, dec), tmp_path / "one")
    _, two = cut(MemorySurvey([left, right]), make_rows(ra, dec), tmp_path / "two")
    assert np.array_equal(one["sky"].coverage, two["sky"].coverage)
    difference = np.nanmax(np.abs(one["sky"].images.astype(float) - two["sky"].images))
    # At the cut edges pixels that are covered in part are scaled up; elsewhere nothing differs.
    assert difference < 0.02
    same = np.isclose(one["sky"].images, two["sky"].images, rtol=2e-3, atol=1e-5, equal_nan=True).mean()
    assert same > 0.93, f"{same:.3f} of the pixels agree"
    assert two["sky"].image_index[0].tolist() == [[0, 1]]
    assert two["sky"].image_index[3].tolist() == [[0, -1]]


def test_sizes_are_refused_by_the_geometry_that_needs_them_only(tmp_path):
    ra, dec = at(*[(100, 100)] * 5)
    rows = make_rows(ra, dec, [4.0, 0.0, -1.0, np.nan, 1e6])
    result, cutouts = cut(MemorySurvey([noise_image()]), rows, tmp_path, BOTH)
    assert result.done == {"galaxy": 1, "sky": 5}
    assert reasons(result, "galaxy") == {
        1001: Reason.BAD_SIZE,
        1002: Reason.BAD_SIZE,
        1003: Reason.MISSING_SIZE,
        1004: Reason.BAD_SIZE,
    }
    assert cutouts["galaxy"].object_id.tolist() == [1000]


def test_off_edge_and_corner(tmp_path):
    ra, dec = at((0, 0), (239, 100), (-5, 100), (-400, 100))
    result, cutouts = cut(MemorySurvey([noise_image()]), make_rows(ra, dec), tmp_path)
    assert reasons(result) == {1002: Reason.OFF_FOOTPRINT, 1003: Reason.OFF_FOOTPRINT}
    assert "frame-r-1" in result.quarantine.column("detail")[0].as_py()
    sky = cutouts["sky"]
    assert sky.coverage[0, 0] == pytest.approx(0.25, abs=0.06)
    assert sky.coverage[1, 0] == pytest.approx(0.5, abs=0.06)
    assert np.isfinite(sky.images).mean(axis=(1, 2, 3)) == pytest.approx(sky.coverage[:, 0], abs=1e-3)


def test_a_missing_band_leaves_the_others(tmp_path):
    images = [noise_image(band, seed=n) for n, band in enumerate("gri")]
    survey = MemorySurvey(images, "gri", broken={"frame-r-1": Reason.MISSING_IMAGE})
    result, cutouts = cut(survey, make_rows(*at((100, 100))), tmp_path)
    sky = cutouts["sky"]
    meanings = sky.status_meanings
    assert [meanings[code] for code in sky.band_status[0]] == ["OK", "MISSING_BAND", "OK"]
    assert sky.coverage[0].tolist() == [1, 0, 1]
    assert np.isnan(sky.images[0, 1]).all()
    assert np.isnan(sky.noise[0, 1])
    assert result.images[1].reason == Reason.MISSING_IMAGE


@pytest.mark.parametrize("reason", [Reason.TRUNCATED_IMAGE, Reason.NOT_FITS, Reason.BAD_WCS, Reason.CHECKSUM])
def test_damaged_images_name_their_reason(tmp_path, reason):
    images = [noise_image(band, seed=n) for n, band in enumerate("gr")]
    broken = {"frame-g-1": Reason.MISSING_IMAGE, "frame-r-1": reason}
    result, cutouts = cut(
        MemorySurvey(images, "gr", broken=broken), make_rows(*at((100, 100), (50, 50))), tmp_path
    )
    assert reasons(result) == {1000: reason, 1001: reason}
    assert "frame-r-1.fits" in result.quarantine.column("detail")[0].as_py()
    assert cutouts["sky"].images.shape == (0, 2, 32, 32)


def test_all_images_missing_and_nothing_found(tmp_path):
    images = [noise_image(band) for band in "gr"]
    broken = dict.fromkeys(["frame-g-1", "frame-r-1"], Reason.MISSING_IMAGE)
    lost = {1: (Reason.BAD_ID, "object 1001 names run 0")}
    survey = MemorySurvey(images, "gr", broken=broken, lost=lost)
    result, _ = cut(survey, make_rows(*at((100, 100), (50, 50))), tmp_path)
    assert reasons(result) == {1000: Reason.MISSING_IMAGE, 1001: Reason.BAD_ID}
    assert result.bytes_read == 0


def test_a_stamp_without_a_measured_pixel_is_all_nan(tmp_path):
    survey = MemorySurvey([noise_image(pixels=np.full((200, 240), np.nan))])
    result, _ = cut(survey, make_rows(*at((100, 100))), tmp_path)
    assert reasons(result) == {1000: Reason.ALL_NAN}


def test_a_hole_at_the_centre_is_covered_but_not_whole(tmp_path):
    pixels = np.random.default_rng(1).normal(0, 0.02, (200, 240))
    pixels[95:106, 95:106] = np.nan
    _, cutouts = cut(MemorySurvey([noise_image(pixels=pixels)]), make_rows(*at((100, 100))), tmp_path)
    assert 0.85 < cutouts["sky"].coverage[0, 0] < 0.95


def test_a_broken_neighbour_does_not_hurt_who_does_not_need_it(tmp_path):
    neighbour = noise_image(name="frame-r-2", exposure="2")
    survey = MemorySurvey([noise_image(), neighbour], broken={"frame-r-2": Reason.TRUNCATED_IMAGE})
    result, cutouts = cut(survey, make_rows(*at((100, 100))), tmp_path)
    assert result.done == {"sky": 1}
    assert cutouts["sky"].coverage[0, 0] == 1


def test_no_rows_and_no_images(tmp_path):
    result, cutouts = cut(MemorySurvey([], "gr"), make_rows([], []), tmp_path)
    assert result.done == {"sky": 0}
    assert cutouts["sky"].images.shape == (0, 2, 32, 32)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    survey = MemorySurvey([noise_image("g", seed=1), noise_image("r", seed=2)], "gr")
    rows = make_rows(*at((100, 100), (0, 0), (60, 90)), [4.0, 5.0, 6.0])
    first, _ = cut(survey, rows, tmp_path / "a", BOTH)
    second, _ = cut(survey, rows, tmp_path / "b", BOTH)
    assert first.inventory == second.inventory
    stored = {entry.key for entry in open_storage(tmp_path / "a").list()}
    assert stored == set(first.inventory)


@pytest.mark.parametrize("first", [0, 1])
def test_images_that_go_before_others_are_filled_in_and_not_averaged(tmp_path, first):
    # Two images of the same sky, 105 pixels apart, that share 20 columns and differ by a tenth of the noise.
    right = make_wcs(150.0, 2.0, rotation=30.0)
    right.wcs.crpix = right.wcs.crpix - [105, 0]
    images = [
        noise_image(name="a", pixels=np.full((200, 125), 1.0)),
        noise_image(name="b", exposure="2", pixels=np.full((200, 135), 1.002), wcs=right),
    ]
    survey = MemorySurvey(images)
    ra, dec = at((115, 100))
    ranks = np.array([first, 1 - first])
    survey.find = lambda rows, radius: dataclasses.replace(
        MemorySurvey.find(survey, rows, radius), pair_rank=ranks
    )
    _, cutouts = cut(survey, make_rows(ra, dec), tmp_path)
    stamp = cutouts["sky"].images[0, 0].astype(float)
    # Stamp pixels are as large as the images', so each is a mean of one image or of both at the seam.
    levels = [1.0, 1.002]
    assert stamp[16, 16] == pytest.approx(levels[first], abs=1e-3)
    assert (np.isclose(stamp, 1.0, atol=6e-4) | np.isclose(stamp, 1.002, atol=6e-4)).mean() > 0.9
    assert cutouts["sky"].coverage == pytest.approx(1.0)
    order = [cutouts["sky"].sources[i]["name"] for i in cutouts["sky"].image_index[0, 0]]
    assert order == (["a", "b"] if first == 0 else ["b", "a"])
    shares = np.array([(np.abs(stamp - level) < 6e-4).mean() for level in levels])
    assert cutouts["sky"].noise == pytest.approx(0.02 * np.hypot(*shares) / shares.sum(), rel=0.03)
