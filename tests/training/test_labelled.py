import dataclasses
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from gzscale.config import GeometryConfig
from gzscale.cutouts.store import read_cutouts
from gzscale.errors import ConfigError, MissingError
from gzscale.models.inputs import from_flux
from gzscale.storage import open_storage
from gzscale.training.labelled import read_labelled
from gzscale.training.labels import Labels


def labels_of(names, ra=None, dec=None, objects=()):
    count = len(names)
    joint = np.zeros((count, 37), np.float32)
    joint[:, 0] = joint[:, 14] = 1
    joint[:, 36] = np.arange(count) / 100
    unknown = np.full(count, np.nan)
    single = unknown.astype(np.float32)
    ra, dec = (unknown if values is None else np.asarray(values, float) for values in (ra, dec))
    return Labels(tuple(names), joint, single, ra, dec, single, Counter({"BAD_SUM": 1}), tuple(objects))


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
    save(tmp_path / "a.png", level=200)
    save(tmp_path / "tiny.png", size=(31, 40))
    names = ["a", "b", "c", "d", "e", "truncated", "text", "nowhere", "tiny"]
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
        "DUPLICATE_IMAGE": 1,
        "UNDERSIZED_IMAGE": 1,
        "TRUNCATED_IMAGE": 1,
        "BAD_IMAGE": 1,
    }


def test_a_picture_of_a_refused_row_has_a_label(tmp_path):
    save(tmp_path / "a.jpg")
    save(tmp_path / "refused.jpg")
    labels = dataclasses.replace(labels_of(["a"]), refused_names=frozenset({"refused"}))
    assert read_labelled(labels, tmp_path).labels.refused == {"BAD_SUM": 1}


def test_more_pictures_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr("gzscale.training.labelled.BLOCK", 3)
    for number in range(8):
        save(tmp_path / f"{number}.jpg", level=10 * number)
    found = read_labelled(labels_of([str(number) for number in range(7, -1, -1)]), tmp_path)
    levels = found.pictures[:, 0, 48, 48].astype(int)
    np.testing.assert_allclose(levels, 10 * np.arange(7, -1, -1), atol=2)


def test_neither_pictures_nor_cutouts(tmp_path):
    with pytest.raises(MissingError, match="neither pictures"):
        read_labelled(labels_of(["a"]), tmp_path)


def write_store(folder, offsets, geometry, bands="gri", partitions=1):
    """Cutouts of the toy survey around its first exposure, written by the ingest; return them in order."""
    from toy import CENTRES, ToySurvey

    from gzscale.cutouts.ingest import cut_partition

    ra, dec = CENTRES["a"]
    number = np.arange(len(offsets))
    rows = pa.table(
        {
            "object_id": number + 11,
            "ra": ra + np.asarray(offsets),
            "dec": np.full(len(offsets), dec),
            "size": pa.array(np.full(len(offsets), 4.0), pa.float32()),
        }
    )
    found = []
    for part in range(partitions):
        chosen = rows.filter(pa.array(number % partitions == part))
        key = f"Norder=1/p{part}.zarr"
        cut_partition(ToySurvey("", bands), chosen, {"galaxy": geometry}, open_storage(folder), key)
        found.append(read_cutouts(open_storage(folder), key, "galaxy"))
    return found


