"""Files of a web server that are fetched, in bounded memory, wholly or not at all."""

import hashlib
import tracemalloc

import pytest
from web_server import content

from gzscale.catalog import source
from gzscale.catalog.source import find_files
from gzscale.errors import CatalogError, StorageError

MIB = 2**20


def fetch(server, scratch):
    (file,) = find_files(f"{server.url}/t.fits", scratch)
    return file.fetched()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("length", ["stated", "chunked"])
def test_a_file_of_any_length_is_fetched_in_bounded_memory(large, tmp_path, quick_retries, ranges, length):
    size = 48 * MIB + 5
    server = large(size, ranges, length, cuts=[30 * MIB + MIB // 2])
    tracemalloc.start()
    path = fetch(server, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB
    assert server.sent == 30 * MIB + MIB // 2 + size - (30 * MIB if ranges else 0)
    with open(path, "rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(content(0, size)).digest()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_of_unknown_size_that_does_not_end_is_refused(large, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_UNPACKED_BYTES", 3 * MIB)
    with pytest.raises(CatalogError, match=r"t\.fits: more than 3145728 bytes.*split it"):
        fetch(large(10**15, ranges=False, length="chunked"), tmp_path)
    assert fetch(large(3 * MIB, ranges=False, length="chunked"), tmp_path).stat().st_size == 3 * MIB


@pytest.mark.parametrize("received", [2 * MIB, 4 * MIB])
def test_another_length_than_was_announced(large, tmp_path, received):
    server = large(3 * MIB)
    (file,) = find_files(f"{server.url}/t.fits", tmp_path)
    server.size, server.length = received, "chunked"
    with pytest.raises(
        StorageError, match=rf"announced with {3 * MIB} bytes, received {received}; .*run the"
    ):
        file.fetched()
