"""Files and folders of a disk: written durably, linked, and removed while others write."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["AlreadyThereError", "copy", "flush_folder", "link", "make_folder", "remove_tree", "write"]

#: How often a folder is cleared into which somebody writes, and the seconds between.
CLEARINGS, PAUSE = 100, 0.1


class AlreadyThereError(Exception):
    """The target of a link exists."""


def write(part: Path, pieces: Iterable[bytes | memoryview], after_ns: int = 0) -> None:
    """Write a new file and flush it to the device; its time is ``after_ns`` at least."""
    with open(part, "xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        status = os.fstat(file.fileno())
        if status.st_mtime_ns < after_ns:
            os.utime(file.fileno(), ns=(after_ns, after_ns))
        os.fsync(file.fileno())


def copy(path: Path, part: Path) -> None:
    """Copy to a new file and flush it to the device."""
    with open(path, "rb") as source, open(part, "xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def link(part: Path, target: Path) -> None:
    """Give a file a second name, unless that is taken."""
    try:
        os.link(part, target)
    except FileExistsError as error:
        # NFS repeats a request whose answer was lost: two names mean that ours was made.
        if os.stat(part).st_nlink < 2:
            raise AlreadyThereError from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, flushing each new name to the device."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the device."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems flush names by themselves and refuse the call.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a folder and all that is in it, also while others remove it or write into it."""
    left = CLEARINGS
    while path.is_dir() and not path.is_symlink():
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue  # somebody else removes it as well
        except OSError as error:
            # A worker that was given up, and has not noticed yet, still writes here, or has on NFS a file
            # open that was removed.
            left -= 1
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY} or not left:
                raise
            time.sleep(PAUSE)
    path.unlink(missing_ok=True)