FIELD = GeometryConfig(size=96, scale="0.08 * size")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return folder, write_store(folder, np.linspace(-0.008, 0.008, 5), FIELD)[0]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Objects 11 and 12, 1 arcsec apart, each in a partition of its own."""
    folder = tmp_path_factory.mktemp("pair")
    return folder, write_store(folder, [0.0, 1 / 3600], FIELD, partitions=2)


def shown(cutouts, row=0):
    flux, scale = torch.from_numpy(cutouts.images[[row]]), torch.from_numpy(cutouts.scale[[row]])
    return from_flux(flux, scale, cutouts.bands)[0].numpy() * 255


def test_a_cutout_store_by_identifier_and_by_position(store):
    folder, cutouts = store
    whole = np.flatnonzero((cutouts.coverage[:, :3] > 0).all(axis=1))
    assert len(whole) >= 3
    first, second = whole[:2]
    names = [str(cutouts.object_id[second]), "elsewhere", "lost"]
    ra = [np.nan, cutouts.ra[first] + 0.5 / 3600, 0.0]
    dec = [np.nan, cutouts.dec[first], 80.0]
    found = read_labelled(labels_of(names, ra, dec), folder)
    assert found.labels.names == tuple(names[:2])  # in the order of the labels, not of the store
    assert found.labels.refused["NO_IMAGE"] == 1
    assert found.labels.refused["NO_LABEL"] == len(cutouts) - 2
    np.testing.assert_allclose(found.pictures[0], shown(cutouts, second), atol=0.51)
    np.testing.assert_allclose(found.pictures[1], shown(cutouts, first), atol=0.51)
    assert "cutouts" in found.origin


@pytest.mark.parametrize("swap", [False, True])
def test_the_identifier_goes_before_a_neighbour_s_position(pair, swap):
    folder, parts = pair
    own, neighbour = parts[::-1] if swap else parts
    label = labels_of([str(own.object_id[0])], own.ra, own.dec)
    found = read_labelled(label, folder)
    np.testing.assert_allclose(found.pictures[0], shown(own), atol=0.51)
    assert not np.allclose(found.pictures[0], shown(neighbour), atol=0.51)
    assert found.labels.refused == {"BAD_SUM": 1, "DUPLICATE_IMAGE": 1}


def test_of_two_by_position_the_nearest_is_taken(pair):
    folder, (first, second) = pair
    for own, other in ((first, second), (second, first)):
        ra = own.ra + 0.3 * (other.ra - own.ra)
        found = read_labelled(labels_of(["x"], ra, own.dec), folder)
        np.testing.assert_allclose(found.pictures[0], shown(own), atol=0.51)
        assert found.labels.refused["DUPLICATE_IMAGE"] == 1


def test_pictures_have_no_geometry_to_choose(tmp_path):
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(tmp_path / "7.png")
    assert len(read_labelled(labels_of(["7"]), tmp_path)) == 1
    with pytest.raises(ConfigError, match=r"1 pictures, which have no geometry 'galaxy'"):
        read_labelled(labels_of(["7"]), tmp_path, "galaxy")


def test_the_catalog_s_name_joins_where_the_image_s_does_not(pair):
    folder, (first, second) = pair
    found = read_labelled(labels_of(["7", "8"], objects=["12", None]), folder)
    assert found.labels.names == ("7",)
    np.testing.assert_allclose(found.pictures[0], shown(second), atol=0.51)
    assert found.labels.refused == {"BAD_SUM": 1, "NO_IMAGE": 1, "NO_LABEL": len(first)}


def test_the_number_of_an_image_is_no_identifier_of_an_object(pair):
    """A catalog that counts its own objects from 1 has those numbers, too."""
    folder, (first, second) = pair
    numbered = dataclasses.replace(labels_of(["11"]), named_by="asset_id")
    assert read_labelled(numbered, folder).labels.refused == {"BAD_SUM": 1, "NO_IMAGE": 1, "NO_LABEL": 2}
    placed = dataclasses.replace(labels_of(["12"], first.ra, first.dec), named_by="asset_id")
    np.testing.assert_allclose(read_labelled(placed, folder).pictures[0], shown(first), atol=0.51)
    both = dataclasses.replace(labels_of(["11"], objects=["12"]), named_by="asset_id")
    found = read_labelled(both, folder)
    np.testing.assert_allclose(found.pictures[0], shown(second), atol=0.51)
    assert found.labels.refused == {"BAD_SUM": 1, "NO_LABEL": 1}


@pytest.mark.parametrize(
    ("refused", "named_by", "unlabelled"),
    [
        ({"refused_names": frozenset({"11"})}, "objid", 0),
        ({"refused_names": frozenset({"11"})}, "asset_id", 1),
        ({"refused_objects": frozenset({"11"})}, "asset_id", 0),
    ],
)
def test_a_cutout_of_a_refused_row_has_a_label(pair, refused, named_by, unlabelled):
    folder, _ = pair
    labels = dataclasses.replace(labels_of(["x"], objects=["12"]), named_by=named_by, **refused)
    found = read_labelled(labels, folder).labels.refused
    assert found == Counter({"BAD_SUM": 1, "NO_LABEL": unlabelled})


def test_an_identifier_of_another_position_is_not_believed(pair):
    folder, (first, _) = pair
    found = read_labelled(labels_of(["11"], first.ra + 0.01, first.dec), folder)
    assert len(found) == 0
    assert found.labels.refused == {"BAD_SUM": 1, "APART": 1, "NO_IMAGE": 1, "NO_LABEL": 1}


def test_a_cutout_whose_identifier_is_not_believed_may_be_another_s_by_position(pair):
    folder, (first, _) = pair
    labels = labels_of(["11", "x"], [first.ra[0] + 0.01, first.ra[0]], [first.dec[0], first.dec[0]])
    found = read_labelled(labels, folder)
    assert found.labels.names == ("x",)
    assert found.labels.refused["APART"] == 0
    assert found.labels.refused["NO_IMAGE"] == 1


@pytest.mark.parametrize(
    ("geometry", "bands", "words"),
    [
        (GeometryConfig(size=96, scale=0.396), "gri", "96 pixels at 0.396 arcsec; morphology learns"),
        (GeometryConfig(size=64, scale="0.08 * size"), "gri", "cutouts of 64 pixels"),
        (FIELD, "gr", "without i"),
    ],
)
def test_a_store_that_shows_something_else(tmp_path, geometry, bands, words):
    write_store(tmp_path, [0.0], geometry, bands)
    with pytest.raises(ConfigError, match=words):
        read_labelled(labels_of(["11"]), tmp_path)
