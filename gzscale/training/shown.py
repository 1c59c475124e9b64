"""What a network is shown of labelled galaxies: the field, and the file in which the pictures lie."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.errors import ConfigError
from gzscale.models.field import BundleGeometry, same_field
from gzscale.models.inputs import SDSS_STRETCH

__all__ = ["BLOCK", "GEOMETRY", "SIDE", "PictureFile", "eight_bit", "require_field"]

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
        """Append pictures, uint8, shape (n, 3, 96, 96)."""
        self._file.write(np.ascontiguousarray(pictures).tobytes())
        self._count += len(pictures)

    def pictures(self) -> NDArray[np.uint8]:
        """Return all pictures, mapped into memory, shape (n, 3, 96, 96)."""
        if not self._count:
            return np.empty((0, 3, SIDE, SIDE), np.uint8)
        self._file.flush()
        return np.memmap(self._file, np.uint8, "r+", shape=(self._count, 3, SIDE, SIDE))

    def chosen(self, rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return some of the pictures, in that order, mapped from a file of their own."""
        whole, sorted_file = self.pictures(), PictureFile()
        for start in range(0, len(rows), BLOCK):
            sorted_file.add(whole[rows[start : start + BLOCK]])
        return sorted_file.pictures()


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
