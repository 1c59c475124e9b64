"""Decoded images that the partitions of a host share: files of a scratch folder, mapped where they are read.

The first that needs an image decodes it and leaves its arrays behind; who needs it while that goes on waits,
who comes later maps the file. The folder is bounded: what was not used for longest goes first. An entry
is used only if it was made from this very image and nothing in it has changed since; whatever is wrong with
the folder, it is full or gone, the image is decoded as if there were none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.surveys.base import Image, ImageRef, Shareable

__all__ = ["DecodedImages"]

#: Entries are named by what they are made from, and end so; those that are not whole yet end otherwise.
ENDING, UNFINISHED = ".image", ".part"
LOCKS = "locks"
#: Arrays begin at multiples of this, so that they are aligned whatever they hold.
_ALIGNMENT = 4096
_MAGIC = b"gzscale decoded\n"
#: Magic, length of the description and its CRC-32.
_PREAMBLE = struct.Struct("<16sII")
#: A description holds a header of some ten kilobytes.
_MAX_DESCRIPTION = 1_000_000
_TYPES: dict[str, Any] = {"pixels": np.float32, "background_sigma": np.float32, "flags": np.uint8}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedImages:
    """Decoded images in a folder that all processes of a host share.

    Attributes
    ----------
    folder
        Exists, with a folder `LOCKS` in it, and belongs to this user alone.
    cap
        Bytes that it may hold. Processes that write at the same time may exceed it by an image each.
    reserve
        Bytes that remain free on its disk.
    """

    folder: Path
    cap: int
    reserve: int

    def find(self, survey: Shareable, ref: ImageRef, origin: str) -> Image | None:
        """Return an image if it is there; parameters as of `open`."""
        return self._read(_key(ref, origin), survey, ref)

    def holds(self, ref: ImageRef, origin: str) -> bool:
        """Tell whether there is an entry of an image, whole or damaged."""
        return self._path(_key(ref, origin)).exists()

    def open(self, survey: Shareable, ref: ImageRef, origin: str) -> tuple[Image, bool]:
        """Return an image, and whether it was decoded for that.

        Parameters
        ----------
        survey
            Opens the image where it is not there.
        ref
            The image.
        origin
            What its pixels come from beside its name: settings, code and the stored file's state.

        Raises
        ------
        ImageError
            Where the survey cannot open it.
        """
        key = _key(ref, origin)
        image = self._read(key, survey, ref)
        if image is not None:
            return image, False
        with self._locked(key[:3]) as held:
            image = self._read(key, survey, ref) if held else None
            if image is not None:
                return image, False
            image = survey.open_whole(ref)
            if held:
                self._write(key, image)
            return image, True

    # ---- entries

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{ENDING}"

    def _read(self, key: str, survey: Shareable, ref: ImageRef) -> Image | None:
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                # Copy on write: nobody can change by its arrays what others see.
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            _mark_used(path)
        except (OSError, ValueError):  # An empty file cannot be mapped.
            return None
        try:
            return _unpack(content, key, survey, ref)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            _log.warning("%s: not used, decoded anew: %s", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def _write(self, key: str, image: Image) -> None:
        path = self._path(key)
        part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}{UNFINISHED}")
        try:
            arrays = _arrays(image)
            if not self._make_room(sum(array.nbytes + _ALIGNMENT for array in arrays.values())):
                return
            with open(part, "wb") as file:
                _pack(file, key, image, arrays)
            _mark_used(part)
            os.replace(part, path)
        except OSError as error:
            # Only time is lost.
            _log.warning("%s: decoded images are not shared: %s", self.folder, error)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    # ---- room

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        """Hold a lock among all processes and threads; False where there is none to be had."""
        with contextlib.ExitStack() as stack:
            held = False
            with contextlib.suppress(OSError):
                file = stack.enter_context(open(self.folder / LOCKS / name, "a"))
                fcntl.flock(file, fcntl.LOCK_EX)
                held = True
            yield held

    def _make_room(self, need: int) -> bool:
        """Remove what was not used for longest until some bytes fit, and tell whether they do."""
        with self._locked("room") as held:
            found = []
            for entry in os.scandir(self.folder):
                with contextlib.suppress(FileNotFoundError):
                    if entry.name.endswith((ENDING, UNFINISHED)):
                        status = entry.stat()
                        found.append((status.st_mtime_ns, status.st_size, entry.path))
            total = sum(size for _, size, _ in found)
            free = shutil.disk_usage(self.folder).free
            excess = max(total + need - self.cap, need + self.reserve - free)
            if not held or need > self.cap or excess > total:
                return False
            for _, size, path in sorted(found):
                if excess <= 0:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                excess -= size
            return True


def _mark_used(path: Path) -> None:
    # The system's own stamp is as coarse as its clock's tick.
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _key(ref: ImageRef, origin: str) -> str:
    told = "\n".join([origin, ref.name, ref.band, ref.path, ref.exposure])
    return hashlib.sha256(told.encode()).hexdigest()


def _arrays(image: Image) -> dict[str, NDArray[Any]]:
    found = {name: getattr(image, name) for name in _TYPES}
    return {name: np.ascontiguousarray(array) for name, array in found.items() if array is not None}


def _pack(file: Any, key: str, image: Image, arrays: dict[str, NDArray[Any]]) -> None:
    """Write an image: preamble, description as JSON, and its arrays, each at an aligned place."""
    places: dict[str, list[Any]] = {}
    at = 0
    for name, array in arrays.items():
        places[name] = [list(array.shape), at, zlib.crc32(_bytes_of(array))]
        at += _aligned(array.nbytes)
    description = json.dumps(
        {
            "key": key,
            "sha256": image.sha256,
            "size": image.size,
            "flag_names": list(image.flag_names),
            "cards": image.cards,
            "seeing": None if math.isnan(image.seeing) else image.seeing,
            "arrays": places,
        }
    ).encode()
    file.write(_PREAMBLE.pack(_MAGIC, len(description), zlib.crc32(description)))
    file.write(description)
    for array in arrays.values():
        file.write(b"\0" * (_aligned(file.tell()) - file.tell()))
        file.write(_bytes_of(array))


def _unpack(content: mmap.mmap, key: str, survey: Shareable, ref: ImageRef) -> Image:
    """Return the image that a mapped entry holds; `ValueError` or alike where it is not as written."""
    magic, length, checksum = _PREAMBLE.unpack_from(content)
    start = _PREAMBLE.size
    description = content[start : start + min(length, _MAX_DESCRIPTION)]
    if magic != _MAGIC or len(description) != length or zlib.crc32(description) != checksum:
        raise ValueError("not an entry, or damaged")
    told = json.loads(description)
    if told["key"] != key:
        raise ValueError("made from something else")
    arrays: dict[str, Any] = {"flags": None}
    for name, (shape, at, expected) in told["arrays"].items():
        begin = _aligned(start + length) + at
        array = np.frombuffer(content, _TYPES[name], math.prod(shape), begin).reshape(shape)
        if zlib.crc32(_bytes_of(array)) != expected:
            raise ValueError(f"the checksum of its {name} is another")
        arrays[name] = array
    return Image(
        ref=ref,
        wcs=survey.wcs_of(told["cards"], ref.name, arrays["pixels"].shape),
        sha256=told["sha256"],
        size=told["size"],
        flag_names=tuple(told["flag_names"]),
        cards=told["cards"],
        seeing=math.nan if told["seeing"] is None else told["seeing"],
        **arrays,
    )


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
