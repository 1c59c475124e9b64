"""The files of an input catalog: found, named, opened, fetched where a format must seek."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

from gzscale.errors import CatalogError, MissingError, StorageError
from gzscale.storage import Entry, HttpStorage, LocalStorage, Storage, open_storage

__all__ = [
    "MAX_UNPACKED_BYTES",
    "RangeFile",
    "Source",
    "SourceFile",
    "files_identity",
    "find_files",
    "find_folder",
    "is_html",
]

#: A gzip file is unpacked, and a file of unknown size fetched, up to this length; a longer one may be a bomb.
MAX_UNPACKED_BYTES = 64 << 30
#: Bytes of one request when a file is fetched.
FETCH_BYTES = 16 << 20
_REMEDY = (
    "name the table, a file, a folder or a URL, by --set catalog.path=... or, in the environment of the run, "
    "by GZSCALE_CATALOG__PATH"
)


class Source(Protocol):
    """A table of any format, as the reader sees it.

    Attributes
    ----------
    names
        Column names in the table's order.
    units
        Unit of each column that states one, as it is written in the file.
    row_count
        Number of rows where the format states it cheaply.
    """

    names: Sequence[str]
    units: dict[str, str]
    row_count: int | None

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the named columns in file order, about ``rows`` rows at a time."""
        ...


