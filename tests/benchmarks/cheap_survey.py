"""A survey that makes each image from its name, for nights in which pixels cost next to nothing.

The sky is laid out in tiles: belts of declination, cells of right ascension in each. A tile's image
reaches beyond its cell by more than a stamp, so that an object needs one image a band, its own. Option
``pause`` is a number of seconds that opening an image takes beside.
"""

from __future__ import annotations

import functools
import hashlib
import time
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS
from numpy.typing import NDArray

from gzscale.surveys.base import Coverage, Image, ImageRef

#: Arcsec a pixel; pixels along a cell's side and of an image beyond it; degrees of a cell.
SCALE, CELL_PIXELS, MARGIN = 2.0, 448, 32
CELL = CELL_PIXELS * SCALE / 3600
#: Pixels of an image's side.
SIDE = CELL_PIXELS + 2 * MARGIN


def cells_of_belt(belt: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many cells a belt of declination has."""
    centre = np.radians(-90 + (belt + 0.5) * CELL)
    return np.maximum(1, np.ceil(360 * np.cos(centre) / CELL)).astype(np.int64)


@functools.cache
def pattern() -> NDArray[np.float32]:
    """Return noise with a galaxy every 16 pixels, nanomaggies a pixel, shape (SIDE, SIDE)."""
    y, x = (np.mgrid[:SIDE, :SIDE] % 16) - 7.5
    noise = np.random.default_rng(0).normal(0, 0.02, (SIDE, SIDE))
    return (noise + np.exp(-np.hypot(x, y * 1.3) / 1.5)).astype(np.float32)


class CheapSurvey:
    """See the module."""

    kind = "cheap"
    pixel_scale = SCALE

    def __init__(self, root: str, bands: str, options: Any = None) -> None:
        self.root, self.bands, self.options = root, bands, dict(options or {})

    def find(self, rows: pa.Table, radius: NDArray[np.float64]) -> Coverage:
        """Name the tile of each object in each band."""
        belt = ((rows["dec"].to_numpy() + 90) / CELL).astype(np.int64)
        cell = (rows["ra"].to_numpy() % 360 / 360 * cells_of_belt(belt)).astype(np.int64)
        tiles, tile_of = np.unique(belt * 1_000_000 + cell, return_inverse=True)
        images = [
            ImageRef(f"{band}-{tile}", band, f"{band}-{tile}", str(tile))
            for band in self.bands
            for tile in tiles
        ]
        row = np.argsort(tile_of, kind="stable")
        number = np.concatenate([tile_of[row] + place * len(tiles) for place in range(len(self.bands))])
        return Coverage(tuple(images), np.tile(row, len(self.bands)).astype(np.int64), number, {})

    def open(self, ref: ImageRef) -> Image:
        """Make the image of a name: the pattern, shifted."""
        time.sleep(float(self.options.get("pause", 0)))
        digest = hashlib.sha256(ref.name.encode()).digest()
        shift = int.from_bytes(digest[:4], "big") % SIDE
        belt, cell = divmod(int(ref.exposure), 1_000_000)
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [(cell + 0.5) * 360 / int(cells_of_belt(np.array(belt))), -90 + (belt + 0.5) * CELL]
        wcs.wcs.crpix = [SIDE / 2 + 0.5] * 2
        wcs.wcs.cdelt = [-SCALE / 3600, SCALE / 3600]
        sigma = np.full((4, 4), 0.02, np.float32)
        return Image(ref, np.roll(pattern(), shift, axis=1), wcs, sigma, digest.hex(), SIDE * SIDE * 4)

    def state(self, ref: ImageRef) -> str:
        """Say that an image never changes."""
        return "made"
