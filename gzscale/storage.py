"""The only module that touches fsspec and s3fs: atomic puts, checksums, listing.

A location is a local path, a ``file://`` URL, an ``s3://bucket/prefix`` URL or,
for reading, an ``http(s)://`` URL. Credentials and endpoints come from the
environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID`` ...), never from a URL.

Every request to a remote store is retried a bounded number of times with full
jitter [1]_ when the failure can pass (timeouts, lost connections, cut bodies, 408,
409, 429, 500, 502, 503, 504). Neither botocore nor s3fs retries below: they would
multiply the attempts. (aiohttp repeats a request once where a connection that it
had kept open turns out to be dead.)

References
----------
.. [1] M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import fsspec.asyn

from gzscale._failures import describe, is_missing, passes, remedy, status_of
from gzscale._local_storage import Entry, LocalStorage, Storage, require_file
from gzscale._uploads import parts_of, put_parts
from gzscale._web import Download, request
from gzscale.errors import MissingError, StorageError

__all__ = [
    "Entry",
    "HttpStorage",
    "LocalStorage",
    "RemoteStorage",
    "S3Storage",
    "Storage",
    "open_storage",
    "sha256_hex",
]

_T = TypeVar("_T")

#: Attempts of a remote call, the first one included.
ATTEMPTS = 6
#: Longest pause before the first retry [s]; doubled for each further one.
FIRST_PAUSE = 0.25
#: Longest wait for a connection, and for the next bytes of an answer [s].
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60
#: Bytes of a file that are read at one time.
FILE_PIECE = 2**20


def sha256_hex(data: bytes | memoryview) -> str:
    """Return the SHA-256 of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def open_storage(location: str | os.PathLike[str]) -> Storage:
    """Open the storage at a path or URL; nothing is created before the first write.

    Parameters
    ----------
    location
        Local path, ``file://``, ``s3://`` or (read only) ``http(s)://`` URL.

    Raises
    ------
    StorageError
        If the URL's protocol is not one of these, or an S3 URL names no bucket.
    """
    text = os.fspath(location)
    protocol = text.split("://", 1)[0] if "://" in text else "file"
    if protocol == "file":
        return LocalStorage(text.removeprefix("file://"))
    if protocol == "s3":
        return S3Storage(text)
    if protocol in {"http", "https"}:
        return HttpStorage(text)
    raise StorageError(f"{text!r}: protocol {protocol!r} is not one of file, s3, http, https")


