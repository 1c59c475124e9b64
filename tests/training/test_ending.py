"""How a training ends: the bundle is written, whole, wherever that may be."""

import dataclasses
from pathlib import Path

import pytest

from gzscale.errors import StorageError
from gzscale.models.bundle import load_bundle
from gzscale.models.shipped import shipped
from gzscale.training.ending import beside, finish


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
    assert beside("s3://survey/models/own.safetensors", "curve.csv") == Path("own.safetensors.curve.csv")
