import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
from toy import write_redshift_bundle

from gzscale import folder
from gzscale.catalog.redshift_columns import RedshiftFlag
from gzscale.errors import BundleError, ConfigError, Reason, StorageError
from gzscale.folder import predict_folder
from gzscale.models.bundle import Bundle, BundleGeometry, load_bundle, write_bundle
from gzscale.models.engine import Engine
from gzscale.models.inputs import SDSS_STRETCH
from gzscale.models.network import build_network
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS

PARAMETERS = {
    "widths": [8, 16],
    "blocks": [1, 1],
    "heads": {"vote_fractions": "tree", "distance": "distance"},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    made = Bundle(
        task="morphology",
        name="small",
        network="residual",
        parameters=PARAMETERS,
        geometry=BundleGeometry(96, "0.08 * size"),
        inputs=SDSS_STRETCH,
        symmetries=1,
        outputs={"vote_fractions": list(ANSWERS), "distance": ["distance"]},
        training={},
        scores={},
        terms={},
        tensors=build_network("residual", PARAMETERS).state_dict(),
        calibration={"vote_spread": [[2.0, 0.0]] * 11, "usual_distance": 1.0},
    )
    path = tmp_path_factory.mktemp("bundle") / "small.safetensors"
    path.write_bytes(write_bundle(made))
    return path


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(6)
    place = tmp_path / "images"
    place.mkdir()
    for name in ("b", "a"):
        Image.fromarray(rng.integers(0, 90, (424, 424, 3), np.uint8)).save(place / f"{name}.jpg")
    Image.fromarray(rng.integers(0, 90, (96, 96, 3), np.uint8)).save(place / "c.png")
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-1e-4, 1e-4]
    cube = rng.gamma(0.5, 0.1, (3, 96, 96)).astype(np.float32)
    fits.PrimaryHDU(cube, wcs.to_header()).writeto(place / "d.fits")
    (place / "e.jpg").write_bytes(b"")
    (place / "f.png").write_bytes(b"<html>")
    fits.PrimaryHDU(cube[:, :50], wcs.to_header()).writeto(place / "g.fits")
    fits.PrimaryHDU(cube * np.nan, wcs.to_header()).writeto(place / "h.fits")
    (place / "notes.txt").write_text("not an image")
    return place


def test_every_image_is_a_row_or_a_reason(images, bundle, tmp_path):
    result = predict_folder("morphology", [images], tmp_path / "t.csv", bundle=bundle)
    table = pd.read_csv(tmp_path / "t.csv", dtype={"name": str}).set_index("name")
    assert list(table.index) == ["a", "b", "c", "d"]
    assert result.found == 8
    assert result.done == 4
    assert result.passed_over == 1
    assert result.refused == {Reason.EMPTY_IMAGE: 1, Reason.BAD_IMAGE: 2, Reason.ALL_NAN: 1}
    assert len(result.details) == 4
    for question in QUESTIONS:
        columns = [f"{answer}_fraction" for answer in ANSWERS[question.answers]]
        np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)


def test_further_images_of_a_stem_are_counted(images, bundle, tmp_path):
    for name in ("b.png", "b.k.jpg", "e.png"):
        Image.fromarray(np.full((96, 96, 3), 20, np.uint8)).save(images / name)
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(np.full((96, 96, 3), 20, np.uint8)).save(other / "b.jpg")
    result = predict_folder("morphology", [images, other], tmp_path / "t.csv", bundle=bundle)
    table = pd.read_csv(tmp_path / "t.csv", dtype={"name": str})
    # The empty e.jpg leaves its name to e.png; what lies in another folder is another image.
    assert list(table["name"]) == ["a", "b", "b.k", "c", "e", "b", "d"]
    assert result.refused[Reason.DUPLICATE_ID] == 1
    assert result.found == result.done + result.refused.total() == 12
    assert any("b.png: another image of 'b' beside b.jpg" in line for line in result.details)


