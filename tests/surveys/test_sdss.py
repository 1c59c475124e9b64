"""The SDSS survey as others see it: options, opening, state, masks."""

import bz2
import gzip
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from small_frames import SHAPE, frame, header, path, rows, sky, tree, write

from gzscale.errors import ConfigError, ImageError, Reason
from gzscale.surveys import sdss as survey_module
from gzscale.surveys.ahead import open_ahead
from gzscale.surveys.base import Image, Shareable, Survey
from gzscale.surveys.decoded import LOCKS, DecodedImages
from gzscale.surveys.registry import load_survey
from gzscale.surveys.sdss import SdssSurvey


def ref_of(survey, field=100, band="r"):
    cover = survey.find(rows(*sky(128, 150, field), run=[1234], camcol=[3], field=[field]), np.array([1e-4]))
    return next(ref for ref in cover.images if ref.band == band)


def reason_of(survey, ref):
    with pytest.raises(ImageError) as caught:
        survey.open(ref)
    assert "001234" in str(caught.value)
    return caught.value.reason


@pytest.fixture
def root(tmp_path):
    return tree(tmp_path / "tree")


def test_it_is_a_survey_that_travels_to_other_processes(root):
    survey = load_survey("sdss", str(root), "gri", {"rerun": 301})
    assert isinstance(survey, Survey)
    ref = ref_of(survey)
    again = pickle.loads(pickle.dumps(survey))
    assert (again.root, again.bands, again.options) == (survey.root, survey.bands, survey.options)
    np.testing.assert_array_equal(again.open(ref).pixels, survey.open(ref).pixels)


@pytest.mark.parametrize(
    ("bands", "options", "word"),
    [
        ("gri", {"rerum": 301}, "rerum"),
        ("gry", {}, "ugriz"),
        ("gg", {}, "once"),
        ("", {}, "ugriz"),
        ("gri", {"concurrency": 0}, "concurrency"),
        ("gri", {"cache_cap": "many"}, "many"),
        ("gri", {"tree": "frames/{run}.fits"}, "band"),
        ("gri", {"tree": "frames/{run}{camcol}{field}{band}{colour}.fits"}, "colour"),
        ("gri", {"mask_planes": ["SATURN"]}, "SATURN"),
        ("gri", {"rerun": "x"}, "x"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, bands, options, word):
    with pytest.raises(ConfigError, match=word):
        SdssSurvey(str(tmp_path), bands, options)


@pytest.mark.parametrize("packed", [True, False])
def test_an_opened_frame(tmp_path, packed):
    root = tree(tmp_path)
    stored = frame(field=100, band="r")
    target = root / path()
    if packed:
        stored = target.read_bytes()
    else:
        target.unlink()
        write(root, path().removesuffix(".bz2"), stored)
    survey = SdssSurvey(f"file://{root}", "gri", {})
    image = survey.open(ref_of(survey))
    with fits.open(io.BytesIO(bz2.decompress(stored) if packed else stored)) as truth:
        np.testing.assert_array_equal(image.pixels, truth[0].data)
    assert image.pixels.dtype == np.float32
    assert (image.sha256, image.size) == (sha256(stored).hexdigest(), len(stored))
    np.testing.assert_allclose(
        image.wcs.all_pix2world(3, 4, 0), WCS(header()).all_pix2world(3, 4, 0), atol=1e-12
    )
    assert image.background_sigma.shape == (24, 32)
    # 100 counts of sky, gain 4.72 and dark variance 1.3225 of camera column 3, r.
    np.testing.assert_allclose(image.background_sigma, 0.005 * np.sqrt(100 / 4.72 + 1.3225), rtol=1e-5)
    np.testing.assert_allclose(
        survey.inverse_variance(image.ref).mean(), image.background_sigma.mean() ** -2, rtol=0.1
    )


def test_a_tree_of_another_shape(tmp_path):
    template = "all/{camcol}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits"
    write(tmp_path, "all/3/frame-r-001234-3-0100.fits.bz2", bz2.compress(frame()))
    survey = SdssSurvey(str(tmp_path), "r", {"tree": template})
    assert survey.open(ref_of(survey)).pixels.shape == (300, 256)
    assert survey.scan().exposures.tolist() == [[1234, 3, 100]]


def test_state_follows_the_file(root):
    survey = SdssSurvey(str(root), "gri", {})
    ref = ref_of(survey)
    first = survey.state(ref)
    assert survey.state(ref) == first
    write(root, path(), bz2.compress(frame(np.ones((300, 256), np.float32))))
    second = survey.state(ref)
    assert second != first
    (root / path()).unlink()
    assert survey.state(ref) == "absent"
    write(root, path().removesuffix(".bz2"), frame())
    assert survey.state(ref) not in {first, second, "absent"}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda stored: b"", Reason.EMPTY_IMAGE),
        (lambda stored: stored[: len(stored) // 2], Reason.TRUNCATED_IMAGE),
        (lambda stored: stored[:-200] + bytes([stored[-200] ^ 4]) + stored[-199:], Reason.CHECKSUM),
        (lambda stored: b"<html><body>404 Not Found</body></html>", Reason.NOT_FITS),
        (lambda stored: bz2.compress(frame() + bytes(20_000_000)), Reason.OVERSIZED_IMAGE),
        (lambda stored: bz2.compress(frame(run=999)), Reason.BAD_IMAGE),
    ],
)
def test_one_damaged_frame_and_the_others_done(root, damage, reason):
    target = root / path()
    target.write_bytes(damage(target.read_bytes()))
    survey = SdssSurvey(str(root), "gri", {})
    cover = survey.find(rows(*sky(128, 150)), np.array([1e-3]))
    assert not cover.lost
    opened = dict(open_ahead(survey, cover.images))
    assert [isinstance(opened[ref], Image) for ref in cover.images] == [True, False, True]
    assert opened[cover.images[1]].reason is reason
    assert "frame-r-001234-3-0100.fits.bz2" in str(opened[cover.images[1]])


def test_a_missing_frame(root):
    survey = SdssSurvey(str(root), "gri", {})
    ref = ref_of(survey)
    (root / path()).unlink()
    assert reason_of(survey, ref) is Reason.MISSING_IMAGE


def test_a_file_too_large_to_be_one(root, monkeypatch):
    survey = SdssSurvey(str(root), "gri", {})
    ref = ref_of(survey)
    monkeypatch.setattr("gzscale.surveys.fetch.MAX_FILE_BYTES", 1000)
    assert reason_of(survey, ref) is Reason.OVERSIZED_IMAGE


def test_frames_are_opened_on_threads(tmp_path):
    survey = SdssSurvey(str(tree(tmp_path, range(100, 104))), "gri", {})
    refs = [ref_of(survey, field, band) for field in range(100, 104) for band in "gri"]
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(survey.open, refs))
    for ref, image in zip(refs, images, strict=True):
        np.testing.assert_array_equal(image.pixels, survey.open(ref).pixels)
        np.testing.assert_array_equal(image.wcs.wcs.crpix, survey.open(ref).wcs.wcs.crpix)


