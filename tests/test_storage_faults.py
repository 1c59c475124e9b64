"""Storage that fails: S3 and web servers in trouble, full and read-only disks, killed processes."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import DENIED, SLOW_DOWN, Fault, FaultyServer, files

import gzscale._remote_storage
from gzscale._remote_storage import ATTEMPTS
from gzscale.errors import MissingError, StorageError
from gzscale.storage import open_storage

FAULTS = [
    Fault("status", 500),
    Fault("status", 502, b"<html>bad gateway</html>"),
    Fault("status", 503, SLOW_DOWN),
    Fault("status", 429),
    Fault("reset"),
    Fault("lost"),
    Fault("truncate"),
]


def _name(fault: Fault) -> str:
    return f"{fault.kind}-{fault.status}" if fault.kind == "status" else fault.kind


@pytest.mark.s3
@pytest.mark.parametrize("fault", FAULTS, ids=_name)
def test_s3_trouble_that_passes_is_outlasted(
    s3, faulty_s3: FaultyServer, quick_retries, fault: Fault
) -> None:
    store = open_storage(f"{s3.url}/night")
    content = b"0123456789" * 200
    faulty_s3.fail(fault)
    store.put("k", content)
    faulty_s3.fail(fault, fault)
    assert store.get("k") == content
    assert len(faulty_s3.requests) == 3, "one request an attempt"
    faulty_s3.fail(fault)
    assert store.get_range("k", 5, 995) == content[5:995]
    faulty_s3.fail(fault)
    assert [entry.key for entry in store.list()] == ["k"]
    faulty_s3.fail(fault)
    store.delete("k")
    assert store.stat("k") is None


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("status", 500, lasting=True), "HTTP 500"),
        (Fault("status", 503, SLOW_DOWN, lasting=True), "HTTP 503 SlowDown"),
        (Fault("reset", lasting=True), ""),
    ],
    ids=["status-500", "status-503", "reset"],
)
def test_s3_trouble_that_stays_ends_in_an_error(
    s3, faulty_s3: FaultyServer, monkeypatch: pytest.MonkeyPatch, fault: Fault, says: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("gzscale._remote_storage.time.sleep", pauses.append)
    store = open_storage(f"{s3.url}/night")
    faulty_s3.fail(fault)
    with pytest.raises(StorageError) as caught:
        store.put("some/key", b"1")
    told = str(caught.value)
    assert f"{s3.url}/night/some/key: {says}" in told
    assert f"attempt {ATTEMPTS} of {ATTEMPTS}" in told
    assert "run the same command again" in told
    assert ATTEMPTS <= len(faulty_s3.requests) <= (ATTEMPTS if fault.kind == "status" else 2 * ATTEMPTS)
    assert len(pauses) == ATTEMPTS - 1
    longest = [gzscale._remote_storage.FIRST_PAUSE * 2**n for n in range(ATTEMPTS - 1)]
    assert all(0.5 * most <= pause <= most for pause, most in zip(pauses, longest, strict=True))


def test_a_gateway_that_is_away_for_15_seconds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the dice say; and one that stays away is told of within a minute."""
    monkeypatch.undo()
    pauses = [gzscale._remote_storage.FIRST_PAUSE * 2**n for n in range(ATTEMPTS - 1)]
    assert sum(pauses) / 2 > 15
    assert sum(pauses) < 60


@pytest.mark.s3
def test_s3_that_never_answers_is_given_up(s3, faulty_s3: FaultyServer, quick_retries, monkeypatch) -> None:
    open_storage(s3.url).put("some/key", b"1")
    gzscale._remote_storage._client.cache_clear()  # the timeout is the client's
    monkeypatch.setattr("gzscale._remote_storage.READ_TIMEOUT", 1.0)
    monkeypatch.setattr("gzscale._remote_storage.ATTEMPTS", 3)
    store = open_storage(s3.url)
    try:
        faulty_s3.fail(Fault("stall", seconds=3))
        assert store.get("some/key") == b"1"
        faulty_s3.fail(*[Fault("stall", seconds=3)] * 3)
        with pytest.raises(StorageError, match=r"attempt 3 of 3.*run the same command again later") as caught:
            store.get("some/key")
    finally:
        gzscale._remote_storage._client.cache_clear()
    assert f"{s3.url}/some/key: ReadTimeoutError: " in str(caught.value)


@pytest.mark.s3
def test_a_refusal_is_not_asked_for_twice(s3, faulty_s3: FaultyServer) -> None:
    store = open_storage(s3.url)
    faulty_s3.fail(Fault("status", 403, DENIED))
    with pytest.raises(StorageError, match=r"AccessDenied.*AWS_ACCESS_KEY_ID"):
        store.put("k", b"1")
    assert len(faulty_s3.requests) == 1
    faulty_s3.fail()
    with pytest.raises(MissingError):
        store.get("never")
    assert len(faulty_s3.requests) == 1
    faulty_s3.fail()
    nowhere = open_storage("s3://gzscale-no-such-bucket/night")
    for act in (lambda: nowhere.put("k", b"1"), lambda: nowhere.get("k"), lambda: list(nowhere.list())):
        with pytest.raises(StorageError, match=r"NoSuchBucket.*make the bucket") as caught:
            act()
        assert not isinstance(caught.value, MissingError), "a wrong bucket is no empty output"
    assert len(faulty_s3.requests) == 3


