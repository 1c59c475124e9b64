"""The release: valid, switched over at once, never in the way of older ones."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import run_night
from hats.io.validation import is_valid_catalog
from toy import toy_catalog

from gzscale.night.pointer import POINTER, read_pointer
from gzscale.storage import open_storage


def test_it_is_strictly_valid_and_complete(ran):
    folder = f"{ran.config.output}/releases/{ran.record.release}"
    assert is_valid_catalog(f"{folder}/morphology", strict=True)
    quarantine = pq.read_table(f"{folder}/quarantine.parquet")
    assert sorted(
        zip(quarantine["object_id"].to_pylist(), quarantine["reason"].to_pylist(), strict=True)
    ) == [
        (1, "OFF_FOOTPRINT"),
        (2, "BAD_COORDINATES"),
        (1003, "MISSING_SIZE"),
    ]
    assert all(quarantine["detail"].to_pylist())


def test_the_pointer_names_night_and_manifest(ran):
    storage = open_storage(ran.config.output)
    pointer = read_pointer(storage)
    assert pointer is not None
    assert (pointer.release, pointer.night) == (ran.record.release, "n1")
    assert json.loads(storage.get(POINTER))["manifest"] == pointer.manifest


def test_older_releases_stay_and_stale_partitions_go(ran, tmp_path):
    from gzscale.night.release import prune

    table = toy_catalog()
    west = table.filter(pa.array([not 190 < value < 210 for value in table["ra"].to_pylist()]))
    pq.write_table(west, tmp_path / "catalog.parquet")
    catalog = ran.config.catalog.model_copy(update={"path": str(tmp_path / "catalog.parquet")})
    config = ran.config.model_copy(update={"catalog": catalog})
    again = run_night(config, "n2")
    assert again.record.release != ran.record.release
    releases = open_storage(config.output)
    kept = {entry.key.split("/")[1] for entry in releases.list("releases") if entry.key.count("/") > 1}
    assert kept == {ran.record.release, again.record.release}
    assert prune(config, again.plan) == len(ran.plan.partitions) - len(again.plan.partitions)
    paths = {item.partition.path for item in again.plan.partitions}
    left = {entry.key for entry in releases.list("predictions")}
    assert left == {f"predictions/{path}.parquet" for path in paths}
