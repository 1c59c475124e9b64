"""What a storage is, and the one that is a folder: whole or absent, durable, never half."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gzscale._files import AlreadyThereError, copy, flush_folder, link, make_folder, remove_tree, write
from gzscale.errors import MissingError, StorageError

__all__ = ["Entry", "LocalStorage", "Storage"]


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


class Storage(ABC):
    """Named byte strings below one root. See `gzscale.storage.open_storage`."""

    root: str

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``; MissingError where there are none."""

    @abstractmethod
    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` (included) to ``stop`` (excluded); fewer where the content ends before."""

    @abstractmethod
    def put(self, key: str, data: bytes | memoryview) -> None:
        """Store ``data`` under ``key``: wholly, or not at all, and durably once this returns."""

    @abstractmethod
    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """Store pieces one after the other as `put` stores their sum, which is never in memory.

        Parameters
        ----------
        key
            As for `put`.
        pieces
            Taken once, in order. An error of whoever makes them is raised, and nothing is stored.
        """

    @abstractmethod
    def put_new(self, key: str, data: bytes) -> bool:
        """Store ``data`` only where nothing is stored yet; say whether it was stored.

        Of several writers exactly one is told True, also where the answer to its put was
        lost on the way.
        """

    @abstractmethod
    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Store ``data`` only while what is stored still has this tag; say whether it was stored.

        Of several writers that saw the same tag exactly one is told True. This holds
        among writers that use `put_new` and `replace` for that key, not against `put`
        or `delete` in a folder. An ETag can be a hash of the content: bytes that were
        stored before bring their tag back, so every writer writes bytes of its own.

        Parameters
        ----------
        key, data
            As for `put`.
        tag
            The `Entry.tag` that `stat` gave.
        """

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Store a local file's bytes under ``key``: wholly, or not at all."""

    @abstractmethod
    def stat(self, key: str) -> Entry | None:
        """Return what is stored under ``key``, or None."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every file below the folder ``prefix``, at any depth, sorted by key."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove one file; it is no error if there is none."""

    @abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Remove every file below ``prefix``."""

    @abstractmethod
    def clear_unfinished(self, prefix: str = "") -> int:
        """Remove what killed writers left below ``prefix``; say how many.

        These are invisible to `list`, but take space. Only for whoever knows that
        nobody else is writing there: a put that is under way would fail.
        """

    def url(self, key: str = "") -> str:
        """Return the full name of ``key``, as a person would type it."""
        return f"{self.root.rstrip('/')}/{key}" if key else self.root


class LocalStorage(Storage):
    """A folder. Atomic by writing beside the target and renaming.

    File and folder are flushed to the device before a put returns: a ledger record
    must never survive a power cut that the data it vouches for did not. That costs
    about 10 ms a file on a solid-state disk, against some tens of seconds of work on
    the few dozen files of a partition.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))

    def _path(self, key: str) -> Path:
        return Path(self.root, key) if key else Path(self.root)

    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``."""
        try:
            return self._path(key).read_bytes()
        except NotADirectoryError as error:
            raise MissingError(f"{self.url(key)}: no such file") from error
        except OSError as error:
            raise _storage_error(self.url(key), error) from error

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop``."""
        try:
            with open(self._path(key), "rb") as file:
                file.seek(start)
                return file.read(max(0, stop - start))
        except NotADirectoryError as error:
            raise MissingError(f"{self.url(key)}: no such file") from error
        except OSError as error:
            raise _storage_error(self.url(key), error) from error

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Write beside the target, then rename over it."""
        self._put_by(key, lambda part: write(part, (data,)), os.replace)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """Write beside the target as the pieces come, then rename over it."""
        self._put_by(key, lambda part: write(part, pieces), os.replace)

    def put_file(self, key: str, path: Path) -> None:
        """Copy beside the target, then rename over it."""
        require_file(path)
        self._put_by(key, lambda part: copy(path, part), os.replace)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write beside the target, then hard-link it: the link fails if there is one."""
        try:
            self._put_by(key, lambda part: write(part, (data,)), link)
        except AlreadyThereError:
            return False
        return True

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Lock the stored file, see that it is still the one under that name, then rename over it."""
        target = self._path(key)
        try:
            # Opened for writing because NFS grants exclusive locks on nothing else.
            with open(target, "r+b") as old:
                fcntl.flock(old, fcntl.LOCK_EX)
                if not _is_still(old.fileno(), target) or _tag(os.fstat(old.fileno())) != tag:
                    return False
                # A clock that stood still must not give two contents of one length the same tag.
                after = os.fstat(old.fileno()).st_mtime_ns + 1
                self._put_by(key, lambda part: write(part, (data,), after), os.replace)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except StorageError:
            raise
        except OSError as error:
            raise _storage_error(self.url(key), error) from error
        return True

    def _put_by(self, key: str, write: Callable[[Path], None], settle: Callable[[Path, Path], None]) -> None:
        target = self._path(key)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            make_folder(target.parent)
            try:
                write(part)
                settle(part, target)
            finally:
                part.unlink(missing_ok=True)
            flush_folder(target.parent)
        except AlreadyThereError:
            raise
        except OSError as error:
            raise _storage_error(self.url(key), error) from error

    def stat(self, key: str) -> Entry | None:
        """Return size and modification time, or None."""
        try:
            status = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _storage_error(self.url(key), error) from error
        return None if stat.S_ISDIR(status.st_mode) else Entry(key, status.st_size, _tag(status))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Walk the folder in the order of the keys, passing over files that are being written."""
        entry = self.stat(prefix)
        if entry is not None:
            yield entry
            return
        for key in self._walk(prefix.strip("/")):
            entry = None if _is_part(key) else self.stat(key)
            if entry is not None:
                yield entry

    def _walk(self, folder: str) -> Iterator[str]:
        try:
            with os.scandir(self._path(folder)) as scan:
                # A folder sorts as the keys in it do: "a.b" stands before "a/b".
                names = sorted(item.name + "/" * item.is_dir(follow_symlinks=False) for item in scan)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _storage_error(self.url(folder), error) from error
        for name in names:
            key = f"{folder}/{name}" if folder else name
            if key.endswith("/"):
                yield from self._walk(key[:-1])
            else:
                yield key

    def delete(self, key: str) -> None:
        """Remove one file."""
        try:
            self._path(key).unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise _storage_error(self.url(key), error) from error

    def delete_tree(self, prefix: str) -> None:
        """Remove a folder and all that is in it."""
        try:
            remove_tree(self._path(prefix))
        except NotADirectoryError:
            return
        except OSError as error:
            raise _storage_error(self.url(prefix), error) from error

    def clear_unfinished(self, prefix: str = "") -> int:
        """Remove the files that killed writers left beside their targets."""
        left = [key for key in self._walk(prefix.strip("/")) if _is_part(key)]
        for key in left:
            self.delete(key)
        return len(left)


def require_file(path: Path) -> None:
    """Refuse to store a file that is not there, by its own name and not the target's."""
    if not path.is_file():
        raise MissingError(f"{path}: no such file")


def _tag(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _is_part(key: str) -> bool:
    name = key.rpartition("/")[2]
    return name.startswith(".") and name.endswith(".part")


def _is_still(descriptor: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))


_REMEDY = {
    errno.ENOSPC: "the disk is full: free space, then run the same command again",
    errno.EDQUOT: "the disk quota is used up: free space, then run the same command again",
    errno.EFBIG: "larger than a file may be here: raise the limit (ulimit -f), or choose another output",
    errno.EACCES: "permission denied: choose another output, or change the folder's mode",
    errno.EPERM: "not permitted: choose an output on a file system with hard links",
    errno.EROFS: "the file system is read only: choose another output",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another output",
    errno.EEXIST: "a part of the path is a file, not a folder: choose another output",
    errno.EISDIR: "a folder stands where a file should be: move it away, then run the same command again",
    errno.ENOLCK: "the file system has no locks: choose another output, or mount it with them",
    errno.EIO: "the device failed: look at the system's log before trying again",
}


def _storage_error(name: str, error: OSError) -> StorageError:
    number = error.errno or 0
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{name}: no such file")
    remedy = _REMEDY.get(number)
    return StorageError(f"{name}: {error.strerror or error}" + (f"; {remedy}" if remedy else ""), number)
