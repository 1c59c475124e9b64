"""Image files by name, from a folder, an HTTP(S) server or S3, with a bounded cache for what is remote.

Remote files come in ranges that are appended to a ``.part`` file, so that an
interrupted transfer goes on where it stopped, in this process or the next;
a finished one is renamed into place. Processes that share a cache share its
locks: a file is fetched once, and at most ``concurrency`` are on their way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gzscale._refusals import another_follows
from gzscale.errors import CredentialsError, GzscaleError, ImageError, MissingError, Reason, StorageError
from gzscale.storage import Entry, open_storage
from gzscale.surveys.stored import FileBytes, open_stored
from gzscale.surveys.sweeping import UNFINISHED, mark_used, sweep

__all__ = ["Fetcher", "Found", "default_cache"]

#: A frame is 3 to 12 MB; unless a survey says otherwise, nothing larger than this is fetched.
MAX_FILE_BYTES = 128_000_000
#: Bytes of one range request: what an interruption loses at most.
PIECE = 2_000_000
#: Attempts to read a fetched file before another process sweeps it out of the cache.
ATTEMPTS = 4
#: Files that are being read while others are fetched.
_OPENED = 3
Found = dict[tuple[str, tuple[str, ...]], Entry]
_MAGIC = (b"BZh", b"\x1f\x8b", b"SIMPLE  =")


def default_cache() -> str:
    """Return the folder for fetched images where none is configured (XDG base directory specification)."""
    return os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gzscale", "images"
    )


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Reads files below one root.

    Attributes
    ----------
    root
        Folder or URL.
    cache
        Folder for what is fetched from a URL; a local root is read where it is.
    cap
        Bytes that the cache may hold; the files that were not used for longest go first.
    concurrency
        Transfers at one time, over all processes with the same cache.
    largest
        Bytes of a file at most; `MAX_FILE_BYTES` if None.
    found
        What was stored under a root and names whose file was fetched ahead, until it is read.
    """

    root: str
    cache: str
    cap: int
    concurrency: int
    largest: int | None = None
    found: Found = field(default_factory=dict, compare=False, repr=False)

    @property
    def remote(self) -> bool:
        """Whether the root is a URL."""
        return "://" in self.root and not self.root.startswith("file://")

    @property
    def transfers(self) -> int:
        """How many files may be fetched before they are read; 0 if they lie here, or the cache is too small.

        A file that is fetched ahead must not be swept out again before it is read.
        """
        waiting = (self.concurrency + _OPENED) * (self.largest or MAX_FILE_BYTES)
        return self.concurrency if self.remote and self.cap >= waiting else 0

    def stat(self, names: tuple[str, ...]) -> Entry | None:
        """Return what is stored under the first of some alternative names that exists, or None.

        Raises
        ------
        ImageError
            UNREACHABLE_IMAGE if the server does not say.
        CredentialsError
            If it is no image that is refused but whoever asks, here as in all that follows.
        """
        storage = open_storage(self.root)
        denied: StorageError | None = None
        for name in names:
            try:
                with another_follows(name != names[-1]):
                    entry = storage.stat(name)
            except CredentialsError:
                raise
            except StorageError as error:
                # S3 denies what is not there, too, where the bucket may not be listed.
                if error.errno != errno.EACCES:
                    raise _unreachable(error) from error
                denied = denied or error
                continue
            if entry is not None:
                return entry
        if denied is not None:
            raise _unreachable(denied) from denied
        return None

    def read(self, names: tuple[str, ...]) -> tuple[str, bytes]:
        """Return name and bytes of the first of some alternative names that exists.

        Raises
        ------
        ImageError
            MISSING_IMAGE, UNREACHABLE_IMAGE, OVERSIZED_IMAGE, or, for remote files, NOT_FITS and EMPTY_IMAGE.
        """
        entry = self._fetched_ahead(names)
        if not self.remote:
            return entry.key, self._get(entry.key)
        for _ in range(ATTEMPTS):
            path = self._fetched(entry)
            # Another process's sweep may have taken it in between.
            with contextlib.suppress(FileNotFoundError):
                mark_used(path)
                return entry.key, path.read_bytes()
        raise self._swept(entry)

    @contextlib.contextmanager
    def view(self, names: tuple[str, ...]) -> Iterator[tuple[str, FileBytes]]:
        """Open the first of some alternative names that exists; its bytes are read where they are sliced.

        Yields
        ------
        tuple[str, FileBytes]
            The name, and the bytes, to be used within the context.

        Raises
        ------
        ImageError
            As `read`; and UNREACHABLE_IMAGE if somebody writes into the file meanwhile.
        """
        entry = self._fetched_ahead(names)
        with contextlib.ExitStack() as stack:
            for _ in range(ATTEMPTS):
                path = self._fetched(entry) if self.remote else Path(open_storage(self.root).root, entry.key)
                try:
                    if self.remote:
                        mark_used(path)
                    stored = stack.enter_context(open_stored(path))
                    break
                except FileNotFoundError as error:
                    # Another process's sweep may have taken it in between.
                    if not self.remote:
                        raise _unreachable(StorageError(f"{path}: removed while it was opened")) from error
                except OSError as error:
                    raise _unreachable(StorageError(f"{path}: {error.strerror or error}")) from error
            else:
                raise self._swept(entry)
            yield entry.key, stored

    def fetch(self, names: tuple[str, ...]) -> None:
        """Fetch the first of some alternative names that exists into the cache; raises as `read` does.

        Whoever reads it next does not ask for it again.
        """
        if self.remote:
            entry = self._entry(names)
            self._fetched(entry)
            self.found[self.root, names] = entry

    def read_start(self, names: tuple[str, ...], count: int) -> tuple[str, bytes]:
        """Return name and first ``count`` bytes of the first of some alternative names that exists."""
        entry = self._entry(names)
        path = self._cached(entry) if self.remote else None
        if path is not None and path.exists():
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                return entry.key, file.read(count)
        stop = min(count, entry.size) if entry.size >= 0 else count
        return entry.key, self._get(entry.key, (0, stop)) if stop else b""

    def discard(self, names: tuple[str, ...]) -> bool:
        """Remove a file from the cache, and say whether it was there; the root is never touched."""
        if not self.remote:
            return False
        path = self._cached(self._entry(names))
        there = path.exists()
        path.unlink(missing_ok=True)
        return there

    # ---- names

    def _fetched_ahead(self, names: tuple[str, ...]) -> Entry:
        return self.found.pop((self.root, names), None) or self._entry(names)

    def _entry(self, names: tuple[str, ...]) -> Entry:
        entry = self.stat(names)
        if entry is None:
            raise ImageError(
                Reason.MISSING_IMAGE,
                f"{self.root.rstrip('/')}/{names[0]}: no such file"
                + "".join(f", nor {os.path.basename(name)}" for name in names[1:])
                + "; fetch it, or check survey.root",
            )
        largest = self.largest or MAX_FILE_BYTES
        if entry.size > largest:
            raise ImageError(
                Reason.OVERSIZED_IMAGE,
                f"{self.root.rstrip('/')}/{entry.key}: {entry.size} bytes; an image has at most "
                f"{largest}; fetch it again",
            )
        return entry

    def _cached(self, entry: Entry) -> Path:
        version = hashlib.sha256(f"{self.root}\n{entry.tag}\n{entry.size}".encode()).hexdigest()[:16]
        return Path(self.cache, "files", f"{entry.key}@{version}")

    # ---- transfer

    def _get(self, name: str, span: tuple[int, int] | None = None) -> bytes:
        storage = open_storage(self.root)
        try:
            return storage.get(name) if span is None else storage.get_range(name, *span)
        except MissingError as error:
            raise ImageError(Reason.MISSING_IMAGE, f"{error}; fetch it, or check survey.root") from error
        except CredentialsError:
            raise
        except StorageError as error:
            raise _unreachable(error) from error

    def _fetched(self, entry: Entry) -> Path:
        """Return the path of the cached copy, fetching it if need be."""
        path = self._cached(entry)
        if path.exists():
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(f"file-{path.name}"):
                if not path.exists():
                    with self._slot():
                        self._transfer(entry, path)
            self._sweep(keep=path)
        except OSError as error:
            if isinstance(error, GzscaleError):
                raise
            raise StorageError(
                f"{path}: {error.strerror or error}; free space below {self.cache}, or set "
                "survey.options.cache to another folder"
            ) from error
        return path

    def _transfer(self, entry: Entry, path: Path) -> None:
        part = path.with_name(path.name + UNFINISHED)
        with open(part, "ab") as file:
            start = file.tell()
            while start < entry.size or entry.size < 0:
                # Without a size there is no telling an end from an interruption: one request for all of it.
                whole = entry.size < 0
                piece = self._get(entry.key, None if whole else (start, min(start + PIECE, entry.size)))
                if whole:
                    file.truncate(0)
                elif not piece:
                    raise ImageError(
                        Reason.TRUNCATED_IMAGE,
                        f"{self.root}/{entry.key}: the server sent {start} of {entry.size} bytes; "
                        "run again later",
                    )
                if (whole or start == 0) and not piece.startswith(_MAGIC):
                    part.unlink()
                    raise self._not_an_image(entry, piece)
                file.write(piece)
                start += len(piece)
                if whole:
                    break
        if entry.size == 0:
            part.unlink()
            raise self._not_an_image(entry, b"")
        # One that was begun long ago is not the first to go.
        mark_used(part)
        os.replace(part, path)

    def _not_an_image(self, entry: Entry, start: bytes) -> ImageError:
        name = f"{self.root}/{entry.key}"
        if not start:
            return ImageError(Reason.EMPTY_IMAGE, f"{name}: 0 bytes on the server; tell its keepers")
        return ImageError(
            Reason.NOT_FITS,
            f"{name}: no FITS, bzip2 or gzip but {start[:40]!r}; a server's error page? Check survey.root",
        )

    # ---- cache

    def _swept(self, entry: Entry) -> ImageError:
        return ImageError(
            Reason.UNREACHABLE_IMAGE,
            f"{self.root}/{entry.key}: swept from the cache {self.cache} before it could be read, "
            f"{ATTEMPTS} times; raise cache_cap ({self.cap} bytes)",
        )

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = Path(self.cache, "locks")
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / hashlib.sha256(name.encode()).hexdigest()[:3], "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        """Hold one of the transfers that are allowed at one time."""
        folder = Path(self.cache, "locks")
        while True:
            for number in random.sample(range(self.concurrency), self.concurrency):
                with open(folder / f"slot-{number}", "a") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    yield
                    return
            time.sleep(random.uniform(0.02, 0.1))

    def _sweep(self, keep: Path) -> None:
        """Remove the files that were not used for longest until the cache is within its cap."""
        with self._locked("sweep"):
            sweep(Path(self.cache, "files"), self.cap, keep)


def _unreachable(error: Exception) -> ImageError:
    return ImageError(
        Reason.UNREACHABLE_IMAGE,
        f"{error}; run again later, or name a mirror or a local copy with survey.root",
    )
