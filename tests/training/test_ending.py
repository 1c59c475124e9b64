"""How a training ends: the bundle is written, whole, wherever that may be."""

import dataclasses
from pathlib import Path

import pytest

from gzscale.errors import ConfigError, StorageError
from gzscale.models.bundle import load_bundle
from gzscale.models.shipped import shipped
from gzscale.storage import open_storage
from gzscale.training.ending import beside, finish, require_place


@pytest.fixture(scope="module")
def bundle():
    return dataclasses.replace(load_bundle(shipped("redshifts")), name="own-7")


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "own.safetensors.work"
    folder.mkdir()
    (folder / "checkpoint").write_bytes(b"x")
    return folder


def test_a_bundle_is_written_to_object_storage(bundle, work, s3):
    output = f"{s3.url}/models/own.safetensors"
    finish(bundle, output, work)
    assert load_bundle(output).name == "own-7"
    assert not work.exists()


def test_a_bundle_that_cannot_be_written_costs_no_checkpoint(bundle, work):
    with pytest.raises((StorageError, OSError)):
        finish(bundle, f"{work}/no/such/folder/own.safetensors", work)
    assert (work / "checkpoint").exists()


def test_what_is_kept_beside_it_is_of_this_machine():
    assert beside("here/own.safetensors", "work") == Path("here/own.safetensors.work")
    first, second = (beside(f"s3://{bucket}/own.safetensors", "curve.csv") for bucket in ("a", "b"))
    assert first != second
    assert (first.parent, first.name[:16], first.suffix) == (Path(), "own.safetensors.", ".csv")


@pytest.mark.parametrize(
    "output", ["s3://own.safetensors", "s3://bucket/", "gs://bucket/own", "https://h/own"]
)
def test_no_place_for_a_bundle_is_told_before_it_is_trained(output):
    with pytest.raises(ConfigError, match="to a path, or to s3://bucket/name"):
        require_place(output)


def test_a_bucket_that_is_not_there_is_told_before_a_bundle_is_trained(s3, quick_retries):
    require_place(f"{s3.url}/own.safetensors")
    require_place("/nowhere/own.safetensors")
    with pytest.raises(StorageError, match="gzscale-none"):
        require_place("s3://gzscale-none/own.safetensors")
    assert open_storage(s3.url).stat("own.safetensors.part") is None