class RangeFile(io.RawIOBase):
    """A stored file that is read by ranges: nothing is fetched but what is asked for."""

    def __init__(self, storage: Storage, entry: Entry) -> None:
        self._storage = storage
        self._entry = entry
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to ``offset`` from the start, the position or the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` with one range request."""
        stop = min(self._position + len(buffer), self._entry.size)
        if stop <= self._position:
            return 0
        data = self._storage.get_range(self._entry.key, self._position, stop)
        if len(data) != stop - self._position:
            raise _other_length(self._storage.url(self._entry.key), self._position, stop, len(data))
        buffer[: len(data)] = data
        self._position = stop
        return len(data)


@dataclass(frozen=True)
class SourceFile:
    """One file of the catalog.

    Attributes
    ----------
    storage
        Where it is stored.
    entry
        Its key, size and tag there.
    scratch
        Folder for files that must be fetched or unpacked; made when it is needed.
    """

    storage: Storage
    entry: Entry
    scratch: Path

    @property
    def name(self) -> str:
        """The file's own name, without folders or a query string."""
        return self.entry.key.rpartition("/")[2].partition("?")[0]

    @property
    def url(self) -> str:
        """The full name, for messages."""
        return self.storage.url(self.entry.key)

    @property
    def gzipped(self) -> bool:
        """Whether the name says that the content is compressed with gzip."""
        return self.name.lower().endswith(".gz")

    @property
    def ranged(self) -> bool:
        """Whether a part of it can be read without fetching the rest."""
        return isinstance(self.storage, LocalStorage) or self.storage.root.startswith("s3://")

    def head(self, length: int) -> bytes:
        """Return the first bytes as they are stored."""
        with self.open() as file:
            return file.read(length)

    def open(self) -> BinaryIO:
        """Open for reading and seeking: a local file, ranges on S3, a fetched copy of an HTTP file."""
        if isinstance(self.storage, LocalStorage):
            return _open_local(Path(self.url))
        if self.ranged:
            return RangeFile(self.storage, self.entry)  # type: ignore[return-value]
        return _open_local(self.fetched())

    def fetched(self) -> Path:
        """Return a local path with the stored bytes; a remote file is fetched once."""
        if isinstance(self.storage, LocalStorage):
            return Path(self.url)
        target = self._scratch_path("fetched")
        if not target.exists():
            part = target.with_suffix(".part")
            with open(part, "wb") as file:
                for data in _fetch(self.storage, self.entry):
                    file.write(data)
            os.replace(part, target)
        return target

    def unpacked(self, limit: int = MAX_UNPACKED_BYTES) -> Path:
        """Return a local path with the content, gunzipped where the name ends in ``.gz``.

        Raises
        ------
        CatalogError
            If the content is not gzip, ends early, or is longer than ``limit`` bytes.
        """
        packed = self.fetched()
        if not self.gzipped:
            return packed
        target = self._scratch_path("unpacked")
        if not target.exists():
            part = target.with_suffix(".part")
            try:
                with gzip.open(packed, "rb") as source, open(part, "wb") as sink:
                    _copy(source, sink, limit, self.url)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise CatalogError(f"{self.url}: damaged gzip ({error}); fetch it again") from error
            os.replace(part, target)
        return target

    def _scratch_path(self, kind: str) -> Path:
        self.scratch.mkdir(parents=True, exist_ok=True)
        return self.scratch / f"{kind}-{hashlib.sha256(self.entry.key.encode()).hexdigest()[:16]}"


def find_files(path: str, scratch: Path) -> list[SourceFile] | None:
    """Return the one file that ``path`` names, or None where it names a folder.

    Raises
    ------
    CatalogError
        If nothing is there, or the file has no bytes.
    """
    if "://" not in path and Path(path).expanduser().is_dir():
        return None
    folder, _, name = path.rpartition("/")
    storage = open_storage(folder or ("/" if path.startswith("/") else "."))
    entry = storage.stat(name) if name else None
    if entry is None:
        if path.startswith("s3://"):
            return None
        raise CatalogError(f"{path}: no such catalog; {_REMEDY}")
    if entry.size == 0:
        raise CatalogError(f"{path}: the file has no bytes; write or fetch it again")
    return [SourceFile(storage, entry, scratch)]


def find_folder(path: str, scratch: Path) -> list[SourceFile]:
    """Return every file below a folder, sorted by key."""
    storage = open_storage(path)
    files = [SourceFile(storage, entry, scratch) for entry in storage.list()]
    if not files:
        raise CatalogError(f"{path}: no such catalog, or an empty folder; {_REMEDY}")
    return files


def files_identity(files: Sequence[SourceFile]) -> str:
    """Return a SHA-256 that changes when a file is added, removed or replaced; reads no content.

    It is made of keys, sizes and the store's tags (ETag, or modification time), so it
    tells changes of one place and does not compare copies in two places.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.entry.key}\t{file.entry.size}\t{file.entry.tag}\n".encode())
    return digest.hexdigest()


def is_html(head: bytes) -> bool:
    """Say whether the first bytes of a file are those of a web page."""
    return head.lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _open_local(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such file") from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error


def _fetch(storage: Storage, entry: Entry) -> Iterator[bytes]:
    pieces = storage.stream(entry.key) if isinstance(storage, HttpStorage) else _ranges(storage, entry)
    position = 0
    for data in pieces:
        position += len(data)
        if entry.size < 0 and position > MAX_UNPACKED_BYTES:
            raise CatalogError(
                f"{storage.url(entry.key)}: more than {MAX_UNPACKED_BYTES} bytes, and the server does not "
                "say how many; split it, or fetch it with another program and name the local file"
            )
        yield data
    if 0 <= entry.size != position:
        raise StorageError(
            f"{storage.url(entry.key)}: announced with {entry.size} bytes, received {position}; the file "
            "changed, or the answer was cut short: run the same command again"
        )


def _ranges(storage: Storage, entry: Entry) -> Iterator[bytes]:
    for position in range(0, entry.size, FETCH_BYTES):
        stop = min(position + FETCH_BYTES, entry.size)
        data = storage.get_range(entry.key, position, stop)
        if len(data) != stop - position:
            raise _other_length(storage.url(entry.key), position, stop, len(data))
        yield data


def _other_length(url: str, start: int, stop: int, received: int) -> StorageError:
    return StorageError(
        f"{url}: asked for bytes {start} to {stop}, received {received}; the file changed while it was read, "
        "or the server ignores ranges"
    )


def _copy(source: io.BufferedIOBase, sink: BinaryIO, limit: int, url: str) -> None:
    left = limit
    while data := source.read(1 << 20):
        left -= len(data)
        if left < 0:
            raise CatalogError(f"{url}: unpacks to more than {limit} bytes; split it, or use Parquet")
        sink.write(data)
