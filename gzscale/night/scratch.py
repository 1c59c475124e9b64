"""Where the decoded images that a host's workers share lie during a night: made, and cleared away.

A folder a night, below one that is this user's alone. Each process that uses it holds a lock on it, which
the system frees when the process ends in whatever way: a folder that nobody holds is of a night that was
killed, and the next one to come removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from gzscale.surveys.decoded import LOCKS, DecodedImages

__all__ = ["Room", "clear", "join"]

#: What would take memory in the place of disk.
_IN_MEMORY = ("tmpfs", "ramfs")
_HOLD = "held"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Room:
    """Room for decoded images on the scratch disk of every host.

    Attributes
    ----------
    name
        Of the folder: one a night.
    cap
        Bytes that it may take on a host; 0 for none.
    reserve
        Bytes that remain free on the disk.
    """

    name: str
    cap: int
    reserve: int


@dataclass(frozen=True)
class _Joined:
    images: DecodedImages
    hold: IO[str]


#: What this process holds: the folder of one night.
_joined: dict[Path, _Joined] = {}


def join(scratch: Path, room: Room) -> DecodedImages | None:
    """Make or find the folder of a night, and hold it.

    Parameters
    ----------
    scratch
        Folder for temporary files, one for all processes of the host.
    room
        What is allowed.

    Returns
    -------
    DecodedImages or None
        None where nothing is allowed, or the folder cannot be used: it is in memory, or another user's.
    """
    if room.cap <= 0:
        return None
    folder = _home(scratch) / room.name
    if folder in _joined and folder.is_dir():
        return _joined[folder].images
    _let_go()
    try:
        _joined[folder] = _Joined(DecodedImages(folder, room.cap, room.reserve), _make(folder))
    except OSError as error:
        _log.warning("%s: decoded images are not shared: %s", folder, error)
        return None
    return _joined[folder].images


def clear(scratch: Path, name: str) -> None:
    """Remove the folder of a night."""
    _let_go()
    shutil.rmtree(_home(scratch) / name, ignore_errors=True)


def _home(scratch: Path) -> Path:
    return scratch / f"gzscale-decoded-{os.getuid()}"


def _make(folder: Path) -> IO[str]:
    """Make a folder, remove those that nobody holds, and return the open lock."""
    home = folder.parent
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = home.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{home} is not a folder of this user alone")
    if _kind_of_disk(home) in _IN_MEMORY:
        raise OSError("the scratch folder is in memory; name another as the preset's `scratch`")
    with open(home / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / LOCKS).mkdir(mode=0o700, parents=True, exist_ok=True)
        hold = open(folder / _HOLD, "a")  # noqa: SIM115 - held as long as the process uses the folder
        fcntl.flock(hold, fcntl.LOCK_SH)
        for other in home.iterdir():
            if other != folder and other.is_dir() and _is_left(other):
                shutil.rmtree(other, ignore_errors=True)
    return hold


def _is_left(folder: Path) -> bool:
    try:
        with open(folder / _HOLD, "a") as hold:
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _let_go() -> None:
    while _joined:
        _, joined = _joined.popitem()
        with contextlib.suppress(OSError):
            joined.hold.close()


def _kind_of_disk(folder: Path) -> str:
    """Return the type of the file system that holds a folder; empty if it is not known."""
    place = os.path.realpath(folder)
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    above = [place, *map(str, Path(place).parents)]
    return next((mounts[path] for path in above if path in mounts), "")
