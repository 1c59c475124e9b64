"""A stored image file whose bytes are used where they lie, after one reading for their hash."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gzscale.errors import ImageError, Reason

__all__ = ["StoredFile", "as_file", "stored_file"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file's bytes, their hash, and a way to see that they are still those.

    Attributes
    ----------
    content
        The bytes: mapped, so that a large file takes no memory of its own, or, of an empty file, none.
    sha256
        As 64 hexadecimal digits.
    changed
        Tells whether somebody has written into the file since it was hashed.
    name
        Of the file, for messages.
    """

    content: bytes | mmap.mmap
    sha256: str
    changed: Callable[[], bool]
    name: str

    def require_unchanged(self) -> None:
        """Check that what was made from the bytes was made from those that were hashed.

        Raises
        ------
        ImageError
            UNREACHABLE_IMAGE.
        """
        if self.changed():
            raise ImageError(
                Reason.UNREACHABLE_IMAGE,
                f"{self.name}: written while it was read; run again once the file is complete",
            )


def stored_file(path: Path) -> StoredFile:
    """Hash a file and map it.

    It is read once from end to end before anything looks at the mapping: where a disk or a network file
    system fails, that is an error here, and what follows finds the pages in memory.

    Parameters
    ----------
    path
        A local file. Whoever replaces it, or removes its name, leaves the mapping as it is.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        content: bytes | mmap.mmap = b""
        if file.tell():
            content = mmap.mmap(file.fileno(), file.tell(), access=mmap.ACCESS_READ)

    def changed() -> bool:
        try:
            now = os.stat(path)
        except OSError:
            return False
        same = os.path.samestat(before, now)
        return same and (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns)

    return StoredFile(content, digest, changed, str(path))


def as_file(content: bytes | mmap.mmap) -> io.BufferedReader:
    """Return a file to read some bytes from, which are not copied as `io.BytesIO` would copy mapped ones."""
    return io.BufferedReader(_Raw(memoryview(content)))


class _Raw(io.RawIOBase):
    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._view)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        part = self._view[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
