"""What every storage promises, the same for a folder and for S3."""

import asyncio
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gzscale._uploads
import gzscale.storage
from gzscale.errors import MissingError, StorageError
from gzscale.storage import S3Storage, Storage, open_storage, sha256_hex

KEY = "cutouts/Norder=3/Dir=0/Npix=17.zarr/zarr.json"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path / "night")
    return open_storage(request.getfixturevalue("s3").url + "/night")


def test_what_is_put_is_got(store: Storage) -> None:
    store.put(KEY, b"first")
    store.put(KEY, memoryview(b"second"))
    store.put("empty", b"")
    assert store.get(KEY) == b"second"
    assert store.get("empty") == b""
    entry = store.stat(KEY)
    assert entry is not None
    assert (entry.key, entry.size) == (KEY, 6)


def test_a_tag_changes_with_the_content(store: Storage) -> None:
    tags = []
    for content in (b"one", b"two", b"three"):
        store.put("k", content)
        entry = store.stat("k")
        assert entry is not None
        tags.append(entry.tag)
    assert len(set(tags)) == 3
    assert store.stat("k").tag == tags[-1]  # type: ignore[union-attr]


def test_what_is_missing_is_a_missing_error_that_names_it(store: Storage) -> None:
    store.put("a/b", b"1")
    for key in ("none", "a", "a/b/c"):
        assert store.stat(key) is None
        with pytest.raises(MissingError, match=key) as caught:
            store.get(key) if key != "a" else store.get("a/none")
        assert isinstance(caught.value, FileNotFoundError)
        assert store.url("")[:-1] in str(caught.value)
    with pytest.raises(MissingError):
        store.get_range("none", 0, 4)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (0, 1), (3, 7), (9, 10), (5, 99), (10, 12), (50, 60), (4, 4), (6, 2)]
)
def test_a_range_is_a_slice(store: Storage, start: int, stop: int) -> None:
    content = b"0123456789"
    store.put("k", content)
    assert store.get_range("k", start, stop) == content[start:stop]


def test_listing_is_sorted_by_key_with_sizes(store: Storage) -> None:
    keys = ["a", "a-b/x", "a.b", "b/c", "b/c.d/e", "b/cc", "b.txt", KEY, KEY.replace("17", "9"), "z/ü/1", "Z"]
    for number, key in enumerate(keys):
        store.put(key, b"x" * number)
    listed = list(store.list())
    assert [entry.key for entry in listed] == sorted(keys)
    assert {entry.key: entry.size for entry in listed} == {key: n for n, key in enumerate(keys)}
    assert all(entry == store.stat(entry.key) for entry in listed)
    # A prefix is a folder, or one file; never the beginning of a name.
    assert [entry.key for entry in store.list("b")] == ["b/c", "b/c.d/e", "b/cc"]
    assert [entry.key for entry in store.list("b/")] == ["b/c", "b/c.d/e", "b/cc"]
    assert [entry.key for entry in store.list("b.txt")] == ["b.txt"]
    assert list(store.list("cut")) == []


names = st.text(alphabet="ab.-=_", min_size=1, max_size=3).filter(lambda name: name.strip("."))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=8))
def test_a_folder_lists_in_the_order_of_object_stores(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str]
) -> None:
    store = open_storage(tmp_path_factory.mktemp("order"))
    kept = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}
    for key in kept:
        Path(store.url(key)).parent.mkdir(parents=True, exist_ok=True)
        Path(store.url(key)).write_bytes(b"")
    assert [entry.key for entry in store.list()] == sorted(kept, key=lambda key: key.encode())


