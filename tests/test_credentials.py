"""Credentials that S3 refuses, told from single objects that it denies."""

import errno
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import NoCredentialsError
from faults import DENIED, EXPIRED, Answer, Backend, Fault, FaultyServer

import gzscale._refusals
import gzscale._remote_storage
from gzscale.catalog import hats_tree
from gzscale.config import load_config
from gzscale.errors import CredentialsError, ImageError, MissingError, Reason, StorageError
from gzscale.night import completeness
from gzscale.storage import S3Storage, open_storage
from gzscale.surveys.fetch import Fetcher
from gzscale.surveys.footprints import read_footprints
from gzscale.surveys.rubin_tree import read_patches

UNKNOWN = EXPIRED.replace(b"ExpiredToken", b"InvalidAccessKeyId")
UNSIGNED = EXPIRED.replace(b"ExpiredToken", b"SignatureDoesNotMatch")
SKEWED = EXPIRED.replace(b"ExpiredToken", b"RequestTimeTooSkewed")

pytestmark = pytest.mark.s3

ASK: dict[str, Callable[[S3Storage], object]] = {
    "get": lambda store: store.get("k"),
    "range": lambda store: store.get_range("k", 0, 3),
    "stat": lambda store: store.stat("k"),  # HEAD: the answer has no body that says why
    "list": lambda store: list(store.list()),
    "put": lambda store: store.put("k", b"1"),
    "put new": lambda store: store.put_new("k", b"1"),
    "replace": lambda store: store.replace("k", b"1", "tag"),
    "delete": lambda store: store.delete("k"),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, EXPIRED, "have expired: renew them and run the same command.*start the workers anew"),
        (403, UNKNOWN, "knows no such credentials: check AWS_ACCESS_KEY_ID"),
        (403, UNSIGNED, "knows no such credentials"),
        (403, SKEWED, "synchronise this host's clock"),
    ],
    ids=["expired", "unknown", "unsigned", "skewed"],
)
def test_refused_credentials_are_no_object_s_trouble(s3, faulty_s3, monkeypatch, ask, status, body, told):
    monkeypatch.setattr("gzscale._remote_storage.LOOK_UP_PAUSE", 1e9)  # a client takes half a second
    monkeypatch.setattr("gzscale._remote_storage._forgot", 0.0)
    store = open_storage(s3.url)
    store.put("k", b"123")
    faulty_s3.fail(Fault("status", status, body, lasting=True))
    with pytest.raises(CredentialsError, match=told) as caught:
        ask(store)
    assert isinstance(caught.value, StorageError | PermissionError)
    assert not isinstance(caught.value, MissingError)
    assert len(faulty_s3.requests) <= 3


def test_no_credentials_at_all(s3, monkeypatch, tmp_path, quick_retries):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(
        CredentialsError, match=r"attempt 6 of 6.*no credentials were found: set AWS_ACCESS_KEY"
    ):
        open_storage(s3.url).put("k", b"1")


def test_a_service_of_credentials_that_is_busy_is_asked_again(s3, monkeypatch, quick_retries):
    store = open_storage(s3.url)
    store.put("k", b"1")
    made, whole = [], gzscale._remote_storage._client.__wrapped__

    class Busy:
        def cat_file(self, *arguments, **options):
            raise NoCredentialsError

    @functools.lru_cache
    def client(*arguments):
        made.append(arguments)
        return whole(*arguments) if len(made) > 4 else Busy()

    monkeypatch.setattr(gzscale._remote_storage, "_client", client)
    assert open_storage(s3.url).get("k") == b"1"
    assert len(made) == 5


# Renewed in a file ------------------------------------------------------------------------------


def knowing(backend: Backend, allowed: set[str]) -> Backend:
    """Refuse who signs with another key."""

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        signed = headers.get("Authorization", "")
        if any(f"Credential={key}/" in signed for key in allowed):
            return backend(method, path, headers, body)
        return 403, {"Content-Type": "application/xml"}, UNKNOWN

    return answer


