"""A large file read piece by piece: every byte once, in order, and hashed."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.abc.store import RangeByteRequest, SuffixByteRequest

import gzscale.cutouts._ranged as ranged
from gzscale.storage import LocalStorage, sha256_hex

CONTENT = np.random.default_rng(1).integers(0, 256, 10_000, dtype=np.uint8).tobytes()


class CountingStorage(LocalStorage):
    """A folder that notes what is read."""

    def __init__(self, root):
        super().__init__(root)
        self.spans = []

    def get_range(self, key, start, stop):
        self.spans.append((start, stop))
        return super().get_range(key, start, stop)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    made = CountingStorage(str(tmp_path_factory.mktemp("ranged")))
    made.put("large", CONTENT)
    return made


def read(store, request):
    return asyncio.run(store.get("c", byte_range=request)).to_bytes()


def hashed(storage, monkeypatch, piece):
    monkeypatch.setattr(ranged, "PIECE", piece)
    storage.spans.clear()
    return ranged.HashedStore({}, storage, "large", "c", len(CONTENT))


def test_every_byte_is_read_once_and_few_are_held(storage, monkeypatch):
    store = hashed(storage, monkeypatch, 700)
    for start in range(0, 9_900, 900):
        assert read(store, SuffixByteRequest(100)) == CONTENT[-100:]
        assert read(store, RangeByteRequest(start, start + 900)) == CONTENT[start : start + 900]
        assert len(store._held) <= 900 + 700
    assert store.sha256() == sha256_hex(CONTENT)
    tail, *pieces = storage.spans
    assert tail == (9_900, 10_000)
    assert pieces == [(start, min(start + 700, 10_000)) for start in range(0, 10_000, 700)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3_000)), max_size=12), st.integers(1, 5_000))
def test_any_ranges_in_any_order(storage, ranges, piece):
    with pytest.MonkeyPatch.context() as patch:
        store = hashed(storage, patch, piece)
        for start, length in ranges:
            stop = min(start + length, len(CONTENT))
            assert read(store, RangeByteRequest(start, stop)) == CONTENT[start:stop]
        assert store.sha256() == sha256_hex(CONTENT)
