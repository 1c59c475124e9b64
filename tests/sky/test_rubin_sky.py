"""The synthetic Rubin sky: its grid, its noise, its files, and what they say of the truth."""

import io
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from gzscale.config import load_config
from gzscale.errors import ConfigError
from gzscale.sky.rubin_camera import BANDS, DEPTH, MASK_PLANES, SEEING, background_sigma, expose
from gzscale.sky.rubin_draw import kron_radius
from gzscale.sky.rubin_files import coadd_bytes
from gzscale.sky.rubin_grid import BORDER, INNER, RIM, tracts_of
from gzscale.sky.rubin_repository import coadd_path
from gzscale.sky.write import write_sky

BOX = (0, 0, 260, 240)


def opened(sky, patch, band):
    return fits.open(sky / "repository" / coadd_path(0, patch, band))


@pytest.mark.parametrize(("patches", "expected"), [(1, [1]), (5, [6]), (25, [25]), (60, [25, 25, 10])])
def test_patches_are_laid_out_on_tracts(patches, expected):
    assert [len(tract.patches) for tract in tracts_of(patches)] == expected


def test_more_tracts_than_go_round_the_sky_are_refused():
    with pytest.raises(ConfigError, match="ask for fewer"):
        tracts_of(10**6)


def test_neighbouring_tracts_share_what_each_does_not_own():
    first, second = tracts_of(50)
    for tract in (first, second):
        assert tract.owned()[1::2] == (RIM, tract.height - RIM)
    # The second lies to the east, at the first's low columns; their owned regions meet there.
    edge = first.owned()[0]
    meets = first.wcs().all_pix2world(edge - 0.5, 2500, 0)
    x, y = second.wcs().all_world2pix(*meets, 0)
    assert x == pytest.approx(second.owned()[2] - 0.5, abs=3)
    assert y == pytest.approx(2500, abs=20)


def test_a_box_of_a_tract_has_the_tracts_wcs_and_it_is_distorted():
    (tract,) = tracts_of(4)
    box = tract.outer(3)
    assert box == (INNER - BORDER, INNER - BORDER, 2 * INNER, 2 * INNER)
    one, two = tract.wcs(), tract.wcs(box)
    x, y = np.array([1200.0, 1999.0]), np.array([1000.0, 1999.0])
    assert np.array(one.all_pix2world(x, y, 0)) == pytest.approx(
        np.array(two.all_pix2world(x - box[0], y - box[1], 0)), abs=1e-12
    )
    plain = one.wcs_world2pix(*one.all_pix2world(x, y, 0), 0)
    away = np.hypot(plain[0] - x, plain[1] - y)
    assert 0.001 < away[1] < 1
    # The inverse polynomial undoes the forward one, for readers that do not iterate.
    there = one.sip_pix2foc(x, y, 0)
    assert np.array(one.sip_foc2pix(*there, 0)) == pytest.approx(np.array([x, y]), abs=1e-3)


@pytest.mark.parametrize("band", BANDS)
def test_a_star_at_the_depth_has_five_sigma(band):
    # Optimal photometry of a Gaussian has the noise of 4 pi s^2 pixels.
    pixels = 4 * np.pi * (SEEING[band] / 0.2 / 2.355) ** 2
    flux = 10 ** (0.4 * (31.4 - DEPTH[band]))
    assert flux / (background_sigma(band) * np.sqrt(pixels)) == pytest.approx(5, rel=0.02)


def test_noise_has_the_variance_that_is_stated():
    source = np.zeros((240, 260), np.float32)
    source[:, 130:] = 50.0
    image, mask, variance = expose(source, "g", BOX, np.ones(source.shape, bool), (1, 0))
    for half in (slice(0, 130), slice(130, None)):
        scatter = (image - image[:, half].mean())[:, half].var()
        assert scatter == pytest.approx(variance[:, half].mean(), rel=0.03)
    assert variance[0, 0] == pytest.approx(background_sigma("g") ** 2)
    # 50 nanomaggies are 50 x 3631 nJy.
    assert image[:, 130:].mean() == pytest.approx(50 * 3631, rel=1e-3)
    bits = {plane: 1 << MASK_PLANES.index(plane) for plane in ("SAT", "DETECTED")}
    assert (mask[:, :130] == 0).all()
    assert (mask[:, 130:] & bits["DETECTED"] > 0).all()


def test_what_no_visit_saw_is_nan_and_no_data():
    seen = np.ones((240, 260), bool)
    seen[:5] = False
    image, mask, variance = expose(np.zeros((240, 260), np.float32), "r", BOX, seen, (1, 0))
    assert np.isnan(image[:5]).all()
    assert np.isnan(variance[:5]).all()
    assert (mask[:5] == 1 << MASK_PLANES.index("NO_DATA")).all()
    assert np.isfinite(image[5:]).all()


