"""SDSS frames as they are: every frame opens, lies where it says, and is as noisy as it says."""

import bz2
import io
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from pyarrow import csv

from gzscale.surveys.base import ImageRef
from gzscale.surveys.fitsfile import read_first_header, read_fits
from gzscale.surveys.footprints import read_footprints, stripe_to_sky, write_footprints
from gzscale.surveys.sdss import SdssSurvey
from gzscale.surveys.sdss_frame import MAX_PIXELS, FrameId, check_header, decode_frame
from gzscale.surveys.sdss_ids import Release, decode_objid

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings(f"ignore::{FITSFixedWarning.__module__}.FITSFixedWarning"),
]

NAME = re.compile(r"frame-(\w)-(\d+)-(\d)-(\d+)\.fits\.bz2")


@pytest.fixture(scope="module")
def root(real_data):
    return real_data / "sdss"


@pytest.fixture(scope="module")
def frames(root):
    found = sorted((root / "eboss").rglob("frame-*.fits.bz2"))
    assert len(found) == 34
    return found


def id_of(path) -> FrameId:
    band, run, camcol, field = NAME.fullmatch(path.name).groups()
    return FrameId(int(run), int(camcol), int(field), band)


def ref_of(root, path) -> ImageRef:
    known = id_of(path)
    exposure = f"301-{known.run}-{known.camcol}-{known.field}"
    return ImageRef(path.name.removesuffix(".fits.bz2"), known.band, str(path.relative_to(root)), exposure)


def blank_sigma(pixels, calibration):
    """Robust scatter from below the median; counts are whole numbers, so they are dithered first."""
    dither = np.random.default_rng(0).random(pixels.shape, dtype=np.float32) - 0.5
    noisy = pixels + dither * calibration
    median = np.median(noisy)
    below = np.median(median - noisy[noisy < median]) / 0.6745
    return np.sqrt(below**2 - calibration**2 / 12)


def noise_ratio(image, calibration):
    """Scatter of blank pixels over what the model says, the median of some cells of the grid."""
    found = []
    for i in range(0, 24, 6):
        for j in range(0, 32, 6):
            cell = image.pixels[i * 62 : i * 62 + 62, j * 64 : j * 64 + 64]
            found.append(blank_sigma(cell, calibration[j * 64]) / image.background_sigma[i, j])
    return float(np.median(found))


def test_every_frame_opens_lies_where_its_header_says_and_is_as_noisy_as_its_model(root, frames, monkeypatch):
    survey, ratios, calibrations = SdssSurvey(str(root), "ugriz", {}), {}, []

    def decode(*args):
        frame = decode_frame(*args)
        calibrations.append(frame.noise.calibration)
        return frame

    monkeypatch.setattr("gzscale.surveys.sdss.decode_frame", decode)
    for path in frames:
        image = survey.open(ref_of(root, path))
        assert image.pixels.shape == (1489, 2048)
        assert np.isfinite(image.pixels).all()
        assert image.size == path.stat().st_size
        with open(path, "rb") as file:
            head = read_first_header(lambda n, file=file: (file.seek(0), file.read(n))[1], path.name)
        tan = check_header(head, path.name, id_of(path))
        with pytest.warns(FITSFixedWarning):
            truth = WCS(head)
        x, y = np.random.default_rng(0).uniform(-200, 2200, (2, 200))
        ra, dec = truth.all_pix2world(x, y, 0)
        np.testing.assert_allclose(image.wcs.all_pix2world(x, y, 0), (ra, dec), atol=1e-10)
        np.testing.assert_allclose(tan.pixels(ra, dec), (x, y), atol=1e-5)
        if id_of(path).run != 2583:  # a globular cluster: next to nothing is blank
            ratios[path.name] = noise_ratio(image, calibrations[-1])
    assert not {name: ratio for name, ratio in ratios.items() if abs(ratio - 1) > 0.12}
    assert np.median(list(ratios.values())) == pytest.approx(1, abs=0.04)


def test_pixels_and_header_are_astropy_s(frames):
    for path in frames[3::16]:
        stored = path.read_bytes()
        with fits.open(io.BytesIO(bz2.decompress(stored))) as truth:
            mine = decode_frame(stored, path.name, id_of(path))
            np.testing.assert_array_equal(mine.pixels, truth[0].data)
            np.testing.assert_array_equal(mine.noise.calibration, truth[1].data)
            np.testing.assert_array_equal(mine.noise.sky, truth[2].data["ALLSKY"][0])
            assert repr(read_fits(stored, path.name, MAX_PIXELS)[0].header) == repr(truth[0].header)
            assert truth[3].data["FIELD"][0] == id_of(path).field


