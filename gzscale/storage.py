"""The only module that touches fsspec and s3fs: atomic puts, checksums, listing.

A location is a local path, a ``file://`` URL, an ``s3://bucket/prefix`` URL or,
for reading, an ``http(s)://`` URL. Credentials and endpoints come from the
environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID`` ...), never from a URL.

Every call on a remote store is retried a bounded number of times with full
jitter [1]_ when the failure can pass (timeouts, 429, 500, 502, 503, 504).

References
----------
.. [1] M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from gzscale.errors import MissingError, StorageError

__all__ = ["Entry", "Storage", "open_storage", "sha256_hex"]

_T = TypeVar("_T")

#: Attempts of a remote call, the first one included.
ATTEMPTS = 6
#: Longest pause before the first retry [s]; doubled for each further one.
FIRST_PAUSE = 0.25
#: HTTP statuses that pass: throttled, or a server's own trouble.
PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_WORDS = ("slowdown", "timeout", "timed out", "temporarily", "connection", "reset", "disconnected")


def sha256_hex(data: bytes | memoryview) -> str:
    """Return the SHA-256 of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored file.

    Attributes
    ----------
    key
        Name relative to the storage's root, with ``/`` between its parts.
    size
        Length in bytes, or -1 where the store does not say.
    tag
        What changes when the content does, as cheaply as the store can tell:
        the ETag, or size and modification time.
    """

    key: str
    size: int
    tag: str


def open_storage(location: str | os.PathLike[str]) -> Storage:
    """Open the storage at a path or URL; nothing is created before the first write.

    Parameters
    ----------
    location
        Local path, ``file://``, ``s3://`` or (read only) ``http(s)://`` URL.

    Raises
    ------
    StorageError
        If the URL's protocol is not one of these.
    """
    text = os.fspath(location)
    protocol = text.split("://", 1)[0] if "://" in text else "file"
    if protocol == "file":
        return LocalStorage(text.removeprefix("file://"))
    if protocol in {"s3", "http", "https"}:
        return RemoteStorage(text, protocol)
    raise StorageError(f"{text!r}: protocol {protocol!r} is not one of file, s3, http, https")


class Storage:
    """Named byte strings below one root. See `open_storage`."""

    root: str

    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``; MissingError where there are none."""
        raise NotImplementedError

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` (included) to ``stop`` (excluded)."""
        raise NotImplementedError

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Store ``data`` under ``key``: wholly, or not at all."""
        raise NotImplementedError

    def put_new(self, key: str, data: bytes) -> bool:
        """Store ``data`` only where nothing is stored yet; say whether it was stored."""
        raise NotImplementedError

    def put_file(self, key: str, path: Path) -> None:
        """Store a local file's bytes under ``key``: wholly, or not at all."""
        raise NotImplementedError

    def stat(self, key: str) -> Entry | None:
        """Return what is stored under ``key``, or None."""
        raise NotImplementedError

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every file below ``prefix``, at any depth, sorted by key."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Remove one file; it is no error if there is none."""
        raise NotImplementedError

    def delete_tree(self, prefix: str) -> None:
        """Remove every file below ``prefix``."""
        for entry in list(self.list(prefix)):
            self.delete(entry.key)

    def url(self, key: str = "") -> str:
        """Return the full name of ``key``, as a person would type it."""
        return f"{self.root.rstrip('/')}/{key}" if key else self.root


class LocalStorage(Storage):
    """A folder. Atomic by writing beside the target and renaming."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))

    def _path(self, key: str) -> Path:
        return Path(self.root, key) if key else Path(self.root)

    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError as error:
            raise MissingError(f"{self.url(key)}: no such file") from error
        except OSError as error:
            raise _local_error(self.url(key), error) from error

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop``."""
        try:
            with open(self._path(key), "rb") as file:
                file.seek(start)
                return file.read(stop - start)
        except FileNotFoundError as error:
            raise MissingError(f"{self.url(key)}: no such file") from error
        except OSError as error:
            raise _local_error(self.url(key), error) from error

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Write beside the target, then rename over it."""

        def write(part: Path) -> None:
            part.write_bytes(data)

        self._put_by(key, write, os.replace)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write beside the target, then hard-link it: the link fails if there is one."""

        def write(part: Path) -> None:
            part.write_bytes(data)

        try:
            self._put_by(key, write, os.link)
        except FileExistsError:
            return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        """Copy beside the target, then rename over it."""
        import shutil

        def write(part: Path) -> None:
            shutil.copyfile(path, part)

        self._put_by(key, write, os.replace)

    def _put_by(self, key: str, write: Callable[[Path], None], settle: Callable[[Path, Path], None]) -> None:
        target = self._path(key)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(part)
            settle(part, target)
        except FileExistsError:
            raise
        except OSError as error:
            raise _local_error(self.url(key), error) from error
        finally:
            part.unlink(missing_ok=True)

    def stat(self, key: str) -> Entry | None:
        """Return size and modification time, or None."""
        try:
            status = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _local_error(self.url(key), error) from error
        return Entry(key, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Walk the folder in sorted order, passing over files that are being written."""
        top = self._path(prefix)
        if top.is_file():
            entry = self.stat(prefix)
            if entry:
                yield entry
            return
        for folder, folders, files in os.walk(top):
            folders.sort()
            for name in sorted(files):
                if name.startswith(".") and name.endswith(".part"):
                    continue
                key = Path(folder, name).relative_to(self.root).as_posix()
                entry = self.stat(key)
                if entry:
                    yield entry

    def delete(self, key: str) -> None:
        """Remove one file."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _local_error(self.url(key), error) from error

    def delete_tree(self, prefix: str) -> None:
        """Remove a folder and all that is in it."""
        import shutil

        shutil.rmtree(self._path(prefix), ignore_errors=True)


class RemoteStorage(Storage):
    """An S3 bucket's prefix or an HTTP(S) tree, through fsspec. An object put is atomic by itself."""

    def __init__(self, root: str, protocol: str) -> None:
        self.root = root.rstrip("/")
        self._protocol = protocol
        self._filesystem: Any = None

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root, "_protocol": self._protocol}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["root"], state["_protocol"])  # type: ignore[misc]

    @property
    def _fs(self) -> Any:
        if self._filesystem is None:
            options: dict[str, Any] = {"use_listings_cache": False}
            if self._protocol == "s3":
                # Our own retries count and pause; botocore's would multiply with them.
                options |= {
                    "default_cache_type": "none",
                    "config_kwargs": {
                        "retries": {"max_attempts": 1, "mode": "standard"},
                        "connect_timeout": 10,
                        "read_timeout": 60,
                        "max_pool_connections": 32,
                    },
                }
            self._filesystem = fsspec.filesystem(self._protocol, **options)
        return self._filesystem

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``."""
        return bytes(self._retry(key, lambda: self._fs.cat_file(self._path(key))))

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop`` with a range request."""
        return bytes(self._retry(key, lambda: self._fs.cat_file(self._path(key), start=start, end=stop)))

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Put one object."""
        body = bytes(data)
        self._retry(key, lambda: self._fs.pipe_file(self._path(key), body))

    def put_new(self, key: str, data: bytes) -> bool:
        """Put one object with ``If-None-Match: *``."""
        bucket, name = self._bucket_and_name(key)

        def conditional_put() -> bool:
            try:
                self._fs.call_s3("put_object", Bucket=bucket, Key=name, Body=data, IfNoneMatch="*")
            except FileExistsError:
                return False
            except Exception as error:
                if _status(error) in {409, 412}:
                    return False
                raise
            return True

        stored = self._retry(key, conditional_put)
        # A put that was answered with an error may have been stored all the same.
        return bool(stored) or self.get(key) == data

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file, in parts where it is large."""
        self._retry(key, lambda: self._fs.put_file(str(path), self._path(key)))

    def stat(self, key: str) -> Entry | None:
        """Ask for the object's size and ETag, or None where there is none."""
        try:
            info = self._retry(key, lambda: self._fs.info(self._path(key)))
        except MissingError:
            return None
        if info.get("type") == "directory":
            return None
        return _entry(key, info)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects below a prefix."""
        if self._protocol != "s3":
            raise StorageError(f"{self.url(prefix)}: an HTTP tree cannot be listed")
        try:
            found = self._retry(prefix, lambda: self._fs.find(self._path(prefix), detail=True))
        except MissingError:
            return
        cut = len(self.root.removeprefix("s3://")) + 1
        for name in sorted(found):
            yield _entry(name[cut:], found[name])

    def delete(self, key: str) -> None:
        """Remove one object."""
        try:
            self._retry(key, lambda: self._fs.rm_file(self._path(key)))
        except MissingError:
            return

    def delete_tree(self, prefix: str) -> None:
        """Remove a prefix, a thousand objects a request."""
        keys = [self._path(entry.key) for entry in self.list(prefix)]
        if keys:
            self._retry(prefix, lambda: self._fs.rm(keys))

    def _bucket_and_name(self, key: str) -> tuple[str, str]:
        if self._protocol != "s3":
            raise StorageError(f"{self.url(key)}: an HTTP tree is read only")
        bucket, _, name = self._path(key).removeprefix("s3://").partition("/")
        return bucket, name

    def _retry(self, key: str, call: Callable[[], _T]) -> _T:
        """Call until it succeeds, fails for good, or `ATTEMPTS` are used up."""
        for attempt in range(ATTEMPTS):
            try:
                return call()
            except FileNotFoundError as error:
                raise MissingError(f"{self.url(key)}: nothing is stored there") from error
            except StorageError:
                raise
            except Exception as error:
                if _status(error) == 404:
                    raise MissingError(f"{self.url(key)}: nothing is stored there") from error
                if not _passes(error) or attempt == ATTEMPTS - 1:
                    raise StorageError(
                        f"{self.url(key)}: {type(error).__name__}: {error} "
                        f"(attempt {attempt + 1} of {ATTEMPTS}); see `gzscale doctor` for the endpoint "
                        "and the credentials in use"
                    ) from error
                time.sleep(random.uniform(0, FIRST_PAUSE * 2**attempt))
        raise AssertionError("unreachable")


def _entry(key: str, info: dict[str, Any]) -> Entry:
    size = info.get("size")
    tag = str(info.get("ETag") or info.get("LastModified") or size)
    return Entry(key, -1 if size is None else int(size), tag.strip('"'))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _status(error: BaseException) -> int | None:
    """Find the HTTP status behind an error of aiohttp, botocore or s3fs."""
    for link in _chain(error):
        status = getattr(link, "status", None)
        if isinstance(status, int):
            return status
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(found, int):
                return found
    return None


def _passes(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in PASSING_STATUS
    for link in _chain(error):
        if isinstance(link, PermissionError | FileExistsError):
            return False
        if isinstance(link, TimeoutError | ConnectionError):
            return True
        if isinstance(link, OSError) and link.errno in {errno.EBUSY, errno.EAGAIN, errno.EIO}:
            return True
        if any(word in f"{type(link).__name__} {link}".lower() for word in _PASSING_WORDS):
            return True
    return False


def _local_error(name: str, error: OSError) -> StorageError:
    remedy = {
        errno.ENOSPC: "the disk is full: free space, then run the same command again",
        errno.EDQUOT: "the disk quota is used up: free space, then run the same command again",
        errno.EACCES: "permission denied: choose another output, or change the folder's mode",
        errno.EROFS: "the file system is read only: choose another output",
        errno.ENOTDIR: "a part of the path is a file, not a folder",
    }.get(error.errno or 0, "")
    return StorageError(f"{name}: {error.strerror or error}" + (f"; {remedy}" if remedy else ""))
