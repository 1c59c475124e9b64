"""The cutout store: round trip, other readers, and damage that is never taken for data."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from memory_survey import MemorySurvey, make_image, make_rows, make_wcs
from reproject import reproject_exact

from gzscale.config import GeometryConfig
from gzscale.cutouts.convention import ARRAYS
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.store import read_chosen_cutouts, read_cutouts
from gzscale.errors import DamageError, MissingError
from gzscale.storage import open_storage

PREFIX = "cutouts/Norder=0/Dir=0/Npix=4.zarr"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    wcs = make_wcs(150.0, 2.0, rotation=30.0)
    rng = np.random.default_rng(1)
    images = [make_image(rng.normal(1, 0.02, (200, 240)), wcs, f"frame-{band}-1", band) for band in "gr"]
    # More objects than one inner chunk holds.
    x, y = rng.uniform(40, 160, (2, 150))
    rows = make_rows(*wcs.wcs_pix2world(x, y, 0))
    geometries = {"sky": GeometryConfig(size=16, scale=0.396)}
    result = cut_partition(MemorySurvey(images, "gr"), rows, geometries, open_storage(folder), PREFIX)
    return folder, result.inventory, images, rows


@pytest.fixture
def copy(stored, tmp_path):
    import shutil

    shutil.copytree(stored[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_round_trip(stored):
    folder, inventory, images, rows = stored
    cutouts = read_cutouts(open_storage(folder), PREFIX, "sky", inventory)
    assert len(cutouts) == 150
    assert cutouts.bands == "gr"
    assert cutouts.geometry == {"name": "sky", "size": 16, "scale": 0.396}
    assert cutouts.object_id.tolist() == rows.column("object_id").to_pylist()
    assert [source["sha256"] for source in cutouts.sources] == [image.sha256 for image in images]
    for name, (dtype, dimensions, _, _) in ARRAYS.items():
        array = getattr(cutouts, name)
        assert array.dtype == dtype
        assert array.ndim == len(dimensions)
    without = read_cutouts(open_storage(folder), PREFIX, "sky")
    assert np.array_equal(without.images, cutouts.images)


def test_wcs_of_a_stamp_is_where_its_pixels_are(stored):
    folder, inventory, images, _ = stored
    cutouts = read_cutouts(open_storage(folder), PREFIX, "sky", inventory)
    for i in (0, 77, 149):
        wcs = cutouts.wcs(i)
        ra, dec = wcs.all_pix2world(7.5, 7.5, 0)
        assert (float(ra), float(dec)) == pytest.approx((cutouts.ra[i], cutouts.dec[i]), abs=1e-9)
        expected, _ = reproject_exact(
            (images[0].pixels, images[0].wcs), wcs, shape_out=(16, 16), parallel=False
        )
        assert np.abs(cutouts.images[i, 0] - expected).max() < 0.003


def test_xarray_opens_a_geometry_with_dimensions_and_units(stored):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(stored[0] / PREFIX, group="sky")
    assert dataset["images"].dims == ("object", "band", "y", "x")
    assert dataset["images"].attrs["units"] == "nanomaggy"
    assert dataset.sizes["object"] == 150
    assert dataset.attrs["zarr_conventions"][0]["name"] == "gzscale-cutouts"
    assert float(dataset["images"][3, 0].mean()) == pytest.approx(1.0, abs=0.02)


def test_zarr_opens_the_partition_and_every_array_is_checksummed(stored):
    group = zarr.open_group(stored[0] / PREFIX, mode="r")
    assert group.attrs["geometries"] == ["sky"]
    for name in ARRAYS:
        array = group["sky"][name]
        assert "crc32c" in str(array.metadata.to_dict()["codecs"])
    images = group["sky/images"]
    assert images.shards[1:] == images.shape[1:]
    assert images.shards[0] >= images.shape[0], "one shard an array"


@pytest.mark.parametrize("name", ["images/c/0/0/0/0", "coverage/c/0/0", "ra/zarr.json", "zarr.json"])
def test_a_flipped_bit_is_found_by_the_inventory(stored, copy, name):
    path = Path(copy, PREFIX, "sky", name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DamageError, match=f"{name}: sha256"):
        read_cutouts(open_storage(copy), PREFIX, "sky", stored[1])


def test_pixels_that_are_lost_while_they_are_read_are_damage(stored, monkeypatch):
    def gone(self, key, start, stop):
        raise MissingError(f"{key}: nothing is stored there")

    storage = open_storage(stored[0])
    monkeypatch.setattr(type(storage), "get_range", gone)
    with pytest.raises(DamageError, match="images/c/0/0/0/0: lost"):
        read_cutouts(storage, PREFIX, "sky", stored[1])


@pytest.mark.parametrize("name", ["images/c/0/0/0/0", "noise/c/0/0"])
def test_a_flipped_bit_is_found_without_the_inventory_too(copy, name):
    path = Path(copy, PREFIX, "sky", name)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DamageError, match=name.split("/")[0]):
        read_cutouts(open_storage(copy), PREFIX, "sky")


def test_some_cutouts_are_those_of_all(stored):
    folder, inventory, _, _ = stored
    whole = read_cutouts(open_storage(folder), PREFIX, "sky", inventory)
    ids = whole.object_id[[140, 3, 66]]
    some = read_chosen_cutouts(open_storage(folder), PREFIX, "sky", np.append(ids, -7), inventory)
    assert some.rows.tolist() == [3, 66, 140]
    assert some.object_id.tolist() == whole.object_id[some.rows].tolist()
    np.testing.assert_array_equal(some.images, whole.images[some.rows])
    np.testing.assert_array_equal(some.noise, whole.noise[some.rows])
    assert some.sources == whole.sources
    none = read_chosen_cutouts(open_storage(folder), PREFIX, "sky", np.array([-7]), inventory)
    assert none.images.shape == (0, *whole.images.shape[1:])


def test_some_cutouts_read_only_the_chunks_that_hold_them(stored, copy):
    """Damage in the last chunk of three does not touch the first."""
    folder, inventory, _, _ = stored
    path = Path(copy, PREFIX, "sky", "images/c/0/0/0/0")
    whole = read_cutouts(open_storage(folder), PREFIX, "sky", inventory)
    data = bytearray(path.read_bytes())
    data[len(data) - 200] ^= 0x10
    path.write_bytes(data)
    storage = open_storage(copy)
    first = read_chosen_cutouts(storage, PREFIX, "sky", whole.object_id[:1], inventory)
    np.testing.assert_array_equal(first.images, whole.images[:1])
    with pytest.raises(DamageError, match="images"):
        read_chosen_cutouts(storage, PREFIX, "sky", whole.object_id[-1:], inventory)
    path.write_bytes(data[:-1])
    with pytest.raises(DamageError, match="were committed"):
        read_chosen_cutouts(storage, PREFIX, "sky", whole.object_id[:1], inventory)
    unknown = {key: value for key, value in inventory.items() if "images/c/" not in key}
    with pytest.raises(DamageError, match="were committed"):
        read_chosen_cutouts(storage, PREFIX, "sky", whole.object_id[:1], unknown)
    path.unlink()
    with pytest.raises(DamageError, match="lost"):
        read_chosen_cutouts(storage, PREFIX, "sky", whole.object_id[:1], inventory)


@pytest.mark.parametrize(
    "name", [f"{array}/c/{'/'.join('0' * len(spec[1]))}" for array, spec in ARRAYS.items()]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_lost_chunk_is_damage_not_zeros(stored, copy, name, known):
    Path(copy, PREFIX, "sky", name).unlink()
    with pytest.raises(DamageError, match=f"{name}: lost"):
        read_cutouts(open_storage(copy), PREFIX, "sky", stored[1] if known else None)


def test_a_cut_file_names_both_lengths(stored, copy):
    path = Path(copy, PREFIX, "sky/images/c/0/0/0/0")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamageError, match=r"\d+ bytes, \d+ were committed"):
        read_cutouts(open_storage(copy), PREFIX, "sky", stored[1])


def test_a_geometry_that_is_not_there_is_missing(stored):
    with pytest.raises(MissingError):
        read_cutouts(open_storage(stored[0]), PREFIX, "galaxy", stored[1])
    with pytest.raises(MissingError):
        read_cutouts(open_storage(stored[0]), PREFIX, "galaxy")


def test_an_array_of_nothing_but_fill_values_is_written(tmp_path):
    wcs = make_wcs(150.0, 2.0)
    survey = MemorySurvey([make_image(np.zeros((200, 240)), wcs)])
    storage = open_storage(tmp_path)
    geometries = {"sky": GeometryConfig(size=16, scale=0.396)}
    result = cut_partition(survey, make_rows([150.0], [2.0]), geometries, storage, PREFIX)
    assert f"{PREFIX}/sky/band_status/c/0/0" in result.inventory
    assert f"{PREFIX}/sky/images/c/0/0/0/0" in result.inventory
    assert not read_cutouts(storage, PREFIX, "sky", result.inventory).images.any()
