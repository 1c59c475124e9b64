"""The ledger: what is committed is read back, what was changed is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.catalog.partition import Partition
from gzscale.errors import DamageError, MissingError
from gzscale.night.ledger import Count, Ledger, NightRecord, Record, add_counts, seal, unseal
from gzscale.storage import open_storage

COUNTS = st.builds(
    lambda done, lost, failed: Count(done + sum(lost.values()) + failed, done, lost, failed),
    st.integers(0, 50),
    st.dictionaries(st.sampled_from(["A", "B", "C"]), st.integers(1, 9)),
    st.integers(0, 9),
)


def a_record(**changes):
    values = {
        "stage": "cut",
        "partition": Partition(5, 1234),
        "fingerprint": "f",
        "inputs": {"rows": "r", "scale": [96, 0.396]},
        "files": {"a": ["0" * 64, 3]},
        "counts": {"galaxy": Count(5, 3, {"ALL_NAN": 2})},
        "images": {"x|g|p|e": "absent"},
        "seconds": {"decode": 0.25},
    }
    return Record(**(values | changes))


@pytest.fixture
def ledger(tmp_path):
    return Ledger(open_storage(tmp_path))


def test_a_commit_is_read_back(ledger):
    record = a_record()
    ledger.commit(record)
    assert ledger.read("cut", record.partition) == record
    assert ledger.read("predict", record.partition) is None


def test_what_is_revoked_is_not_there(ledger):
    record = a_record()
    ledger.commit(record)
    ledger.revoke("cut", record.partition)
    assert ledger.read("cut", record.partition) is None


def test_an_account_that_does_not_close_is_not_committed(ledger):
    with pytest.raises(AssertionError, match="does not close"):
        ledger.commit(a_record(counts={"galaxy": Count(5, 3, {"ALL_NAN": 1})}))
    assert ledger.read("cut", Partition(5, 1234)) is None


def test_content_is_of_files_alone():
    assert a_record(seconds={}, images={}).content == a_record().content
    assert a_record(files={"a": ["1" * 64, 3]}).content != a_record().content


@given(st.data())
def test_any_changed_byte_of_a_record_is_found(data):
    sealed = bytearray(seal({"files": {"a": ["00", 1]}, "counts": {"x": 12.5}}))
    place = data.draw(st.integers(0, len(sealed) - 2))  # the last byte is the line's end
    sealed[place] = data.draw(st.integers(33, 126).filter(lambda byte: byte != sealed[place]))
    with pytest.raises(DamageError):
        unseal(bytes(sealed), "record")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff", b'{"sha256":"x","record":3}'])
def test_what_is_no_record_is_refused(data):
    with pytest.raises(DamageError, match="record"):
        unseal(data, "here")


def test_a_newer_layout_is_refused():
    import hashlib

    body = {"layout": 99}
    text = json.dumps(body, separators=(",", ":")).encode()
    sealed = json.dumps({"sha256": hashlib.sha256(text).hexdigest(), "record": body}).encode()
    with pytest.raises(DamageError, match="newer"):
        unseal(sealed, "here")


@given(st.lists(COUNTS, max_size=6))
def test_accounts_add_up(counts):
    total = {}
    for count in counts:
        assert count.closes
        add_counts(total, {"n": count})
    if counts:
        assert total["n"].closes
        assert total["n"].planned == sum(count.planned for count in counts)


def test_the_last_night_is_the_one_that_started_last(ledger):
    assert ledger.last_night() is None
    for name, started in (("b", "2026-01-02"), ("a", "2026-01-03"), ("c", "2026-01-01")):
        ledger.write_night(NightRecord(name, "complete", {}, "f", started=started))
    last = ledger.last_night()
    assert last is not None
    assert last.night == "a"
    with pytest.raises(MissingError):
        ledger.read_night("d")