def test_images_that_are_named_may_be_in_any_order(images, bundle, tmp_path):
    Image.fromarray(np.full((96, 96, 3), 20, np.uint8)).save(images / "a.png")
    named = [images / name for name in ("a.jpg", "b.jpg", "a.png", "b.jpg")]
    result = predict_folder("morphology", named, tmp_path / "t.csv", bundle=bundle)
    assert list(pd.read_csv(tmp_path / "t.csv")["name"]) == ["a", "b"]
    assert result.refused == {Reason.DUPLICATE_ID: 2}


def test_kaggle_scheme_in_parquet(images, bundle, tmp_path):
    predict_folder("morphology", [images], tmp_path / "t.parquet", "kaggle", bundle)
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert list(table.columns) == ["GalaxyID", *KAGGLE_NAMES]
    first = table[["Class1.1", "Class1.2", "Class1.3"]].sum(axis=1)
    np.testing.assert_allclose(first, 1, atol=1e-5)
    np.testing.assert_allclose(table["Class7.1"] + table["Class7.2"] + table["Class7.3"], table["Class1.1"])


def test_question_6_as_the_tree_is_printed(images, bundle, tmp_path):
    for scheme in ("kaggle", "kaggle-tree"):
        predict_folder("morphology", [images], tmp_path / f"{scheme}.parquet", scheme, bundle)
    everybody, printed = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("kaggle", "kaggle-tree"))
    np.testing.assert_allclose(everybody["Class6.1"] + everybody["Class6.2"], 1, rtol=1e-5)
    np.testing.assert_allclose(printed["Class6.1"] + printed["Class6.2"], 1 - printed["Class1.3"], rtol=1e-5)
    pd.testing.assert_series_equal(everybody["Class7.1"], printed["Class7.1"], rtol=1e-5)


def test_small_blocks_give_the_same_table(images, bundle, tmp_path, monkeypatch):
    predict_folder("morphology", [images], tmp_path / "one.csv", bundle=bundle)
    monkeypatch.setattr(folder, "_together", lambda engine: 1)
    predict_folder("morphology", [images], tmp_path / "many.csv", bundle=bundle)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "many.csv").read_bytes()


def test_no_batch_of_the_device_is_padded_but_the_last(bundle):
    loaded = load_bundle(bundle)
    assert folder._together(Engine(loaded)) == folder.BLOCK
    assert folder._together(Engine(loaded, batch=1024)) == 1024


def test_pictures_too_small_to_tell_anything(bundle, tmp_path):
    for side in (1, 31, 32):
        Image.new("RGB", (side, 40), (90, 80, 70)).save(tmp_path / f"{side}.png")
    result = predict_folder("morphology", [tmp_path], tmp_path / "t.csv", bundle=bundle)
    assert (result.found, result.done) == (3, 1)
    assert result.refused == {Reason.UNDERSIZED_IMAGE: 2}
    assert "31 x 40 pixels; a picture has at least 32" in "".join(result.details)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"geometry": BundleGeometry(64, "0.16 * size")}, "64 pixels at '0.16"),
        ({"geometry": BundleGeometry(96, 0.396)}, r"96 pixels at 0\.396"),
        ({"geometry": BundleGeometry(128, "0.08 * size")}, "at most 106"),
        ({"inputs": dataclasses.replace(SDSS_STRETCH, bands="zri")}, "in SDSS's colours"),
    ],
)
def test_pictures_are_not_fed_to_a_bundle_that_looks_at_something_else(
    images, bundle, tmp_path, change, words
):
    other = tmp_path / "other.safetensors"
    other.write_bytes(write_bundle(dataclasses.replace(load_bundle(bundle), **change)))
    with pytest.raises(BundleError, match=words):
        predict_folder("morphology", [images], tmp_path / "t.csv", bundle=other)
    assert not (tmp_path / "t.csv").exists()