@pytest.mark.s3
def test_no_server_at_all(s3, monkeypatch: pytest.MonkeyPatch, quick_retries) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("gzscale._remote_storage.ATTEMPTS", 2)
    with pytest.raises(StorageError, match=r"attempt 2 of 2.*out of reach"):
        open_storage(s3.url).get("k")


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["lost", "reset"])
def test_a_conditional_put_without_an_answer(s3, faulty_s3: FaultyServer, quick_retries, kind: str) -> None:
    store = open_storage(s3.url)
    faulty_s3.fail(Fault(kind, method="PUT"))
    assert store.put_new("lock", b"mine") is True
    seen = store.stat("lock")
    assert seen is not None
    faulty_s3.fail(Fault(kind, method="PUT"))
    assert store.replace("lock", b"mine again", seen.tag) is True
    assert store.get("lock") == b"mine again"
    # Lost answers to a put that another writer had been quicker than.
    faulty_s3.fail(Fault(kind, method="PUT"))
    assert store.put_new("lock", b"mine again") is False
    faulty_s3.fail(Fault(kind, method="PUT"))
    assert store.replace("lock", b"mine again", seen.tag) is False
    assert store.get("lock") == b"mine again"


@pytest.mark.s3
def test_a_large_upload_repeats_only_the_part_that_failed(
    s3, faulty_s3: FaultyServer, quick_retries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gzscale._uploads.PART_BYTES", 5 * 2**20)
    store = open_storage(s3.url)
    content = b"x" * (5 * 2**20 + 1)
    faulty_s3.fail(Fault("reset", path="partNumber=2"), Fault("lost", method="POST", path="uploadId="))
    store.put("k", content)
    assert store.get("k") == content
    puts = [path for method, path in faulty_s3.requests if method == "PUT"]
    assert len([path for path in puts if "partNumber=1" in path]) == 1
    assert len([path for path in puts if "partNumber=2" in path]) == 2


@pytest.mark.s3
def test_a_large_upload_that_fails_leaves_nothing(
    s3, faulty_s3: FaultyServer, quick_retries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gzscale._uploads.PART_BYTES", 5 * 2**20)
    store = open_storage(s3.url)
    faulty_s3.fail(*[Fault("status", 503, SLOW_DOWN, path="partNumber=2")] * ATTEMPTS)
    with pytest.raises(StorageError, match="SlowDown"):
        store.put("k", b"x" * (5 * 2**20 + 1))
    assert store.stat("k") is None
    assert store.clear_unfinished() == 0


TREE = {"a b/frame=1.fits": bytes(range(256)) * 40, "empty": b""}


@pytest.mark.parametrize("ranges", [True, False])
def test_http_ranges_are_right_whatever_the_server_knows(serve, ranges: bool) -> None:
    store = open_storage(serve(files(TREE, ranges)).url)
    key, content = next(iter(TREE.items()))
    assert store.get(key) == content
    for start, stop in [(0, 10), (100, 5000), (10_000, 99_999), (10_239, 10_240), (20_000, 30_000), (7, 7)]:
        assert store.get_range(key, start, stop) == content[start:stop]
    entry = store.stat(key)
    assert entry is not None
    assert entry.size == len(content)
    assert store.stat("empty").size == 0  # type: ignore[union-attr]


def test_http_that_sends_another_range_is_refused(serve) -> None:
    server = serve(lambda *_: (206, {"Content-Range": "bytes 0-3/100"}, b"0123"))
    with pytest.raises(StorageError, match="bytes from 50"):
        open_storage(server.url).get_range("k", 50, 54)


def test_http_missing_and_refused(serve) -> None:
    server = serve(files(TREE))
    store = open_storage(server.url)
    assert store.stat("none") is None
    with pytest.raises(MissingError, match=f"{server.url}/none"):
        store.get("none")
    assert len(server.requests) == 2
    server.fail(Fault("status", 403))
    with pytest.raises(StorageError, match="403"):
        store.get("empty")
    assert len(server.requests) == 1
    for act in (
        lambda: store.put("k", b""),
        lambda: store.put_new("k", b""),
        lambda: store.replace("k", b"", ""),
        lambda: store.delete("k"),
        lambda: store.delete_tree("k"),
        lambda: store.clear_unfinished(),
        lambda: store.put_file("k", Path(__file__)),
    ):
        with pytest.raises(StorageError, match="read only"):
            act()
    with pytest.raises(StorageError, match="cannot be listed"):
        list(store.list())


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.kind != "lost"], ids=_name)
def test_http_trouble_that_passes_is_outlasted(serve, quick_retries, fault: Fault) -> None:
    server = serve(files(TREE))
    store = open_storage(server.url)
    key, content = next(iter(TREE.items()))
    server.fail(fault, fault)
    assert store.get(key) == content
    assert len(server.requests) == 3
    server.fail(*[fault] * 100)
    with pytest.raises(StorageError, match=f"attempt {ATTEMPTS} of {ATTEMPTS}"):
        store.get(key)
    assert ATTEMPTS <= len(server.requests) <= (ATTEMPTS if fault.kind == "status" else 2 * ATTEMPTS)