class RemoteStorage(Storage):
    """What is common to the stores behind a network; crosses processes by pickle and by fork."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._client: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    @property
    def _fs(self) -> Any:
        """The file system of this process: a forked child must not use its parent's sockets."""
        if self._client is None or self._client[0] != os.getpid():
            environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
            with _clients_lock:
                self._client = (os.getpid(), _client(self.root.partition(":")[0], os.getpid(), environment))
        return self._client[1]

    def _retry(self, key: str, call: Callable[[], _T]) -> _T:
        """Call until it succeeds, fails for good, or `ATTEMPTS` are used up."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except StorageError:
                raise
            except Exception as error:
                if is_missing(error):
                    raise MissingError(f"{self.url(key)}: nothing is stored there") from error
                if not passes(error) or attempt == ATTEMPTS:
                    tried = f"attempt {attempt} of {ATTEMPTS}"
                    raise StorageError(
                        f"{self.url(key)}: {describe(error)} ({tried}); {remedy(error)}"
                    ) from error
            time.sleep(random.uniform(0, FIRST_PAUSE * 2 ** (attempt - 1)))
        raise AssertionError("unreachable")


class S3Storage(RemoteStorage):
    """A prefix of an S3 bucket. An object is put wholly or not at all by S3 itself."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._bucket, _, prefix = root.removeprefix("s3://").rstrip("/").partition("/")
        if not self._bucket:
            raise StorageError(f"{root!r}: names no bucket; expected s3://bucket/prefix")
        self._prefix = f"{prefix}/" if prefix else ""

    def _call(self, key: str, method: str, **options: Any) -> Any:
        return self._retry(key, lambda: self._fs.call_s3(method, Bucket=self._bucket, **options))

    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``, in one request."""
        path = f"{self._bucket}/{self._prefix}{key}"
        return bytes(self._retry(key, lambda: self._fs.cat_file(path, max_concurrency=1)))

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop`` with a range request."""
        path = f"{self._bucket}/{self._prefix}{key}"

        def read() -> bytes:
            try:
                return bytes(self._fs.cat_file(path, start=start, end=stop))
            except OSError as error:
                if status_of(error) == 416:  # it ends before `start`
                    return b""
                raise

        return self._retry(key, read) if stop > start else b""

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Put one object, in parts where it is large."""
        self._upload(key, parts_of([memoryview(data).cast("B")]))

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """Put pieces as one object, in parts where it is large; two parts are in memory at most."""
        self._upload(key, parts_of(pieces))

    def put_file(self, key: str, path: Path) -> None:
        """Put a file, in parts where it is large; two parts are in memory at most."""
        require_file(path)
        with open(path, "rb") as file:
            self._upload(key, parts_of(iter(lambda: file.read(FILE_PIECE), b"")))

    def _upload(self, key: str, parts: Iterator[bytes | bytearray]) -> None:
        put_parts(
            functools.partial(self._call, key),
            self._prefix + key,
            parts,
            functools.partial(self._was_written_by, key),
        )

    def put_new(self, key: str, data: bytes) -> bool:
        """Put one object with ``If-None-Match: *``."""
        return self._put_if(key, data, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Put one object with ``If-Match``; the ETag stands bare, since Ceph refuses it in quotes."""
        try:
            return self._put_if(key, data, IfMatch=tag)
        except MissingError:
            return False

    def _put_if(self, key: str, data: bytes, **condition: str) -> bool:
        # Signed, since the answer to a put that succeeded can be lost: whoever repeats the
        # request (we do, and aiohttp does where a kept connection had died) is then refused.
        writer = uuid.uuid4().hex
        signed = {"Key": self._prefix + key, "Body": data, "Metadata": {"writer": writer}}

        def put() -> bool:
            try:
                self._fs.call_s3("put_object", Bucket=self._bucket, **signed, **condition)
            except Exception as error:
                if status_of(error) == 412 or isinstance(error, FileExistsError):
                    return False
                raise
            return True

        return self._retry(key, put) or self._was_written_by(key, writer)

    def _was_written_by(self, key: str, writer: str) -> bool:
        try:
            head = self._call(key, "head_object", Key=self._prefix + key)
        except MissingError:
            return False
        return bool(head.get("Metadata", {}).get("writer") == writer)

    def stat(self, key: str) -> Entry | None:
        """Ask for the object's size and ETag, or None where there is none."""
        try:
            head = self._call(key, "head_object", Key=self._prefix + key)
        except MissingError:
            return None
        return Entry(key, int(head["ContentLength"]), str(head["ETag"]).strip('"'))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects below a prefix, a thousand at a time; S3 gives them in order."""
        folder = self._prefix + (prefix.strip("/") + "/" if prefix.strip("/") else "")
        found = False
        for item in self._pages("list_objects_v2", "Contents", prefix, folder):
            found = True
            if not item["Key"].endswith("/"):  # a folder that some other tool has marked
                yield Entry(item["Key"][len(self._prefix) :], int(item["Size"]), item["ETag"].strip('"'))
        entry = self.stat(prefix) if prefix and not found else None
        if entry is not None:
            yield entry

    def _pages(self, method: str, part: str, key: str, folder: str) -> Iterator[dict[str, Any]]:
        onward: dict[str, Any] = {}
        while True:
            page = self._call(key, method, Prefix=folder, **onward)
            yield from page.get(part, [])
            if not page.get("IsTruncated"):
                return
            if part == "Contents":
                onward = {"ContinuationToken": page["NextContinuationToken"]}
            else:
                onward = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def delete(self, key: str) -> None:
        """Remove one object."""
        try:
            self._call(key, "delete_object", Key=self._prefix + key)
        except MissingError:
            return

    def delete_tree(self, prefix: str) -> None:
        """Remove a prefix, a thousand objects a request."""
        keys = [{"Key": self._prefix + entry.key} for entry in self.list(prefix)]
        for start in range(0, len(keys), 1000):
            chosen = {"Objects": keys[start : start + 1000], "Quiet": True}
            refused = self._call(prefix, "delete_objects", Delete=chosen).get("Errors")
            if refused:
                raise StorageError(
                    f"s3://{self._bucket}/{refused[0]['Key']}: {refused[0].get('Code')}, "
                    f"{len(refused)} objects could not be removed; allow s3:DeleteObject, then run again"
                )

    def clear_unfinished(self, prefix: str = "") -> int:
        """Abort the uploads in parts that killed writers left."""
        folder = self._prefix + (prefix.strip("/") + "/" if prefix.strip("/") else "")
        left = [*self._pages("list_multipart_uploads", "Uploads", prefix, folder)]
        for upload in left:
            self._call(prefix, "abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
        return len(left)


class HttpStorage(RemoteStorage):
    """A tree on a web server, read only."""

    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``."""
        return self._retry(key, lambda: self._request("GET", key)[1])

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop``, also from a server that knows no ranges."""
        if stop <= start:
            return b""
        return self._retry(key, lambda: self._request("GET", key, (start, stop))[1])

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield the bytes stored under ``key`` as they come, about 1 MiB at a time."""
        with contextlib.closing(Download(self._fs, self.url(key))) as download:
            while piece := self._retry(key, lambda: fsspec.asyn.sync(self._fs.loop, download.piece)):
                yield piece

    def stat(self, key: str) -> Entry | None:
        """Ask for size and ETag (or date) with ``HEAD``, or None where there is nothing."""
        try:
            headers = self._retry(key, lambda: self._request("HEAD", key)[0])
        except MissingError:
            return None
        size = -1 if "Content-Encoding" in headers else int(headers.get("Content-Length", -1))
        tag = headers.get("ETag") or headers.get("Last-Modified") or str(size)
        return Entry(key, size, tag.removeprefix("W/").strip('"'))

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Refuse."""
        raise self._read_only(key)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """Refuse."""
        raise self._read_only(key)

    def put_new(self, key: str, data: bytes) -> bool:
        """Refuse."""
        raise self._read_only(key)

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Refuse."""
        raise self._read_only(key)

    def put_file(self, key: str, path: Path) -> None:
        """Refuse."""
        raise self._read_only(key)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Refuse."""
        raise StorageError(f"{self.url(prefix)}: an HTTP tree cannot be listed; give the files' names")

    def delete(self, key: str) -> None:
        """Refuse."""
        raise self._read_only(key)

    def delete_tree(self, prefix: str) -> None:
        """Refuse."""
        raise self._read_only(prefix)

    def clear_unfinished(self, prefix: str = "") -> int:
        """Refuse."""
        raise self._read_only(prefix)

    def _read_only(self, key: str) -> StorageError:
        return StorageError(f"{self.url(key)}: an HTTP tree is read only; write to a folder or to s3://")

    def _request(self, method: str, key: str, span: tuple[int, int] | None = None) -> tuple[Any, bytes]:
        return fsspec.asyn.sync(self._fs.loop, request, self._fs, method, self.url(key), span)


_clients_lock = threading.Lock()


@functools.lru_cache(maxsize=8)
def _client(protocol: str, process: int, environment: tuple[tuple[str, str], ...]) -> Any:
    """Make the one client of a process for a protocol, an endpoint and its credentials."""
    if protocol != "s3":
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
        return fsspec.filesystem(
            "http", skip_instance_cache=True, client_kwargs={"timeout": timeout, "trust_env": True}
        )
    fs = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "max_pool_connections": 32,
        },
    )
    fs.retries = 1
    return fs