def test_credentials_that_were_renewed_in_their_file_are_taken_up(s3, faulty_s3, monkeypatch, tmp_path):
    file = tmp_path / "credentials"

    def write(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setattr("gzscale._remote_storage._forgot", float("-inf"))
    allowed = {"OLD"}
    monkeypatch.setattr(faulty_s3, "backend", knowing(faulty_s3.backend, allowed))
    write("OLD")
    store = open_storage(s3.url)
    store.put("k", b"1")
    allowed.clear()
    allowed.add("NEW")
    write("NEW")
    assert store.get("k") == b"1"
    # Others of this process have the new client at once, and nobody looks again at every refusal.
    assert open_storage(s3.url).get("k") == b"1"
    allowed.clear()
    before = gzscale._remote_storage._client.cache_info().misses
    for _ in range(3):
        with pytest.raises(CredentialsError):
            store.get("k")
    assert gzscale._remote_storage._client.cache_info().misses == before


# Denied -----------------------------------------------------------------------------------------


def denying(backend: Backend, denied: Callable[[str, str], bool], hides_missing: bool = False) -> Backend:
    """Deny some requests, and those for missing keys as S3 does where the bucket may not be listed."""

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        refusal = 403, {"Content-Type": "application/xml"}, DENIED
        if denied(method, path):
            return refusal
        given = backend(method, path, headers, body)
        return refusal if hides_missing and given[0] == 404 else given

    return answer


@pytest.fixture
def files(s3, faulty_s3: FaultyServer) -> S3Storage:
    """Five objects that are there."""
    store = open_storage(f"{s3.url}/sky")
    for number in range(5):
        store.put(f"f{number}", b"SIMPLE  = " + b" " * number)
    return store


@pytest.fixture
def deny(faulty_s3: FaultyServer, monkeypatch):
    """Deny what a function of method and path says."""

    def begin(denied, **options) -> None:
        monkeypatch.setattr(faulty_s3, "backend", denying(faulty_s3.backend, denied, **options))

    return begin


def denied_of(store: S3Storage, key: str) -> StorageError:
    with pytest.raises(StorageError) as caught:
        store.get(key)
    assert caught.value.errno == errno.EACCES
    return caught.value


def test_an_object_that_alone_is_denied_is_its_own_trouble(files, deny):
    deny(lambda method, path: "/f3" in path)
    assert not isinstance(denied_of(files, "f3"), CredentialsError), "the first that is asked for"
    files.get("f1")
    for _ in range(3):
        assert not isinstance(denied_of(files, "f3"), CredentialsError)
    with pytest.raises(StorageError) as caught:
        files.stat("f3")
    assert not isinstance(caught.value, CredentialsError)


def test_once_all_is_denied_it_is_the_credentials(files, deny):
    closed = []
    deny(lambda method, path: bool(closed))
    for number in range(4):
        files.get(f"f{number}")
    closed.append(True)
    error = denied_of(files, "f4")
    assert isinstance(error, CredentialsError)
    assert "so is f3 by now, which was read before" in str(error)
    with pytest.raises(CredentialsError):
        open_storage(files.root).stat("f4")
    closed.clear()
    assert files.get("f4")


def test_an_object_that_was_removed_since_it_was_read_is_no_witness(files, deny):
    gone = []
    deny(lambda method, path: "/f4" in path or (bool(gone) and "/f1" in path))
    files.get("f0")
    files.get("f1")
    gone.append(True)
    assert not isinstance(denied_of(files, "f4"), CredentialsError)


def test_who_never_read_anything_takes_many_denials_for_refused_credentials(files, deny, monkeypatch):
    monkeypatch.setattr(gzscale._refusals, "MOST_DENIED", 4)
    deny(lambda method, path: True)
    errors = [denied_of(files, f"f{number}") for number in (0, 1, 1, 2, 3)]
    assert [isinstance(error, CredentialsError) for error in errors] == [False] * 4 + [True]
    assert "all of the first 4 names" in str(errors[-1])
    assert "allow s3:ListBucket" in str(errors[-1])


def test_who_may_not_write_may_not_write_anything(files, deny):
    deny(lambda method, path: method != "GET")
    assert files.get("f0")
    for ask in (ASK["put"], ASK["put new"], ASK["replace"], ASK["delete"]):
        with pytest.raises(CredentialsError, match="AccessDenied"):
            ask(files)


def test_missing_files_of_a_bucket_that_may_not_be_listed(s3, files, deny, tmp_path: Path):
    deny(lambda method, path: "list-type" in path, hides_missing=True)
    fetcher = Fetcher(files.root, str(tmp_path), 10**9, 2)
    # The first name is denied since it is not there.
    assert fetcher.read(("f2.bz2", "f2")) == ("f2", b"SIMPLE  =   ")
    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            fetcher.read(("f9.bz2", "f9"))
        assert caught.value.reason is Reason.UNREACHABLE_IMAGE
        assert "f9.bz2: HTTP 403 AccessDenied" in str(caught.value)
    assert fetcher.read(("f4",))[0] == "f4"


def test_files_that_lie_under_their_second_names_show_that_the_credentials_are_known(
    files, deny, monkeypatch, tmp_path
):
    monkeypatch.setattr(gzscale._refusals, "MOST_DENIED", 2)
    deny(lambda method, path: "list-type" in path, hides_missing=True)
    fetcher = Fetcher(files.root, str(tmp_path), 10**9, 2)
    # A survey is looked over by the states of its images: none is read.
    for _ in range(2):
        for number in range(5):
            assert fetcher.stat((f"f{number}.bz2", f"f{number}")).key == f"f{number}"
    with pytest.raises(ImageError, match=r"f9\.bz2: HTTP 403"):
        fetcher.stat(("f9.bz2", "f9"))


def test_a_denied_image_counts_once_whatever_names_it_may_have(files, deny, monkeypatch, tmp_path):
    monkeypatch.setattr(gzscale._refusals, "MOST_DENIED", 3)
    deny(lambda method, path: True)
    fetcher = Fetcher(files.root, str(tmp_path), 10**9, 2)
    for number in range(2):
        with pytest.raises(ImageError):
            fetcher.stat((f"f{number}.bz2", f"f{number}"))
    with pytest.raises(CredentialsError, match="all of the first 3 names"):
        fetcher.stat(("f2.bz2", "f2"))


@pytest.mark.parametrize("after", ["stat", "fetch"])
def test_refused_credentials_end_a_fetch_and_are_not_an_image_s(files, faulty_s3, tmp_path: Path, after):
    fetcher = Fetcher(files.root, str(tmp_path), 10**9, 2)
    path = "/sky/f" if after == "stat" else ""
    faulty_s3.fail(
        Fault("status", 400, EXPIRED, method="GET" if after == "fetch" else "", path=path, lasting=True)
    )
    with pytest.raises(CredentialsError, match="expired"):
        fetcher.read(("f0",))


READ: dict[str, Callable[[str], object]] = {
    "configuration": lambda url: load_config(f"{url}/night.yaml"),
    "footprints": lambda url: read_footprints(f"{url}/index.parquet"),
    "patches": lambda url: read_patches(f"{url}/patches.parquet"),
    "catalog": lambda url: hats_tree._answered(lambda: open_storage(url).stat("k")),
    "review list": lambda url: completeness._finder(
        open_storage(url), SimpleNamespace(release="r1"), SimpleNamespace(tasks=["lenses"]), "lenses"
    ),
}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_refused_credentials_are_not_told_as_a_file_that_cannot_be_read(s3, faulty_s3, read):
    faulty_s3.fail(Fault("status", 403, UNKNOWN, lasting=True))
    with pytest.raises(CredentialsError, match="knows no such credentials"):
        read(s3.url)
