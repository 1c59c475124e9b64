"""Which planes of a survey's mask are set below each stamp."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gzscale.cutouts.affine import Tiles

__all__ = ["flags_below"]

_CORNERS = np.array([(0, 0), (0, 1), (1, 0), (1, 1)], dtype=np.float64)


def flags_below(flags: NDArray[np.uint8], tiles: Tiles, count: int) -> NDArray[np.uint8]:
    """Return the flags that are set somewhere below each stamp.

    Parameters
    ----------
    flags
        Of an image, shape (ny, nx).
    tiles
        The stamps' tiles with their affine maps to that image.
    count
        Number of stamps.

    Returns
    -------
    NDArray[np.uint8]
        Shape (count,): all bits of the smallest rectangle of the image's pixels that holds each tile.
    """
    # Columns and rows of each tile's corners; matrices map (column, row) to (x, y).
    corners = _CORNERS * tiles.box[:, None, [3, 2]] - 0.5
    places = tiles.origin[:, None, :] + np.einsum("nxc,nkc->nkx", tiles.matrix, corners)
    low = np.floor(places.min(axis=1) + 0.5).astype(np.int64)
    high = np.ceil(places.max(axis=1) + 0.5).astype(np.int64)
    found = np.zeros(count, np.uint8)
    _gather(flags, tiles.stamp, low, high, found)
    return found


@njit(cache=True, nogil=True)
def _gather(flags, stamp, low, high, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    ny, nx = flags.shape
    for n in range(len(stamp)):
        bits = np.uint8(0)
        left, right = max(0, low[n, 0]), min(nx, high[n, 0])
        for y in range(max(0, low[n, 1]), min(ny, high[n, 1])):
            line = flags[y, left : max(left, right)]
            for i in range(len(line)):
                bits |= line[i]
        found[stamp[n]] |= bits