@pytest.fixture
def small_disk(disk: Callable[[str], Path]) -> Path:
    """A disk of 256 KiB."""
    return disk("256k")


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    store = open_storage(small_disk / "night")
    store.put("old/k", b"old")
    source = tmp_path / "source"
    source.write_bytes(b"x" * 400_000)
    for act in (
        lambda: store.put("old/k", b"x" * 400_000),
        lambda: store.put_new("new/k", b"x" * 400_000),
        lambda: store.put_file("new/k", source),
    ):
        with pytest.raises(StorageError, match="the disk is full: free space") as caught:
            act()
        assert caught.value.errno == errno.ENOSPC
    assert store.get("old/k") == b"old"
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["k"], "no part is left"
    store.put("new/k", b"fits")


def test_a_read_only_disk(small_disk: Path) -> None:
    store = open_storage(small_disk)
    store.put("k", b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for act in (
        lambda: store.put("k", b"new"),
        lambda: store.put_new("deep/er/k", b"new"),
        lambda: store.replace("k", b"new", store.stat("k").tag),  # type: ignore[union-attr]
        lambda: store.delete("k"),
        lambda: store.delete_tree(""),
    ):
        with pytest.raises(StorageError, match="read only: choose another output") as caught:
            act()
        assert caught.value.errno == errno.EROFS
    assert store.get("k") == b"old"


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "night").write_text("I am a file")
    store = open_storage(tmp_path / "night")
    for act in (
        lambda: store.put("a/b", b"1"),
        lambda: store.put_new("a/b", b"1"),
        lambda: store.put_new("a", b"1"),
    ):
        with pytest.raises(StorageError, match="is a file, not a folder"):
            act()
    assert store.stat("a/b") is None
    (tmp_path / "folder" / "k").mkdir(parents=True)
    with pytest.raises(StorageError, match="a folder stands where a file should be: move it away") as caught:
        open_storage(tmp_path / "folder").put("k", b"1")
    assert str(tmp_path / "folder" / "k") in str(caught.value)


def test_a_file_may_be_no_larger_than_the_limit(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from gzscale.errors import StorageError
        from gzscale.storage import open_storage
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            open_storage(sys.argv[1]).put("k", b"x" * 5000)
        except StorageError as error:
            print(error.errno, error)
    """
    done = _python(script, str(tmp_path))
    assert done.stdout.startswith(f"{errno.EFBIG} {tmp_path}/k: "), done.stderr
    assert list(tmp_path.iterdir()) == []


def _python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("method", ["put", "put_new", "put_file", "replace"])
def test_killed_between_writing_and_renaming(tmp_path: Path, method: str) -> None:
    store = open_storage(tmp_path / "night")
    store.put("d/k", b"old")
    (tmp_path / "source").write_bytes(b"new")
    script = f"""
        import os, pathlib, signal, sys
        from gzscale.storage import open_storage
        store = open_storage(sys.argv[1])
        os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        if "{method}" == "put_file":
            store.put_file("d/k", pathlib.Path(sys.argv[2]))
        elif "{method}" == "replace":
            store.replace("d/k", b"new", store.stat("d/k").tag)
        else:
            store.{method}("d/k" if "{method}" == "put" else "d/fresh", b"new")
    """
    done = _python(script, str(tmp_path / "night"), str(tmp_path / "source"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert store.get("d/k") == b"old"
    assert [entry.key for entry in store.list()] == ["d/k"]
    assert len(list((tmp_path / "night" / "d").iterdir())) == 2, "the part that was being written"
    # Neither what is left nor the dead writer's lock is in anyone's way.
    assert store.replace("d/k", b"newer", store.stat("d/k").tag)  # type: ignore[union-attr]
    assert store.put_new("d/fresh", b"1")
    assert store.clear_unfinished() == 1
    assert sorted(path.name for path in (tmp_path / "night" / "d").iterdir()) == ["fresh", "k"]


@pytest.mark.parametrize("method", ["put", "put_new"])
def test_content_reaches_the_device_before_its_name_and_both_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    done: list[str] = []
    fsync, replace, link = os.fsync, os.replace, os.link

    def watch(descriptor: int) -> None:
        done.append(f"flush {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name[-5:]}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("name"), replace(*names)))
    monkeypatch.setattr(os, "link", lambda *names: (done.append("name"), link(*names)))
    (tmp_path / "root").mkdir()
    getattr(open_storage(tmp_path / "root"), method)("a/b/k", b"1")
    assert done == ["flush root", "flush a", "flush .part", "name", "flush b"]
