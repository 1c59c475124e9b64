"""Where everything is stored: atomic puts, checksums, listing. It and `_remote_storage` alone know fsspec.

A location is a local path, a ``file://`` URL, an ``s3://bucket/prefix`` URL or,
for reading, an ``http(s)://`` URL. Credentials and endpoints come from the
environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID`` ...), never from a URL.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gzscale._failures import is_denied, refuses_credentials, status_of
from gzscale._local_storage import Entry, LocalStorage, Storage, require_file
from gzscale._refusals import witnesses_of
from gzscale._remote_storage import HttpStorage, RemoteStorage
from gzscale._uploads import parts_of, put_parts
from gzscale.errors import CredentialsError, MissingError, StorageError

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


class S3Storage(RemoteStorage):
    """A prefix of an S3 bucket. An object is put wholly or not at all by S3 itself."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._bucket, _, prefix = root.removeprefix("s3://").rstrip("/").partition("/")
        if not self._bucket:
            raise StorageError(f"{root!r}: names no bucket; expected s3://bucket/prefix")
        self._prefix = f"{prefix}/" if prefix else ""

    def _call(self, key: str, method: str, **options: Any) -> Any:
        def ask() -> Any:
            return self._fs.call_s3(method, Bucket=self._bucket, **options)

        return self._retry(key, ask) if method.startswith("list_") else self._change(key, ask)

    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``, in one request."""
        data = self._retry(key, lambda: bytes(self._fs.cat_file(self._path(key), max_concurrency=1)))
        witnesses_of(self.root).note(key)
        return data

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop`` with a range request."""
        if stop <= start:
            return b""
        data = self._retry(key, lambda: self._range(key, start, stop))
        witnesses_of(self.root).note(key)
        return data

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{key}"

    def _range(self, key: str, start: int, stop: int) -> bytes:
        try:
            return bytes(self._fs.cat_file(self._path(key), start=start, end=stop))
        except OSError as error:
            if status_of(error) == 416:  # it ends before `start`
                return b""
            raise

    def _failure(self, key: str, error: Exception, tried: str) -> StorageError:
        """See `RemoteStorage`; a denied object may be the first of all."""
        failure = super()._failure(key, error, tried)
        if failure.errno != errno.EACCES or isinstance(failure, CredentialsError):
            return failure
        more = witnesses_of(self.root).contradict(key, self._denies)
        return CredentialsError(f"{failure}; {more}") if more else failure

    def _denies(self, key: str) -> bool:
        try:
            self._range(key, 0, 1)
        except Exception as error:
            return is_denied(error) or refuses_credentials(error)
        return False

    def _change(self, key: str, ask: Callable[[], _T]) -> _T:
        """Ask for a change: who may not store one object may store none, and the night cannot go on."""
        try:
            return self._retry(key, ask)
        except CredentialsError:
            raise
        except StorageError as error:
            if error.errno == errno.EACCES:
                raise CredentialsError(str(error)) from error
            raise

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

        return self._change(key, put) or self._was_written_by(key, writer)

    def _was_written_by(self, key: str, writer: str) -> bool:
        try:
            head = self._retry(key, lambda: self._head(key))
        except MissingError:
            return False
        return bool(head.get("Metadata", {}).get("writer") == writer)

    def _head(self, key: str) -> Any:
        try:
            return self._fs.call_s3("head_object", Bucket=self._bucket, Key=self._prefix + key)
        except Exception as error:
            # The answer has no body, so that what is refused, and why, is asked for again in another way.
            if status_of(error) in {400, 401, 403}:
                self._range(key, 0, 1)
            raise

    def stat(self, key: str) -> Entry | None:
        """Ask for the object's size and ETag, or None where there is none."""
        try:
            head = self._retry(key, lambda: self._head(key))
        except MissingError:
            return None
        witnesses_of(self.root).note(key)
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
