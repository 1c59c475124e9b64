"""A training sample: the same whatever the processes, read as a store, and true to its table."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from gzscale.cli import main
from gzscale.errors import ConfigError, DamageError, MissingError
from gzscale.sky import blocks, population, samples
from gzscale.sky.conditions import CAMERAS
from gzscale.sky.rubin_camera import background_sigma
from gzscale.sky.spectra import FILTERS


@pytest.fixture(scope="module")
def block():
    return blocks.draw_block(blocks.Request("sdss", 192, 7), 0)


def seen_flux(truth):
    """Total flux behind the Galaxy's dust, shape (n, bands)."""
    mags = truth[[f"mag_{band}" for band in "ugriz"]].to_numpy()
    return 10 ** (0.4 * (22.5 - mags - truth.ebv.to_numpy()[:, None] * FILTERS["sdss"].extinction))


def test_stamps_are_whole_and_have_the_noise_that_they_say(block):
    content = block.content
    assert content.images.shape == (192, 5, 64, 64)
    assert content.images.dtype == np.float16
    assert np.isfinite(content.images).all()
    assert (content.coverage == 1).all()
    # A strip of four pixels' sums: the scatter of sums is not lowered by shared pixels as that of pixels is.
    strips = content.images[:, :, :4, :].astype(float).reshape(192, 5, 2, 2, 16, 4).sum(axis=(3, 5))
    deviation = np.abs(strips - np.median(strips, axis=(2, 3), keepdims=True))
    scatter = 1.4826 * np.median(deviation, axis=(2, 3)) / np.sqrt(8)
    assert np.median(scatter / content.noise) == pytest.approx(0.93, abs=0.1)


def test_photometry_finds_the_true_colours_and_magnitudes(block):
    truth = block.truth.to_pandas()
    bright = ((truth.mag_r < 17.5) & (truth.kind != "merger")).to_numpy()
    flux = truth[[f"measured_flux_{band}" for band in "ugriz"]].to_numpy()
    ratio = 2.5 * np.log10((flux / seen_flux(truth))[bright])
    assert np.median(ratio[:, 2]) == pytest.approx(-0.05, abs=0.06)
    for blue in (1, 2, 3):
        assert np.median(ratio[:, blue] - ratio[:, blue + 1]) == pytest.approx(0, abs=0.02)


def test_light_is_where_the_store_says(block):
    content, truth = block.content, block.truth.to_pandas()
    lonely = (truth.neighbours == 0).to_numpy() & truth.kind.isin(["elliptical", "lenticular"]).to_numpy()
    axis = np.arange(64) - 31.5
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 4.0**2))
    weighted = content.images[lonely].astype(float)[:, 1:4] * window
    total = weighted.sum(axis=(2, 3))
    x, y = (weighted * axis).sum(axis=(2, 3)) / total, (weighted * axis[:, None]).sum(axis=(2, 3)) / total
    assert lonely.sum() > 3
    assert np.median(np.hypot(x, y)) < 0.1


def test_position_angles_are_north_through_east(block):
    content, truth = block.content, block.truth.to_pandas()
    chosen = (truth.kind == "edge_on") & (truth.neighbours < 3) & (truth.half_light_radius > 1.5)
    axis = np.arange(64) - 31.5
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 6.0**2))
    errors = []
    for i in np.flatnonzero(chosen):
        light = np.maximum(content.images[i, 2].astype(float), 0) * window
        # East is to the left.
        east2, north2 = (light * axis**2).sum(), (light * axis[:, None] ** 2).sum()
        cross = (light * -axis * axis[:, None]).sum()
        angle = np.degrees(np.arctan2(2 * cross, north2 - east2)) / 2
        errors.append((angle - truth.position_angle[i] + 90) % 180 - 90)
    assert len(errors) > 5
    assert np.median(np.abs(errors)) < 6


def test_galaxies_depend_on_their_number_and_the_seed_alone(block):
    again = blocks.draw_block(blocks.Request("sdss", 192, 7, block=64), 1)
    np.testing.assert_array_equal(again.content.images, block.content.images[64:128])
    assert again.truth.equals(block.truth.slice(64, 64))
    other = blocks.draw_block(blocks.Request("sdss", 64, 8, block=64), 0)
    assert not np.array_equal(other.content.images, block.content.images[:64])


