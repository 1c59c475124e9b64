"""Verification finds every damage, and says where."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_night

from gzscale.errors import LockedError
from gzscale.night.ledger import Ledger
from gzscale.night.lock import hold_lock
from gzscale.night.verify import verify, verify_and_repair
from gzscale.storage import open_storage


@pytest.fixture
def storage(ran):
    assert verify(ran.config.output) == []
    return open_storage(ran.config.output)


def keys(storage, prefix, ending=""):
    return [entry.key for entry in storage.list(prefix) if entry.key.endswith(ending)]


def only_finding(storage, key):
    findings = verify(storage.root)
    assert {finding.where for finding in findings} == {storage.url(key)}, findings


def shard(storage):
    return next(key for key in keys(storage, "cutouts") if "/images/c/" in key)


def data_files(storage):
    return [
        key for key in keys(storage, "releases", ".parquet") if "/morphology/morphology/dataset/Norder" in key
    ]


def test_a_flipped_bit_in_a_store(storage):
    data = bytearray(storage.get(shard(storage)))
    data[len(data) // 2] ^= 1
    storage.put(shard(storage), bytes(data))
    only_finding(storage, shard(storage))


def test_a_lost_chunk_of_a_store(storage):
    key = shard(storage)
    storage.delete(key)
    only_finding(storage, key)


def test_a_file_that_nobody_committed(storage):
    key = f"{shard(storage)}1"
    storage.put(key, b"stray")
    only_finding(storage, key)


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "reorder", "drop"])
@pytest.mark.parametrize("where", ["predictions", "release"])
def test_a_damaged_parquet_file(storage, damage, where):
    files = keys(storage, "predictions") if where == "predictions" else data_files(storage)
    key = max(files, key=lambda key: pq.read_metadata(io.BytesIO(storage.get(key))).num_rows)
    data = storage.get(key)
    if damage == "empty":
        changed = b""
    elif damage == "cut":
        changed = data[:-7]
    elif damage == "flip":
        changed = data[:100] + bytes([data[100] ^ 4]) + data[101:]
    else:
        table = pq.read_table(io.BytesIO(data))
        order = list(range(table.num_rows))[::-1] if damage == "reorder" else list(range(table.num_rows - 1))
        sink = io.BytesIO()
        pq.write_table(table.take(pa.array(order)), sink)
        changed = sink.getvalue()
    storage.put(key, changed)
    findings = verify(storage.root)
    assert storage.url(key) in {finding.where for finding in findings}


def test_two_exchanged_parquet_files(storage):
    one, other = keys(storage, "predictions")[:2]
    first, second = storage.get(one), storage.get(other)
    storage.put(one, second)
    storage.put(other, first)
    assert {finding.where for finding in verify(storage.root)} == {storage.url(one), storage.url(other)}


def test_a_wrong_number_of_rows(storage):
    key = next(
        key for key in keys(storage, "releases", "hats.properties") if "/morphology/morphology/" in key
    )
    text = storage.get(key).decode()
    assert "hats_nrows=40" in text.replace(" ", "")
    storage.put(key, text.replace("40", "41").encode())
    findings = verify(storage.root)
    assert {finding.where for finding in findings} == {storage.url(key)}
    assert any("hats_nrows is 41" in finding.what for finding in findings)


@pytest.mark.parametrize("stage", ["cut", "predict"])
def test_a_ledger_record_that_is_gone(storage, stage):
    key = keys(storage, f"ledger/{stage}", ".json")[0]
    storage.delete(key)
    only_finding(storage, key)


@pytest.mark.parametrize("stage", ["cut", "predict"])
def test_a_ledger_record_that_was_changed(storage, stage):
    key = keys(storage, f"ledger/{stage}", ".json")[0]
    storage.put(key, storage.get(key).replace(b'"done":', b'"done": '.replace(b" ", b"1")))
    only_finding(storage, key)


def test_the_night_s_record_gone(storage, ran):
    storage.delete(Ledger.night_key(ran.record.night))
    assert storage.url(Ledger.night_key(ran.record.night)) in {item.where for item in verify(storage.root)}


def test_changed_rows(storage):
    one, other = keys(storage, "ledger/rows")[:2]
    storage.put(one, storage.get(other))
    only_finding(storage, one)


def test_a_release_without_manifest_and_a_dangling_pointer(storage, ran):
    key = f"releases/{ran.record.release}/manifest.json"
    storage.delete(key)
    findings = verify(storage.root)
    assert {finding.where for finding in findings} == {storage.url(key)}
    assert len(findings) == 2


def test_what_is_repaired_is_made_anew(storage, ran):
    damaged = [shard(storage), *keys(storage, "predictions")[:1], *data_files(storage)[:1]]
    damaged += [keys(storage, "ledger/rows")[0], keys(storage, "ledger/predict", ".json")[-1]]
    before = {key: storage.get(key) for key in damaged}
    for key in damaged:
        storage.put(key, before[key][:-1] + b"x")
    with hold_lock(storage, "n2"), pytest.raises(LockedError):
        verify_and_repair(storage.root)
    assert all(storage.stat(key) for key in damaged)
    findings, removed = verify_and_repair(storage.root)
    assert {finding.where for finding in findings} >= {storage.url(key) for key in damaged}
    assert removed == len(damaged)
    run_night(ran.config, "n2")
    assert verify(storage.root) == []
    for key in damaged[:3]:
        assert storage.get(key) == before[key]