def test_a_single_file_and_no_file(images, bundle, tmp_path):
    assert predict_folder("morphology", [images / "a.jpg"], tmp_path / "t.csv", bundle=bundle).done == 1
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "pictures").mkdir()
    result = predict_folder("morphology", [tmp_path / "empty"], tmp_path / "t.csv", bundle=bundle)
    assert result.passed_over == 1
    assert (result.found, result.done) == (0, 0)
    assert len(pd.read_csv(tmp_path / "t.csv")) == 0


def test_output_that_is_not_finite_is_counted(images, bundle, tmp_path, monkeypatch):
    real = Engine._forward

    def spoilt(self, inputs):
        outputs = real(self, inputs)
        outputs["vote_fractions"][0] = torch.nan
        return outputs

    monkeypatch.setattr(Engine, "_forward", spoilt)
    result = predict_folder("morphology", [images], tmp_path / "t.csv", bundle=bundle)
    assert result.refused[Reason.NONFINITE_OUTPUT] == 2  # the first picture and the first cube
    assert result.done + result.refused.total() == result.found


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"output": "t.xlsx"}, ConfigError),
        ({"scheme": "oracle"}, ConfigError),
        ({"task": "astrology"}, ConfigError),
        ({"paths": ["nowhere"]}, ConfigError),
        ({"bundle": "none.safetensors"}, BundleError),
        ({"output": "no/such/folder/t.csv"}, StorageError),
    ],
)
def test_mistakes(images, bundle, tmp_path, monkeypatch, change, error):
    monkeypatch.chdir(tmp_path)
    good = {"task": "morphology", "paths": [images], "output": "t.csv", "scheme": "tree", "bundle": bundle}
    with pytest.raises(error):
        predict_folder(**{**good, **change})
    assert not list(tmp_path.glob("*.csv*"))


def test_an_old_table_survives_a_failure(images, bundle, tmp_path, monkeypatch):
    target = tmp_path / "t.csv"
    target.write_text("old")

    def fail(self, images):
        raise RuntimeError("device lost")

    monkeypatch.setattr(Engine, "_forward", fail)
    with pytest.raises(RuntimeError, match="device lost"):
        predict_folder("morphology", [images], target, bundle=bundle)
    assert target.read_text() == "old"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["images", "t.csv"]


def test_redshifts_of_fits_cutouts(tmp_path):
    bundle = write_redshift_bundle(tmp_path / "redshifts.safetensors")
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:32, :32] - 15.5
    galaxy = 3 * np.exp(-np.hypot(x, y) / 3)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-1e-4, 1e-4]
    for name, bands, factor in (
        ("a", "ugri", 1),
        ("b", "gri", 1),
        ("c", "ugi", 1),
        ("d", "ugri", 0),
        ("e", "gri", -1),
    ):
        cube = np.stack([factor * galaxy + abs(factor) * rng.normal(0, 0.02, galaxy.shape) for _ in bands])
        header = wcs.to_header()
        header["BANDS"] = bands
        fits.PrimaryHDU(cube.astype(np.float32), header).writeto(tmp_path / f"{name}.fits")
    Image.fromarray(rng.integers(0, 90, (32, 32, 3), np.uint8)).save(tmp_path / "p.png")
    found = predict_folder(
        "redshifts", [tmp_path / f"{name}.fits" for name in "abcde"], tmp_path / "z.parquet", bundle=bundle
    )
    assert (found.found, found.done) == (5, 3)
    assert found.refused == {Reason.MISSING_BAND: 1, Reason.BLANK_BAND: 1}
    table = pd.read_parquet(tmp_path / "z.parquet").set_index("name")
    unknown = RedshiftFlag.EXTINCTION_UNKNOWN
    assert table.loc["a", "z_flags"] == unknown
    assert table.loc["b", "z_flags"] == unknown | RedshiftFlag.BAND_MISSING
    assert table.loc["e", "z_flags"] & RedshiftFlag.NEGATIVE_FLUX
    assert table["z_median"].isna().tolist() == [False, False, True]
    with pytest.raises(BundleError, match="FITS"):
        predict_folder("redshifts", [tmp_path / "p.png"], tmp_path / "z.csv", bundle=bundle)