def test_the_headers_of_one_exposure_are_read_once(root, monkeypatch):
    survey = SdssSurvey(str(root), "gri", {})
    read, names = survey_module.read_first_header, []
    monkeypatch.setattr(
        survey_module, "read_first_header", lambda get, name: (names.append(name), read(get, name))[1]
    )
    for _ in range(3):
        ref_of(survey)
    assert sum("0100.fits" in name for name in names) == 1


def test_scan_of_an_http_tree_is_refused():
    with pytest.raises(ConfigError, match="window_flist"):
        SdssSurvey("https://data.sdss.org/sas/dr17", "r", {}).scan()


def test_an_index_that_is_missing(root):
    survey = SdssSurvey(str(root), "r", {"index": f"{root}/none.parquet"})
    with pytest.raises(ConfigError, match=r"none\.parquet"):
        survey.find(rows(*sky(128, 150)), np.array([1e-4]))


def fpm(**planes) -> bytes:
    """An fpM file: packed spans (row, first column, last column) by plane."""
    from gzscale.surveys.sdss_masks import SPAN_PLANES

    hdus = [fits.PrimaryHDU()]
    for plane in SPAN_PLANES:
        spans = planes.get(plane, [])
        packed = np.empty(len(spans), dtype=object)
        for i, span in enumerate(spans):
            packed[i] = np.frombuffer(np.array(span, dtype=">i2").tobytes(), dtype=np.uint8)
        columns = [fits.Column(name, "J", array=np.zeros(len(spans), np.int32)) for name in ("row0", "col0")]
        hdus.append(fits.BinTableHDU.from_columns([*columns, fits.Column("s", "PB()", array=packed)]))
    sink = io.BytesIO()
    fits.HDUList(hdus).writeto(sink)
    return sink.getvalue()


MASKS = "masks/fpM-{run:06d}-{band}{camcol}-{field:04d}.fits"


