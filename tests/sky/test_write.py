"""A small sky of two fields, as written, against astropy, pyarrow and the configuration's reader."""

import bz2
import io
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from gzscale.config import load_config
from gzscale.errors import ConfigError
from gzscale.sky import camera, frames, population, render, scan, write

OBJECTS, PER_FIELD, SEED = 12, 6, 21
KEYS = [scan.FieldKey(3, 11), scan.FieldKey(3, 12)]


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    folder, told = tmp_path_factory.mktemp("sky"), []
    write.write_sky(
        str(folder), "sdss", OBJECTS, SEED, workers=2, progress=lambda *n: told.append(n), per_field=PER_FIELD
    )
    assert told == [(5, 10), (10, 10)]
    return folder


@cache
def unpacked(sky, key, band):
    return bz2.decompress((sky / "images" / frames.frame_path(key, band)).read_bytes())


def test_paths_are_those_of_the_sas_tree(sky):
    found = sorted(p.relative_to(sky).as_posix() for p in sky.rglob("*.bz2"))
    folder = "images/eboss/photoObj/frames/301/9000/3"
    assert found == sorted(f"{folder}/frame-{b}-009000-3-{f:04d}.fits.bz2" for b in "ugriz" for f in (11, 12))


def test_frame_opens_in_astropy(sky):
    with fits.open(io.BytesIO(unpacked(sky, KEYS[1], "r")), checksum=True) as hdus:
        hdus.verify("exception")
        assert [type(h).__name__ for h in hdus] == ["PrimaryHDU", "ImageHDU", "BinTableHDU", "BinTableHDU"]
        header, pixels = hdus[0].header, hdus[0].data
        assert pixels.shape == (1489, 2048)
        assert np.isfinite(pixels).all()
        assert (header["RUN"], header["CAMCOL"], header["FILTER"], header["FRAME"]) == (9000, 3, "r", 12)
        assert header["BUNIT"] == "nanomaggy"
        sky_table, astrometry = hdus[2].data[0], hdus[3].data[0]
        assert sky_table["ALLSKY"].shape == (192, 256)
        np.testing.assert_allclose(hdus[1].data, camera.calibration(3, "r"))
        # The sky, interpolated as the data model says, is the sky that was there.
        x, y = sky_table["XINTERP"][1000], sky_table["YINTERP"][700]
        x0, y0 = int(x), int(y)
        corner = sky_table["ALLSKY"][y0 : y0 + 2, x0 : x0 + 2].astype(float)
        value = np.array([1 - (y - y0), y - y0]) @ corner @ np.array([1 - (x - x0), x - x0])
        assert value == pytest.approx(
            camera.sky_counts(3, "r", [KEYS[1].first_row + 700], [1000])[0, 0], abs=2e-3
        )
        assert astrometry["FIELD"] == 12
        # asTrans and the TAN header agree on a star at row 300, column 1800.
        mu = astrometry["A"] + astrometry["B"] * 300.5 + astrometry["C"] * 1800.5
        nu = astrometry["D"] + astrometry["E"] * 300.5 + astrometry["F"] * 1800.5
        ra, dec = scan._to_equatorial(mu, nu)
        np.testing.assert_allclose(WCS(header).all_world2pix(ra, dec, 0), (1800, 300), atol=0.01)


def test_overlapping_rows_are_identical(sky):
    data = [fits.getdata(io.BytesIO(unpacked(sky, key, "r"))) for key in KEYS]
    np.testing.assert_array_equal(data[0][1361:], data[1][:128])


def test_a_process_writes_what_one_would_here(sky):
    rows = population.draw(OBJECTS, SEED, PER_FIELD).to_pylist()
    drawn, measured = render.draw_field(KEYS[1], rows)
    expected = frames.frame_bytes(KEYS[1], "r", camera.observe(drawn["r"], KEYS[1], "r", SEED))
    assert expected == unpacked(sky, KEYS[1], "r")
    catalog = pq.read_table(sky / "catalog.parquet").to_pandas().set_index("object_id")
    assert len(measured) == PER_FIELD
    for number, values in measured.items():
        np.testing.assert_allclose(catalog.loc[number, ["r_mag", "r50", "r90"]], values, rtol=1e-6)


def test_catalog_columns_units_and_identifiers(sky):
    table = pq.read_table(sky / "catalog.parquet")
    assert {f.name: str(f.type) for f in table.schema} == {
        "object_id": "int64",
        **dict.fromkeys(("ra", "dec"), "double"),
        **dict.fromkeys(("r_mag", "r50", "r90", "ebv"), "float"),
        **dict.fromkeys(("run", "camcol", "field"), "int32"),
    }
    units = {f.name: f.metadata[b"unit"] for f in table.schema if f.metadata}
    magnitudes = {"r_mag": b"mag", "ebv": b"mag"}
    assert units == {"ra": b"deg", "dec": b"deg", **magnitudes, "r50": b"arcsec", "r90": b"arcsec"}
    rows = table.to_pandas()
    # Fluxes are those of the truth, without the Galaxy's dust.
    assert (rows.ebv == 0).all()
    assert len(rows) == OBJECTS
    number = rows.object_id.to_numpy()
    np.testing.assert_array_equal(number >> 59, 2)
    np.testing.assert_array_equal(number >> 48 & 0x7FF, 301)
    np.testing.assert_array_equal(number >> 32 & 0xFFFF, rows.run)
    np.testing.assert_array_equal(number >> 29 & 0x7, rows.camcol)
    np.testing.assert_array_equal(number >> 16 & 0xFFF, rows.field)
    assert (rows.r90 > rows.r50).all()


def test_catalog_positions_have_light_in_every_band(sky):
    rows = pq.read_table(sky / "catalog.parquet").to_pandas()
    truth = pq.read_table(sky / "truth.parquet").to_pandas().set_index("object_id")
    bright = next(rows[rows.r_mag == rows.r_mag.min()].itertuples())
    assert truth.loc[bright.object_id].catalogued
    for band in "rz":
        with fits.open(io.BytesIO(unpacked(sky, scan.FieldKey(3, bright.field), band))) as hdus:
            x, y = (round(float(v)) for v in WCS(hdus[0].header).all_world2pix(bright.ra, bright.dec, 0))
            centre = hdus[0].data[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean()
            assert centre > 10 * np.median(np.abs(hdus[0].data))


def test_night_is_a_configuration_of_this_folder(sky):
    config = load_config(str(sky / "night.yaml"), environment={})
    assert config.survey.root == str(sky / "images")
    assert config.catalog.path == str(sky / "catalog.parquet")
    assert config.catalog.columns["size"] == "r90"
    assert config.catalog.columns["ebv"] == "ebv"
    assert config.geometries["galaxy"].factor == 0.08
    assert config.tasks["morphology"].geometry == "galaxy"
    assert config.tasks["lenses"].geometry == "sky"
    assert config.output == str(sky / "night")


@pytest.mark.parametrize(
    ("survey", "objects", "seed", "says"),
    [("hsc", 10, 0, "those that can: sdss, rubin"), ("sdss", 0, 0, "0 objects"), ("sdss", 10, -1, "seed -1")],
)
def test_what_cannot_be_simulated_is_refused_before_anything_is_written(
    tmp_path, survey, objects, seed, says
):
    with pytest.raises(ConfigError, match=says):
        write.write_sky(str(tmp_path / "sky"), survey, objects, seed)
    assert not (tmp_path / "sky").exists()