def test_every_catalogued_galaxy_lies_on_its_own_frame(root):
    table = pq.read_table(root / "galaxies.parquet")
    survey = SdssSurvey(str(root), "ugriz", {})
    cover = survey.find(table, np.full(table.num_rows, 1e-4))
    assert not cover.lost
    own = [f"301-{row['run']}-{row['camcol']}-{row['field']}" for row in table.to_pylist()]
    for row, image in zip(cover.pair_object.tolist(), cover.pair_image.tolist(), strict=True):
        assert cover.images[image].exposure == own[row]
    assert len(cover.pair_object) == 5 * table.num_rows
    by_id = survey.find(table.select(["object_id", "ra", "dec"]), np.full(table.num_rows, 1e-4))
    assert by_id.images == cover.images
    np.testing.assert_array_equal(by_id.pair_object, cover.pair_object)


def test_every_galaxy_is_found_by_position_alone(root, tmp_path):
    table = pq.read_table(root / "galaxies.parquet")
    survey = SdssSurvey(str(root), "ugriz", {})
    write_footprints(survey.scan(), f"{tmp_path}/index.parquet")
    index = read_footprints(f"{tmp_path}/index.parquet")
    found = index.search(table["ra"].to_numpy(), table["dec"].to_numpy())
    np.testing.assert_array_equal(index.exposures[found, 0], table["run"].to_numpy())


def test_the_catalog_s_identifiers_say_the_same_as_its_columns(root):
    table = pq.read_table(root / "galaxies.parquet")
    ids = decode_objid(table["object_id"].to_numpy())
    for name in ("run", "camcol", "field"):
        np.testing.assert_array_equal(getattr(ids, name), table[name].to_numpy())
    assert set(ids.release.tolist()) == {Release.DR8}


def test_galaxy_zoo_s_identifiers_are_of_dr7(real_data):
    votes = csv.read_csv(real_data / "galaxy-zoo-2" / "votes.csv")
    ids = decode_objid(votes["dr7objid"].to_numpy())
    assert set(ids.release.tolist()) == {Release.DR7}
    assert ids.locates.all()


def test_survey_coordinates_lead_to_the_frame(frames):
    # asTrans: mu, nu = a + b row + c column, d + e row + f column.
    for path in frames[::16]:
        with fits.open(io.BytesIO(bz2.decompress(path.read_bytes()))) as hdus:
            row = hdus[3].data[0]
            x, y = 1000.0, 700.0
            mu, nu = row["A"] + row["B"] * y + row["C"] * x, row["D"] + row["E"] * y + row["F"] * x
            ra, dec = stripe_to_sky(mu, nu, row["NODE"], row["INCL"])
            tan = check_header(hdus[0].header, path.name, id_of(path))
            np.testing.assert_allclose(tan.pixels(np.array([ra]), np.array([dec])), [[x], [y]], atol=3)


def test_the_masks_of_a_dense_field(root):
    masks = "extras/fpM-{run:06d}-{band}{camcol}-{field:04d}.fits"
    path = next((root / "eboss").rglob("frame-r-002583-2-0136.fits.bz2"))
    plain = SdssSurvey(str(root), "r", {}).open(ref_of(root, path)).pixels
    blanked = SdssSurvey(str(root), "r", {"masks": masks}).open(ref_of(root, path)).pixels
    gone = np.isnan(blanked)
    # The objects' own count of masked pixels (npix) bounds their union from above.
    with fits.open(root / "extras" / "fpM-002583-r2-0136.fits") as hdus:
        claimed = int(hdus[2].data["npix"].sum())
    assert 0.5 * claimed < gone.sum() <= claimed
    assert np.median(plain[gone]) > 50 * np.median(np.abs(plain))


def test_seeing_is_that_of_sdss_s_own_psf(real_data):
    """psField's two Gaussians: the narrow one, in pixels, is the core whose width at half maximum counts."""
    with fits.open(real_data / "sdss/extras/psField-002583-2-0136.fits") as units:
        narrow = units[6].data["psf_sigma1_2G"][0]
    survey = SdssSurvey(str(real_data / "sdss"), "ugriz", {})
    rows = pq.read_table(real_data / "sdss/m2-sources.parquet").select(
        ["object_id", "ra", "dec", "run", "camcol", "field"]
    )
    images = survey.find(rows, np.full(rows.num_rows, 0.003)).images
    found = [survey.open(image).seeing for image in images]
    np.testing.assert_allclose(found, 2 * np.sqrt(2 * np.log(2)) * 0.396 * narrow, rtol=0.04)
