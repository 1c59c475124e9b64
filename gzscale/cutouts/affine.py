"""The local affine map from a stamp's pixels to an image's pixels, exact to `TOLERANCE`.

One batch call of the image's WCS maps nine points of each stamp; the least-squares affine through
them is checked at the same points. Stamps for which it is not exact enough (large ones, or
images with strong distortion) are divided into tiles, each with an affine of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.cutouts.geometry import grid_to_sky

__all__ = ["TOLERANCE", "Tiles", "affine_tiles"]

#: Largest error of the affine at the nine points of a tile, in source pixels.
TOLERANCE = 0.01
#: Divisions of a stamp's side at most; a map that is not affine over a 16th of a stamp is no image's.
MAX_DIVISIONS = 16

_GRID = np.array([(u, v) for v in (-1, 0, 1) for u in (-1, 0, 1)], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Rectangles of stamps with their maps to an image's pixels.

    Attributes
    ----------
    stamp
        Which stamp, int64, shape (n,), ascending.
    box
        First row, first column, rows, columns in the stamp, int64, shape (n, 4).
    origin
        0-based image position (x, y) of the centre of the box's first pixel, shape (n, 2).
    matrix
        d(x, y) / d(column, row), shape (n, 2, 2).
    centre
        0-based image position (x, y) of each stamp's centre, shape (number of stamps, 2); NaN where
        the image's projection does not reach it.
    size
        Side of the stamps in pixels.
    """

    stamp: NDArray[np.int64]
    box: NDArray[np.int64]
    origin: NDArray[np.float64]
    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]
    size: int


def affine_tiles(
    wcs: Any,
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    scale: NDArray[np.float64],
    size: int,
) -> Tiles:
    """Map stamps to an image's pixels.

    Parameters
    ----------
    wcs
        The image's celestial `astropy.wcs.WCS`.
    ra, dec
        Positions of the objects in degrees, shape (n,).
    scale
        Arcsec a stamp pixel, shape (n,).
    size
        Side of the stamps in pixels.

    Returns
    -------
    Tiles
        Stamps that lie on the other side of the sky have no tile.
    """
    count = len(ra)
    parts: list[tuple[NDArray[Any], ...]] = []
    centre = np.full((count, 2), np.nan)
    todo = np.arange(count)
    divisions = 1
    while len(todo):
        cuts = np.linspace(0, size, divisions + 1).round().astype(np.int64)
        spans = [(int(a), int(b - a)) for a, b in pairwise(cuts)]
        found = []
        good = np.ones(len(todo), dtype=bool)
        for row, rows in spans:
            for column, columns in spans:
                points, origin, matrix, error = _fit(
                    wcs, ra[todo], dec[todo], scale[todo], size, (row, column, rows, columns)
                )
                if divisions == 1:
                    centre[todo] = points
                finite = np.isfinite(error)
                if divisions < MAX_DIVISIONS:
                    good &= ~finite | (error <= TOLERANCE)
                found.append(((row, column, rows, columns), origin, matrix, finite))
        for box, origin, matrix, finite in found:
            use = good & finite
            boxes = np.broadcast_to(np.array(box, dtype=np.int64), (int(use.sum()), 4))
            parts.append((todo[use], boxes, origin[use], matrix[use]))
        todo = todo[~good]
        divisions *= 2
    if not parts:
        empty = np.empty(0, dtype=np.int64)
        parts = [(empty, np.empty((0, 4), np.int64), np.empty((0, 2)), np.empty((0, 2, 2)))]
    stamp, boxes, origin, matrix = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((boxes[:, 1], boxes[:, 0], stamp))
    return Tiles(stamp[order], boxes[order], origin[order], matrix[order], centre, size)


def _fit(
    wcs: Any,
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    scale: NDArray[np.float64],
    size: int,
    box: tuple[int, int, int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit the affine of one box in many stamps: its centre's position, origin, matrix and error."""
    row, column, rows, columns = box
    half = np.array([columns / 2, rows / 2])
    middle = np.array([column, row]) + half - 0.5
    offset = (middle - (size - 1) / 2 + _GRID * half)[None] * scale[:, None, None]
    sky = grid_to_sky(ra[:, None], dec[:, None], offset[..., 0], offset[..., 1])
    x, y = _to_pixels(wcs, sky[0].ravel(), sky[1].ravel())
    points = np.stack([x, y], axis=-1).reshape(len(ra), 9, 2)
    # Least squares on the grid {-1, 0, 1}^2: the normal matrix is diag(9, 6, 6).
    mean = points.mean(axis=1)
    matrix = np.einsum("nkx,ku->nxu", points, _GRID) / 6
    fitted = mean[:, None, :] + np.einsum("nxu,ku->nkx", matrix, _GRID)
    error = np.abs(points - fitted).max(axis=(1, 2))
    matrix = matrix / half
    determinant = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
    error = np.where(np.abs(determinant) > 0, error, np.nan)
    origin = mean - np.einsum("nxu,u->nx", matrix, half - 0.5)
    return points[:, 4], origin, matrix, error


def _to_pixels(
    wcs: Any, ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if wcs.has_distortion:
        x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    else:
        x, y = wcs.wcs_world2pix(ra, dec, 0)
    return x, y