def test_a_sample_may_be_sharper_and_more_manifold_than_its_camera():
    plain = blocks.draw_block(blocks.Request("sdss", 256, 9, block=256), 0).truth["seeing_r"].to_numpy()[::64]
    wide = blocks.Request("sdss", 256, 9, seeing=0.8, seeing_scatter=0.33, block=256)
    sharp = blocks.draw_block(wide, 0).truth["seeing_r"].to_numpy()[::64]
    # The same draws: three times as far from a median of 0.8 times the camera's.
    usual = CAMERAS["sdss"].seeing["r"]
    np.testing.assert_allclose(np.log(sharp / (0.8 * usual)), 3 * np.log(plain / usual), atol=0.12)
    assert len(set(sharp)) == 4
    with pytest.raises(ConfigError, match=r"seeing 9\.0, scatter None"):
        blocks.Request("sdss", 64, 1, seeing=9.0)
    with pytest.raises(ConfigError, match=r"scatter 0\.7"):
        blocks.Request("sdss", 64, 1, seeing_scatter=0.7)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    told = []
    request = blocks.Request("sdss", 150, 3, block=64)
    samples.write_sample(str(folder / "one"), request, workers=1, progress=lambda *n: told.append(n))
    assert told == [(64, 150), (128, 150), (150, 150)]
    return folder / "one"


def test_a_sample_is_read_block_by_block(written):
    read = list(samples.read_sample(str(written)))
    assert [len(cutouts) for cutouts, _ in read] == [64, 64, 22]
    for cutouts, truth in read:
        np.testing.assert_array_equal(cutouts.object_id, truth["object_id"])
        assert cutouts.bands == "ugriz"
        assert cutouts.geometry == {"name": "sky", "size": 64, "scale": 0.396}
    numbers = np.concatenate([cutouts.object_id for cutouts, _ in read])
    np.testing.assert_array_equal(numbers % 2**32, np.arange(1, 151))
    assert (numbers // 2**32 == 3).all()
    table = pq.read_table(written / "truth")
    assert table.num_rows == 150
    assert table.schema.field("redshift").type == "double"
    assert table.schema.field("ebv").metadata == {b"unit": b"mag"}
    assert table.schema.field("measured_flux_r").metadata == {b"unit": b"nmgy"}


def test_processes_write_what_one_would(written, tmp_path):
    samples.write_sample(str(tmp_path), blocks.Request("sdss", 150, 3, block=64), workers=2)
    one, two = (json.loads((folder / "sample.json").read_text()) for folder in (written, tmp_path))
    assert len(two["blocks"]) == 3
    assert one == two


def test_damage_is_seen(written, tmp_path):
    with pytest.raises(MissingError):
        next(samples.read_sample(str(tmp_path)))
    path = written / "truth" / "block=00001.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamageError, match="block=00001"):
        list(samples.read_sample(str(written)))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"survey": "euclid"}, "sdss"),
        ({"objects": 0}, "0 objects"),
        ({"seed": -1}, "seed -1"),
        ({"magnitudes": (18.0, 17.0)}, "12 to 25"),
        ({"slope": 0.0}, "above 0"),
        ({"block": 100}, "multiple of 64"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, says):
    with pytest.raises(ConfigError, match=says):
        blocks.Request(**{"survey": "sdss", "objects": 5, "seed": 1, **change})


def test_a_sample_of_rubin_has_six_bands_as_deep_as_its_coadds(tmp_path):
    out = tmp_path / "sample"
    command = [
        "sky",
        "sample",
        str(out),
        "--survey",
        "rubin",
        "--objects",
        "64",
        "--seed",
        "2",
        "--workers",
        "1",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    ((cutouts, truth),) = samples.read_sample(str(out))
    assert cutouts.bands == "ugrizy"
    assert cutouts.geometry == {"name": "sky", "size": 64, "scale": 0.2}
    usual = np.array([background_sigma(band) / 3630.78 for band in "ugrizy"])
    # Resampling takes away some 7 % where a pixel's centre falls between others.
    assert np.median(cutouts.noise, axis=0) == pytest.approx(usual, rel=0.4)
    assert json.loads((out / "sample.json").read_text())["magnitudes"] == [16.5, 23.0]
    red = truth.to_pandas()
    assert red.redshift.max() > 0.5
    samples.require_survey(str(out), "rubin")
    with pytest.raises(ConfigError, match="a sample of rubin, but what is learnt is to be of sdss"):
        samples.require_survey(str(out), "sdss")


def test_the_command_writes_a_sample(tmp_path):
    out = tmp_path / "sample"
    result = CliRunner().invoke(
        main, ["sky", "sample", str(out), "--objects", "5", "--seed", "2", "--workers", "1"]
    )
    assert result.exit_code == 0, result.output
    ((cutouts, truth),) = samples.read_sample(str(out))
    assert len(cutouts) == 5
    assert set(truth["kind"].to_pylist()) <= set(population.KINDS)
