"""Downloads from servers that know no ranges, state no length, or lose the connection."""

import zlib

import pytest
from faults import Fault, files
from web_server import content

from gzscale._remote_storage import ATTEMPTS
from gzscale._web import MAX_RESTARTS, PIECE_BYTES
from gzscale.errors import MissingError, StorageError
from gzscale.storage import open_storage

SIZE = 5 * PIECE_BYTES + 12_345
#: Half a piece on, since what aiohttp holds when a connection breaks is lost with it.
MIDDLE = 3 * PIECE_BYTES + PIECE_BYTES // 2
KINDS = [(ranges, length) for ranges in (True, False) for length in ("stated", "chunked")]


def download(server):
    """Length, checksum and longest piece."""
    length = checksum = longest = 0
    for piece in open_storage(server.url).stream("file"):
        length, checksum, longest = length + len(piece), zlib.crc32(piece, checksum), max(longest, len(piece))
    return length, checksum, longest


def expected(size):
    return size, zlib.crc32(content(0, size)), min(size, PIECE_BYTES)


@pytest.mark.parametrize("length", ["stated", "chunked", "closed", "gzip"])
@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES, SIZE])
def test_one_request_and_each_byte_once(large, length, size):
    server = large(size, ranges=False, length=length)
    assert download(server) == expected(size)
    assert (server.sent, server.requests) == (size, [("GET", "")])


@pytest.mark.parametrize(("ranges", "length"), KINDS)
def test_a_connection_lost_in_the_middle(large, quick_retries, ranges, length):
    """It goes on where it was where the server can, and else starts anew; whole pieces are kept."""
    server = large(SIZE, ranges, length, cuts=[MIDDLE])
    assert download(server) == expected(SIZE)
    kept = MIDDLE - MIDDLE % PIECE_BYTES
    assert server.requests == [("GET", ""), ("GET", f"bytes={kept}-")]
    assert server.sent == MIDDLE + SIZE - (kept if ranges else 0)


@pytest.mark.parametrize("ranges", [True, False])
def test_what_is_encoded_in_transit_starts_anew(large, quick_retries, ranges):
    server = large(SIZE, ranges, "gzip", cuts=[MIDDLE])
    assert download(server) == expected(SIZE)
    assert server.requests == [("GET", "")] * 2


@pytest.mark.parametrize("length", ["stated", "chunked"])
def test_many_losses_with_progress_are_outlasted_by_ranges(large, quick_retries, length):
    server = large(12 * PIECE_BYTES, length=length, cuts=[PIECE_BYTES + PIECE_BYTES // 2] * 11)
    assert download(server) == expected(12 * PIECE_BYTES)
    assert len(server.requests) == 12
    assert server.sent <= 12 * PIECE_BYTES + 11 * PIECE_BYTES // 2


def test_without_ranges_the_traffic_is_bounded(large, quick_retries):
    server = large(
        99 * PIECE_BYTES,
        ranges=False,
        cuts=[PIECE_BYTES * count + PIECE_BYTES // 2 for count in range(1, 99)],
    )
    with pytest.raises(StorageError, match=r"cannot go on from the middle.*fetch it with another program"):
        download(server)
    assert len(server.requests) == 2 + MAX_RESTARTS


@pytest.mark.parametrize(("ranges", "length"), KINDS)
def test_losses_without_progress_end_in_an_error(large, quick_retries, ranges, length):
    server = large(SIZE, ranges, length, cuts=[1000] * 99)
    with pytest.raises(StorageError, match=f"attempt {ATTEMPTS} of {ATTEMPTS}"):
        download(server)
    assert len(server.requests) == ATTEMPTS


@pytest.mark.parametrize(("ranges", "length"), KINDS)
def test_the_end_lost_after_the_last_byte(large, quick_retries, ranges, length):
    """Whether that was the whole is known by a stated length, by the range behind it, or anew."""
    server = large(2 * PIECE_BYTES, ranges, length, cuts=[2 * PIECE_BYTES])
    assert download(server) == expected(2 * PIECE_BYTES)
    assert len(server.requests) == (1 if length == "stated" else 2)


@pytest.mark.parametrize(
    ("ranges", "length", "change"),
    [
        *((*kind, change) for kind in KINDS for change in ("size", "tag")),
        # With ranges, a change that leaves size and tag alone is not told.
        *((*kind, "content") for kind in KINDS if not kind[0]),
    ],
)
def test_a_file_that_changed_is_not_put_together(large, quick_retries, ranges, length, change):
    server = large(SIZE, ranges, length, cuts=[MIDDLE])
    server.tags = ['"a"', '"b"'] if change == "tag" else []
    pieces = open_storage(server.url).stream("file")
    next(pieces)
    server.size -= (change == "size") * 3 * PIECE_BYTES
    server.shift += (change == "content") * 8 * 2**16
    with pytest.raises(StorageError, match=r"the file changed while it was fetched; run the same"):
        list(pieces)


def test_another_range_is_refused(large, quick_retries):
    server = large(SIZE, cuts=[MIDDLE])
    plain = server._answer

    def shifted(handler):
        if "Range" in handler.headers:
            handler.headers.replace_header("Range", "bytes=7-")
        plain(handler)

    server._answer = shifted
    with pytest.raises(StorageError, match="asked for bytes from 3145728, the server sent 'bytes 7-"):
        download(server)


def test_a_download_that_is_given_up_lets_its_connection_go(large):
    server = large(200 * PIECE_BYTES)
    pieces = open_storage(server.url).stream("file")
    assert next(pieces) == content(0, PIECE_BYTES)
    pieces.close()
    assert server.sent < 100 * PIECE_BYTES


def test_missing_and_refused(serve):
    server = serve(files({"k": b"x"}))
    store = open_storage(server.url)
    with pytest.raises(MissingError, match=f"{server.url}/none"):
        list(store.stream("none"))
    server.fail(Fault("status", 403))
    with pytest.raises(StorageError, match="403"):
        list(store.stream("k"))
    assert len(server.requests) == 1