def test_listing_goes_past_a_page(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_storage(s3.url)
    call = store._fs.call_s3

    def small_pages(method: str, **options: object) -> object:
        return call(method, **options, **({"MaxKeys": 2} if method == "list_objects_v2" else {}))

    for number in range(5):
        store.put(f"k/{number}", b"")
    monkeypatch.setattr(store._fs, "call_s3", small_pages)
    assert [entry.key for entry in store.list("k")] == [f"k/{n}" for n in range(5)]


def test_delete(store: Storage) -> None:
    for key in ("a/b/c", "a/d", "ab", "e"):
        store.put(key, b"1")
    store.delete("e")
    store.delete("e")
    store.delete("e/under")
    assert store.stat("e") is None
    store.delete_tree("a")
    store.delete_tree("never")
    assert [entry.key for entry in store.list()] == ["ab"]
    store.delete_tree("")
    assert list(store.list()) == []


def test_put_file(store: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 10)
    store.put_file("copy", source)
    assert store.get("copy") == source.read_bytes()
    with pytest.raises(MissingError, match="nowhere"):
        store.put_file("copy", tmp_path / "nowhere")
    assert store.get("copy") == source.read_bytes()


def test_put_pieces(store: Storage) -> None:
    store.put_pieces("whole", iter([b"ab", b"", b"c"]))
    assert store.get("whole") == b"abc"
    store.put_pieces("empty", iter([]))
    assert store.get("empty") == b""

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("the maker's own error")

    with pytest.raises(ValueError, match="maker"):
        store.put_pieces("whole", broken())
    assert store.get("whole") == b"abc"
    assert {entry.key for entry in store.list()} == {"empty", "whole"}


def test_large_objects_go_up_in_parts(s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gzscale._uploads.PART_BYTES", 5 * 2**20)
    store = open_storage(s3.url)
    content = bytes(range(251)) * (11 * 2**20 // 251)
    source = tmp_path / "source"
    source.write_bytes(content)
    store.put_file("file", source)
    store.put("bytes", memoryview(content))
    view = memoryview(content)
    store.put_pieces(
        "pieces", (bytes(view[start : start + 999_999]) for start in range(0, len(view), 999_999))
    )
    for key in ("file", "bytes", "pieces"):
        entry = store.stat(key)
        assert entry is not None
        assert entry.tag.endswith("-3"), "three parts"
        assert sha256_hex(store.get(key)) == sha256_hex(content)
    assert store.get_range("file", 5 * 2**20 - 3, 5 * 2**20 + 3) == content[5 * 2**20 - 3 : 5 * 2**20 + 3]


@pytest.mark.parametrize("length", [0, 1, 5 * 2**20, 5 * 2**20 + 1, 10 * 2**20])
def test_lengths_about_a_part(s3, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr("gzscale._uploads.PART_BYTES", 5 * 2**20)
    store = open_storage(s3.url)
    content = bytes(range(251)) * (length // 251 + 1)
    content = content[:length]
    store.put("bytes", content)
    store.put_pieces("pieces", [content[: length // 3], content[length // 3 :]])
    assert store.get("bytes") == store.get("pieces") == content


def test_pieces_that_fail_after_a_part_leave_what_was_there(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gzscale._uploads.PART_BYTES", 5 * 2**20)
    store = open_storage(s3.url)
    store.put("key", b"before")

    def broken() -> Iterator[bytes]:
        for _ in range(3):
            yield bytes(5 * 2**20)
        raise ValueError("the maker's own error")

    with pytest.raises(ValueError, match="maker"):
        store.put_pieces("key", broken())
    assert store.get("key") == b"before"
    assert store.clear_unfinished() == 0, "its upload was aborted"


def test_two_parts_are_in_memory_at_most(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    part = 5 * 2**20
    monkeypatch.setattr("gzscale._uploads.PART_BYTES", part)
    store = open_storage(s3.url)
    store.put("first", b"a client is made")

    held = []

    def send(self: S3Storage, key: str, method: str, **options: Any) -> dict[str, str]:
        # What the storage itself has allocated: servers and clients of other tests run in this process, too.
        mine = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, gzscale._uploads.__file__)]
        )
        held.append(sum(trace.size for trace in mine.traces))
        return {"UploadId": "1", "ETag": "2"}

    monkeypatch.setattr(S3Storage, "_call", send)
    tracemalloc.start()
    try:
        store.put_pieces("key", (bytes(2**18) for _ in range(8 * part // 2**18)))
    finally:
        tracemalloc.stop()
    assert len(held) == 10, "begun, eight parts, ended"
    assert part <= max(held) < 2.1 * part


def test_uploads_that_were_never_finished_are_cleared(s3) -> None:
    store = open_storage(f"{s3.url}/night")
    for key in ("night/a/1", "night/b/2", "other/3"):
        store._fs.call_s3("create_multipart_upload", Bucket=s3.bucket, Key=key)
    assert store.clear_unfinished("a") == 1
    assert store.clear_unfinished() == 1
    assert store.clear_unfinished() == 0
    assert open_storage(s3.url).clear_unfinished("other") == 1


def test_put_new_only_where_there_is_nothing(store: Storage) -> None:
    assert store.put_new("lock", b"mine") is True
    assert store.put_new("lock", b"yours") is False
    assert store.put_new("lock", b"mine") is False, "the same bytes a second time are no second win"
    assert store.get("lock") == b"mine"
    store.delete("lock")
    assert store.put_new("lock", b"yours") is True


def test_replace_only_what_was_seen(store: Storage) -> None:
    assert store.replace("lock", b"0", "any") is False
    assert store.replace("folder/lock", b"0", "any") is False
    assert store.stat("lock") is None
    store.put_new("lock", b"1")
    seen = store.stat("lock")
    assert seen is not None
    assert store.replace("lock", b"2", seen.tag) is True
    assert store.replace("lock", b"3", seen.tag) is False
    assert store.get("lock") == b"2"


def test_replace_knows_contents_of_one_length_apart_when_the_clock_stands(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    store.put_new("lock", b"0")
    tags = set()
    for number in range(20):
        entry = store.stat("lock")
        assert entry is not None
        tags.add(entry.tag)
        assert store.replace("lock", str(number % 10).encode(), entry.tag)
    assert len(tags) == 20


def _winners(act, count: int = 8) -> list[int]:
    """Let `count` threads act at one moment; return who was told that it won."""
    barrier = threading.Barrier(count)

    def run(number: int) -> bool:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return [number for number, won in enumerate(pool.map(run, range(count))) if won]


@pytest.mark.parametrize("turn", range(3))
def test_of_many_writers_one_puts_and_one_replaces(store: Storage, turn: int) -> None:
    if isinstance(store, S3Storage) and not os.environ.get("GZSCALE_TEST_S3"):
        pytest.skip("the stand-in checks and stores in two steps; set GZSCALE_TEST_S3 to a real S3")
    won = _winners(lambda number: store.put_new("lock", f"new {number}".encode()))
    assert len(won) == 1
    assert store.get("lock") == f"new {won[0]}".encode()
    seen = store.stat("lock")
    assert seen is not None
    won = _winners(lambda number: store.replace("lock", f"next {number}".encode(), seen.tag))
    assert len(won) == 1
    assert store.get("lock") == f"next {won[0]}".encode()


def test_a_storage_crosses_processes_and_loops(store: Storage) -> None:
    store.put("k", b"here")
    assert pickle.loads(pickle.dumps(store)).get("k") == b"here"

    async def inside() -> bytes:
        return store.get("k")

    assert asyncio.run(inside()) == b"here"
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.get("k"), range(40))) == {b"here"}


FORK = """
    import os, sys
    from gzscale.storage import open_storage

    store = open_storage(sys.argv[1])
    store.put("k", b"here")
    child = os.fork()
    if not child:
        os._exit(0 if store.get("k") == b"here" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get("k") == b"here"
"""


def test_a_forked_process_uses_what_its_parent_opened(s3) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK), s3.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_dask_workers_use_it(s3) -> None:
    distributed = pytest.importorskip("distributed")
    store = open_storage(s3.url)
    store.put("k", b"here")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        futures = [client.submit(lambda s, n: (n, s.get("k")), store, n) for n in range(9)]
        assert client.gather(futures) == [(n, b"here") for n in range(9)]


def test_one_client_a_process_and_one_more_for_other_credentials(s3, monkeypatch) -> None:
    store = open_storage(s3.url)
    assert store._fs is open_storage(f"{s3.url}/other")._fs
    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(lambda: pickle.loads(pickle.dumps(store))._fs).result() is store._fs
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    assert open_storage(s3.url)._fs is not store._fs


@pytest.mark.parametrize("location", ["gs://bucket/x", "s3://", "s3:///x", "ftp://host/x"])
def test_other_locations_are_refused_by_name(location: str) -> None:
    with pytest.raises(StorageError, match="s3") as caught:
        open_storage(location)
    assert location in str(caught.value)


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    open_storage(f"file://{tmp_path}/x").put("k", b"1")
    assert (tmp_path / "x" / "k").read_bytes() == b"1"
    assert open_storage(tmp_path).url("x/k") == f"{tmp_path}/x/k"


def test_sha256() -> None:
    # FIPS 180-4, the one-block example.
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert gzscale.storage.sha256_hex(memoryview(b"abc")) == sha256_hex(b"abc")