def test_boxes_that_share_pixels_share_their_noise():
    blank = np.zeros((100, 300), np.float32)
    seen = np.ones(blank.shape, bool)
    one = expose(blank, "i", (200, 400, 500, 500), seen, (1, 2))[0]
    two = expose(blank, "i", (300, 450, 600, 550), seen, (1, 2))[0]
    assert (one[50:, 100:] == two[:50, :200]).all()
    other = expose(blank, "i", (200, 400, 500, 500), seen, (1, 3))[0]
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_a_file_has_its_planes_checksums_and_the_same_bytes_each_time():
    rng = np.random.default_rng(0)
    image = rng.normal(0, 3, (80, 90)).astype("f4")
    image[:4] = np.nan
    mask = rng.integers(0, 2**10, (80, 90)).astype("i4")
    variance = np.full((80, 90), 9.0, "f4")
    (tract,) = tracts_of(1)
    header = tract.header((10, 20, 100, 100))
    stored = coadd_bytes(image, mask, variance, header, {"band": "r", "tract": 0})
    assert stored == coadd_bytes(image, mask, variance, header, {"band": "r", "tract": 0})
    with fits.open(io.BytesIO(stored), checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "MASK", "VARIANCE"]
        # A 16th of the noise is the step of the quantised pixels.
        assert np.nanmax(np.abs(hdus["IMAGE"].data - image)) < 3 / 16
        assert (np.isnan(hdus["IMAGE"].data) == np.isnan(image)).all()
        assert (hdus["MASK"].data == mask).all()
        assert hdus["MASK"].header["MP_NO_DATA"] == 8
        assert hdus["IMAGE"].header["BUNIT"] == "nJy"
        assert hdus["IMAGE"].header["CRPIX1"] == tract.header()["CRPIX1"] - 10
        assert hdus[0].header["LSST BUTLER DATAID BAND"] == "r"
    with fits.open(io.BytesIO(stored), disable_image_compression=True) as hdus:
        assert all("DATASUM" in hdu.header for hdu in hdus[1:])
    plain = coadd_bytes(image, mask, variance, header, {}, compress=False)
    with fits.open(io.BytesIO(plain)) as hdus:
        np.testing.assert_array_equal(hdus["IMAGE"].data, image)


def test_the_kron_radius_of_an_exponential_is_two_scale_lengths():
    axis = np.arange(256) - 128
    radius = np.hypot(axis[:, None], axis[None, :])
    assert kron_radius(np.exp(-radius / 8)) == pytest.approx(16, rel=0.01)


def test_neighbouring_patches_agree_where_they_overlap(rubin_sky):
    with opened(rubin_sky, 0, "r") as left, opened(rubin_sky, 1, "r") as right:
        one, two = left["IMAGE"].data, right["IMAGE"].data
        shared = one[:, -2 * BORDER :], two[:, : 2 * BORDER]
        step = np.sqrt(np.nanmedian(left["VARIANCE"].data)) / 16
    seen = np.isfinite(shared[0])
    assert (seen == np.isfinite(shared[1])).all()
    # Each is quantised for itself.
    assert np.abs(shared[0] - shared[1])[seen].max() < 3 * step


def test_objects_are_where_the_truth_has_them_and_as_bright(rubin_sky):
    truth = pq.read_table(rubin_sky / "truth.parquet").to_pandas()
    star = truth[(truth.kind == "star") & (truth.mag_r < 21)]
    assert len(star) == 3
    for row in star.itertuples():
        for index, band in ((2, "r"), (4, "z")):
            with opened(rubin_sky, row.patch, band) as hdus:
                x, y = WCS(hdus["IMAGE"].header).all_world2pix(row.ra, row.dec, 0)
                x0, y0 = round(float(x)) - 5, round(float(y)) - 5
                stamp = hdus["IMAGE"].data[y0 : y0 + 11, x0 : x0 + 11].astype(float)
            # Most of a star's light is within 1.1 arcsec; what else is there adds to it.
            share = stamp.sum() / (row.flux_bulge[index] * 3630.78)
            assert 0.85 < share < 1.3
            axis = np.arange(11)
            weight = np.clip(stamp, 0, None) ** 2
            assert (weight.sum(axis=0) * axis).sum() / weight.sum() + x0 == pytest.approx(float(x), abs=0.3)


def test_the_object_table_has_rubins_columns(rubin_sky):
    table = pq.read_table(rubin_sky / "catalog.parquet")
    truth = pq.read_table(rubin_sky / "truth.parquet").to_pandas()
    assert table["objectId"].to_pylist() == truth.object_id.tolist()
    assert table["coord_ra"].to_pylist() == truth.ra.tolist()
    assert (table["refExtendedness"].to_numpy() == (truth.kind != "star")).all()
    flux, error = (table[f"i_cModelFlux{part}"].to_numpy() for part in ("", "Err"))
    expected = 10 ** (0.4 * (31.4 - truth.mag_i))
    assert np.std((flux - expected) / error) == pytest.approx(1, abs=0.35)
    assert table.schema.field("i_cModelFlux").metadata == {b"unit": b"nJy"}
    assert (table["r_kronRad"].to_numpy() > 1).all()


def test_a_second_sky_has_the_same_bytes_but_for_the_registry(rubin_sky, tmp_path):
    write_sky(str(tmp_path), "rubin", 50, 43, workers=1, per_field=25)
    for path in rubin_sky.rglob("*"):
        if path.suffix in {".fits", ".parquet"} or path.name == "night.yaml":
            again = tmp_path / path.relative_to(rubin_sky)
            assert again.read_bytes() == path.read_bytes(), path.name


def test_a_folder_that_is_a_repository_is_left_alone(rubin_sky, tmp_path):
    shutil.copytree(rubin_sky, tmp_path / "sky")
    with pytest.raises(ConfigError, match="already"):
        write_sky(str(tmp_path / "sky"), "rubin", 5, 1, workers=1)
    with pytest.raises(ConfigError, match="folder of this machine"):
        write_sky("s3://bucket/sky", "rubin", 5, 1, workers=1)


def test_the_night_is_one_of_all_six_bands(rubin_sky):
    config = load_config(str(rubin_sky / "night.yaml"))
    assert config.survey.bands == "ugrizy"
    assert config.catalog.columns["size"] == "0.39 * r_kronRad"
