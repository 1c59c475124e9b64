from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from gzscale.config import GeometryConfig
from gzscale.cutouts.store import read_cutouts
from gzscale.errors import MissingError
from gzscale.models.inputs import from_flux
from gzscale.storage import open_storage
from gzscale.training.labelled import read_labelled
from gzscale.training.labels import Labels


def labels_of(names, ra=None, dec=None):
    count = len(names)
    joint = np.zeros((count, 37), np.float32)
    joint[:, 0] = joint[:, 14] = 1
    joint[:, 36] = np.arange(count) / 100
    unknown = np.full(count, np.nan)
    single = unknown.astype(np.float32)
    ra, dec = (unknown if values is None else np.asarray(values, float) for values in (ra, dec))
    return Labels(tuple(names), joint, single, ra, dec, single, Counter({"BAD_SUM": 1}))


def save(path, size=(424, 424), mode="RGB", level=100):
    Image.new("RGB", size, (level, 20, 10)).convert(mode).save(path)


def test_a_folder_with_all_kinds_of_pictures(tmp_path):
    save(tmp_path / "a.jpg")
    save(tmp_path / "b.png", size=(300, 500))
    save(tmp_path / "c.jpeg", mode="L")
    save(tmp_path / "d.jpg", mode="CMYK")
    Image.fromarray(np.full((424, 424), 25700, np.uint16)).save(tmp_path / "e.png")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    save(tmp_path / "nobody.jpg")
    names = ["a", "b", "c", "d", "e", "truncated", "text", "nowhere"]
    found = read_labelled(labels_of(names), tmp_path)
    assert found.labels.names == ("a", "b", "c", "d", "e")
    np.testing.assert_allclose(found.labels.joint[:, 36], np.arange(5) / 100)
    assert found.pictures.shape == (5, 3, 96, 96)
    assert found.pictures.dtype == np.uint8
    assert abs(int(found.pictures[0, 0, 48, 48]) - 100) <= 2
    assert found.labels.refused == {
        "BAD_SUM": 1,
        "NO_IMAGE": 1,
        "NO_LABEL": 1,
        "TRUNCATED_IMAGE": 1,
        "BAD_IMAGE": 1,
    }


def test_more_pictures_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr("gzscale.training.labelled._BLOCK", 3)
    for number in range(8):
        save(tmp_path / f"{number}.jpg", level=10 * number)
    found = read_labelled(labels_of([str(number) for number in range(7, -1, -1)]), tmp_path)
    levels = found.pictures[:, 0, 48, 48].astype(int)
    np.testing.assert_allclose(levels, 10 * np.arange(7, -1, -1), atol=2)


def test_neither_pictures_nor_cutouts(tmp_path):
    with pytest.raises(MissingError, match="neither pictures"):
        read_labelled(labels_of(["a"]), tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The cutouts of a partition of the toy survey, written by the ingest."""
    from toy import CENTRES, ToySurvey

    from gzscale.cutouts.ingest import cut_partition

    folder = tmp_path_factory.mktemp("store")
    ra, dec = CENTRES["a"]
    offset = np.linspace(-0.008, 0.008, 5)
    rows = pa.table({"object_id": np.arange(11, 16), "ra": ra + offset, "dec": np.full(5, dec)})
    geometries = {"galaxy": GeometryConfig(size=96, scale=0.396)}
    cut_partition(ToySurvey("", "gri"), rows, geometries, open_storage(folder), "Norder=1/p.zarr")
    return folder, read_cutouts(open_storage(folder), "Norder=1/p.zarr", "galaxy")


def test_a_cutout_store_by_identifier_and_by_position(store):
    folder, cutouts = store
    whole = np.flatnonzero((cutouts.coverage[:, :3] > 0).all(axis=1))
    assert len(whole) >= 3
    first, second = whole[:2]
    names = [str(cutouts.object_id[first]), "elsewhere", "lost"]
    ra = [np.nan, cutouts.ra[second] + 0.5 / 3600, 0.0]
    dec = [np.nan, cutouts.dec[second], 80.0]
    found = read_labelled(labels_of(names, ra, dec), folder)
    assert found.labels.names == tuple(names[:2])
    assert found.labels.refused["NO_IMAGE"] == 1
    assert found.labels.refused["NO_LABEL"] == len(cutouts) - 2
    flux, scale = torch.from_numpy(cutouts.images[[first]]), torch.from_numpy(cutouts.scale[[first]])
    expected = from_flux(flux, scale, cutouts.bands)[0].numpy() * 255
    np.testing.assert_allclose(found.pictures[0], expected, atol=0.51)
