"""A stored image file whose bytes are read where they are wanted, after one reading for their hash.

A mapping would do without the reading, but a file that is cut short, or a network file system that
fails, ends a process that looks at one with a signal; here it is an error of that image.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gzscale.errors import ImageError, Reason

__all__ = ["FileBytes", "as_file", "open_stored"]


class FileBytes:
    """The bytes of an open file: what is sliced out of it is read then, and nothing else is in memory.

    Parameters
    ----------
    file
        Open for reading; this object reads at places of its own.
    name
        For messages.

    Attributes
    ----------
    sha256
        Of all bytes, as 64 hexadecimal digits.
    """

    def __init__(self, file: io.FileIO, name: str) -> None:
        self._descriptor, self._name = file.fileno(), name
        self._before = os.fstat(self._descriptor)
        self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.require_unchanged()

    def __len__(self) -> int:
        return self._before.st_size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, step = part.indices(len(self))
        assert step == 1, "bytes are read as they lie"
        pieces = []
        try:
            # One call may bring less: of 2 GiB and more, or where a file system is a program.
            while start < stop and (piece := os.pread(self._descriptor, stop - start, start)):
                pieces.append(piece)
                start += len(piece)
        except OSError as error:
            raise ImageError(
                Reason.UNREACHABLE_IMAGE,
                f"{self._name}: {error.strerror or error}; run again later, or name a mirror or a copy on "
                "another disk with survey.root",
            ) from error
        if start < stop:
            raise self._changed()
        return b"".join(pieces)

    def require_unchanged(self) -> None:
        """Check that nobody has written into the file since it was hashed.

        Raises
        ------
        ImageError
            UNREACHABLE_IMAGE.
        """
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise self._changed()

    def _changed(self) -> ImageError:
        return ImageError(
            Reason.UNREACHABLE_IMAGE,
            f"{self._name}: written while it was read; run again once the file is complete",
        )


@contextmanager
def open_stored(path: Path) -> Iterator[FileBytes]:
    """Open a local file and hash it; who replaces it meanwhile, or removes its name, changes nothing.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    FileBytes
        Usable until the end of the context.

    Raises
    ------
    OSError
        If it cannot be opened or read.
    ImageError
        UNREACHABLE_IMAGE if it has changed by the end of the context, whatever came of its bytes: an error
        that they led to is one of half a file.
    """
    with open(path, "rb", buffering=0) as file:
        stored = FileBytes(file, str(path))
        try:
            yield stored
        except ImageError:
            stored.require_unchanged()
            raise
        stored.require_unchanged()


def as_file(content: bytes | FileBytes) -> io.BufferedReader:
    """Return a file to read some bytes from, for a library that wants one."""
    return io.BufferedReader(_Raw(content))


class _Raw(io.RawIOBase):
    def __init__(self, content: bytes | FileBytes) -> None:
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._content)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        part = self._content[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