def test_the_masked_pixels_of_the_chosen_planes_become_nan(root):
    write(root, "masks/fpM-001234-r3-0100.fits", fpm(SATUR=[[10, 5, 9, 11, 4, 4]], CR=[[20, 250, 400]]))
    ref = ref_of(SdssSurvey(str(root), "gri", {}))
    assert not np.isnan(SdssSurvey(str(root), "gri", {}).open(ref).pixels).any()
    saturated = np.isnan(SdssSurvey(str(root), "gri", {"masks": MASKS}).open(ref).pixels)
    assert np.argwhere(saturated).tolist() == [[10, 5], [10, 6], [10, 7], [10, 8], [10, 9], [11, 4]]
    both = SdssSurvey(str(root), "gri", {"masks": MASKS, "mask_planes": ["SATUR", "CR"]}).open(ref).pixels
    assert np.isnan(both).sum() == 6 + 6
    assert np.isnan(both[20, 250:]).all()


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2")])
def test_a_packed_mask_is_found_and_read(root, pack, ending):
    write(root, f"masks/fpM-001234-r3-0100.fits{ending}", pack(fpm(SATUR=[[10, 5, 9]])))
    survey = SdssSurvey(str(root), "gri", {"masks": MASKS})
    ref = ref_of(survey)
    assert "mask absent" not in survey.state(ref)
    assert np.argwhere(np.isnan(survey.open(ref).pixels)).tolist() == [[10, x] for x in range(5, 10)]


@pytest.mark.parametrize(
    "damage", [lambda packed: packed[:-20], lambda packed: gzip.compress(bytes(70_000_000))]
)
def test_a_mask_that_cannot_be_unpacked_says_so(root, damage):
    write(root, "masks/fpM-001234-r3-0100.fits.gz", damage(gzip.compress(fpm(SATUR=[[10, 5, 9]]))))
    survey = SdssSurvey(str(root), "gri", {"masks": MASKS})
    assert reason_of(survey, ref_of(survey)) is Reason.BAD_IMAGE


def test_a_frame_without_a_mask_is_used_and_a_broken_mask_is_not(root):
    survey = SdssSurvey(str(root), "gri", {"masks": MASKS})
    ref = ref_of(survey)
    assert not np.isnan(survey.open(ref).pixels).any()
    write(root, "masks/fpM-001234-r3-0100.fits", frame())
    assert reason_of(survey, ref) is Reason.BAD_IMAGE


def test_where_a_frame_lies_is_known_once_its_header_was_read(root):
    survey = SdssSurvey(str(root), "gri")
    assert isinstance(survey, Shareable)
    ref = survey.foresee(rows(150.0, 2.0, run=[1234], camcol=[3], field=[100]), np.zeros(1))[0]
    assert survey.extent(ref) == (0, 0, 180)
    ref_of(survey)
    ra, dec, radius = survey.extent(ref)
    ny, nx = SHAPE
    corners = np.array([[-0.5, -0.5], [nx - 0.5, -0.5], [-0.5, ny - 0.5], [nx - 0.5, ny - 0.5]])
    east, north = np.array([sky(*corner) for corner in corners]).T
    reach = np.hypot((east - ra) * np.cos(np.radians(dec)), north - dec)
    np.testing.assert_allclose(reach, radius, rtol=0.01)


def test_a_frame_is_kept_where_another_partition_may_need_it(root):
    survey = SdssSurvey(str(root), "gri")
    # Galaxies to r = 20 are some 3,000 a square degree, luminous quasars less than one.
    assert survey.wants_whole(3000, 0.01)
    assert not survey.wants_whole(1, 0.01)


def test_a_frame_that_was_kept_is_the_one_that_was_decoded(root, tmp_path):
    survey = SdssSurvey(str(root), "gri")
    ref = ref_of(survey)
    (tmp_path / "decoded" / LOCKS).mkdir(parents=True)
    images = DecodedImages(tmp_path / "decoded", 10**9, 0)
    first, second = images.open(survey, ref, "a")[0], images.find(survey, ref, "a")
    plain = survey.open(ref)
    assert second is not None
    for image in (first, second):
        assert image.pixels.tobytes() == plain.pixels.tobytes()
        assert image.background_sigma.tobytes() == plain.background_sigma.tobytes()
        assert (image.sha256, image.size) == (plain.sha256, plain.size)
        np.testing.assert_equal(image.seeing, plain.seeing)
        x, y = np.random.default_rng(0).uniform(0, 250, (2, 50))
        np.testing.assert_array_equal(image.wcs.all_pix2world(x, y, 0), plain.wcs.all_pix2world(x, y, 0))
