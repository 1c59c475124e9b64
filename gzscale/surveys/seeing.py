"""How sharp an image is: the width of its stars, from the curvature of its clear peaks.

A Moffat function to the power -1 / beta is a parabola, so that a peak and the pixels beside it give a star's
width without a fit. Galaxies and blends are wider than stars: of all clear peaks the sharpest count.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOFFAT_BETA", "SHARPEST", "peak_widths", "star_width"]

#: Index of the Moffat function (Racine 1996, PASP 108, 699).
MOFFAT_BETA = 3.5
#: Share of the clear peaks that are sharp enough to be stars alone.
SHARPEST = 0.2
#: A clear peak is so many sigma of a pixel high. With fewer than this number nothing is said.
_CLEAR, _FEWEST = 60.0, 12
#: Pixels above the limit that are looked at, evenly spread where there are more.
_MOST = 60_000
#: A peak is the highest pixel within so many.
_APART = 3
#: Widths in pixels that a star's can be: below, an image is not sampled; above, no survey would use it.
_PLAUSIBLE = (1.0, 12.0)


def star_width(pixels: NDArray[np.float32], sigma: float) -> float:
    """Return the full width at half maximum of an image's stars.

    Parameters
    ----------
    pixels
        All of an image, shape (ny, nx), NaN where not measured.
    sigma
        Standard deviation of its background.

    Returns
    -------
    float
        Pixels, that of a Moffat function of index 3.5; NaN where there are too few clear peaks.
    """
    if not sigma > 0 or min(pixels.shape) <= 2 * _APART:
        return math.nan
    row, column = _peaks(pixels, _CLEAR * sigma)
    widths = peak_widths(pixels[None], np.zeros_like(row), row, column)
    widths = widths[np.isfinite(widths)]
    if len(widths) < _FEWEST:
        return math.nan
    found = float(np.quantile(widths, SHARPEST))
    return found if _PLAUSIBLE[0] <= found <= _PLAUSIBLE[1] else math.nan


def _peaks(pixels: NDArray[np.float32], limit: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of pixels above a limit that are the highest around."""
    inner = pixels[_APART:-_APART, _APART:-_APART]
    row, column = np.nonzero(inner > limit)
    every = max(1, -(-len(row) // _MOST))
    row, column = row[::every] + _APART, column[::every] + _APART
    # Near ones first: few candidates are left for the others.
    offsets = [(dy, dx) for dy in range(-_APART, _APART + 1) for dx in range(-_APART, _APART + 1) if dy or dx]
    for dy, dx in sorted(offsets, key=lambda offset: math.hypot(*offset)):
        # A neighbour without a measurement is no reason for or against; a plateau has one peak at most.
        beside, own = pixels[row + dy, column + dx], pixels[row, column]
        highest = ~(beside >= own) if (dy, dx) > (0, 0) else ~(beside > own)
        row, column = row[highest], column[highest]
    return row, column


def peak_widths(
    pixels: NDArray[np.floating],
    which: NDArray[np.int64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return full widths at half maximum of Moffat functions through peaks and the pixels beside them.

    Parameters
    ----------
    pixels
        Shape (n, y, x).
    which, row, column
        The image, row and column of each peak, shape (m,); none on an image's edge.

    Returns
    -------
    NDArray[np.float64]
        Pixels, shape (m,); NaN where there is no such function.
    """
    centre = pixels[which, row, column].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = []
        for dy, dx in ((0, 1), (1, 0)):
            before = pixels[which, row - dy, column - dx].astype(np.float64)
            after = pixels[which, row + dy, column + dx].astype(np.float64)
            # Of (1 + r^2 / a^2)^-beta the power -1 / beta is a parabola, wherever between pixels its top is.
            low, mid, high = (part ** (-1 / MOFFAT_BETA) for part in (before, centre, after))
            curve = (low + high) / 2 - mid
            top = mid - np.square(high - low) / (16 * curve)
            squares.append(top / curve)
        core = np.sqrt(np.sqrt(np.maximum(squares[0], 0) * np.maximum(squares[1], 0)))
    # The pixel itself adds a twelfth of a pixel's area to the variance, 1 / (2 beta) of a^2 at the core.
    core = np.sqrt(np.maximum(core**2 - 2 * MOFFAT_BETA / 12, 0.0))
    widths: NDArray[np.float64] = 2 * core * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1)
    return np.where(widths > 0.5, widths, np.nan)
