"""What a network is shown of labelled galaxies: the field, and the file in which the pictures lie."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.errors import ConfigError, StorageError
from gzscale.models.field import BundleGeometry, same_field
from gzscale.models.inputs import SDSS_STRETCH

__all__ = ["BLOCK", "GEOMETRY", "SIDE", "PictureFile", "eight_bit", "require_field", "reserve"]

#: Side of the images in pixels.
SIDE = 96
#: What Galaxy Zoo 2 showed, averaged over 4 x 4 pixels and cut to the centre.
GEOMETRY = BundleGeometry(SIDE, "0.08 * size")
#: Images that are read, rendered or moved together.
BLOCK = 256


class PictureFile:
    """Pictures that are added a block at a time and lie in a temporary file, not in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="gzscale-labelled-")  # noqa: SIM115 (goes with the array)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, pictures: NDArray[np.uint8]) -> None:
        """Append pictures, uint8, shape (n, 3, 96, 96).

        Raises
        ------
        StorageError
            If there is no room for them.
        """
        try:
            self._file.write(np.ascontiguousarray(pictures).tobytes())
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()}: no room for {self._count + len(pictures)} pictures of "
                f"{3 * SIDE**2} bytes ({error}); free some, or set TMPDIR to a larger disk"
            ) from error
        self._count += len(pictures)

    def pictures(self) -> NDArray[np.uint8]:
        """Return all pictures, mapped into memory, shape (n, 3, 96, 96)."""
        if not self._count:
            return np.empty((0, 3, SIDE, SIDE), np.uint8)
        return np.memmap(self._file, np.uint8, "r+", shape=(self._count, 3, SIDE, SIDE))

    def chosen(self, rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return some of the pictures, in that order, mapped from a file of their own."""
        whole, sorted_file = self.pictures(), PictureFile()
        for start in range(0, len(rows), BLOCK):
            sorted_file.add(whole[rows[start : start + BLOCK]])
        return sorted_file.pictures()


def reserve(path: Path, what: str) -> None:
    """Give a map of a file the room that it takes: where the disk is full a process would die of writing.

    Parameters
    ----------
    path
        The file, which is removed if there is no room.
    what
        Is to lie in it, for the message.

    Raises
    ------
    StorageError
        If the disk has not that much.
    """
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink()
        raise StorageError(
            f"{path}: no room for {size / 1e6:.1f} MB of {what} ({error}); free some, or take fewer"
        ) from error


def eight_bit(images: torch.Tensor) -> NDArray[np.uint8]:
    """Round images in [0, 1] to uint8 levels."""
    rounded: NDArray[np.uint8] = (images * 255).round_().to(torch.uint8).numpy()
    return rounded


def require_field(geometry: Mapping[str, Any], bands: str, where: str) -> None:
    """Refuse cutouts that do not show the field and the bands that morphology learns from.

    Parameters
    ----------
    geometry
        ``name``, ``size`` and ``scale`` of the cutouts.
    bands
        Of the cutouts, one letter each.
    where
        What they are, for the message.

    Raises
    ------
    ConfigError
        With what is needed and what is there.
    """
    found = BundleGeometry(int(geometry["size"]), geometry["scale"])
    if not same_field(found, GEOMETRY):
        raise ConfigError(
            f"{where}: cutouts of {found.size} pixels at {found.scale!r} arcsec; morphology learns from "
            f"{GEOMETRY.size} pixels at {GEOMETRY.scale!r}: give the night a geometry with these numbers"
        )
    missing = [band for band in SDSS_STRETCH.bands if band not in bands]
    if missing:
        raise ConfigError(
            f"{where}: cutouts in {bands!r}, without {''.join(missing)}; morphology is shown "
            f"{SDSS_STRETCH.bands} as red, green, blue: add them to survey.bands"
        )
