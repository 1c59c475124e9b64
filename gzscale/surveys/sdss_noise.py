"""The noise of an SDSS frame, from the frame's own sky, calibration, gain and dark variance.

A frame is calibrated and sky-subtracted. Undoing both gives counts n; their
variance is n / gain + dark variance (photon noise, then read noise and dark
current), and calibrating again gives nanomaggies:

    sigma = calibration * sqrt((flux / calibration + sky) / gain + dark variance)

Left out: the lossy compression of frames (0.1 % of each pixel's flux), the
uncertainty of the calibration and of the sky level, and the correlation of
neighbouring pixels (there is next to none in a frame, which is not resampled).

References
----------
.. [1] SDSS data model, "frame", section "Using these images":
   https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoiseModel", "dark_variance", "gain"]

Floats = NDArray[np.float32]

# Electrons a count, by camera column 1 to 6 and band [1].
_GAIN = {
    "u": (1.62, 1.595, 1.59, 1.6, 1.47, 2.17),
    "g": (3.32, 3.855, 3.845, 3.995, 4.05, 4.035),
    "r": (4.71, 4.6, 4.72, 4.76, 4.725, 4.895),
    "i": (5.165, 6.565, 4.86, 4.885, 4.64, 4.76),
    "z": (4.745, 5.155, 4.885, 4.775, 3.48, 4.69),
}
# Counts squared a pixel [1].
_DARK_VARIANCE = {
    "u": (9.61, 12.6025, 8.7025, 12.6025, 9.3025, 7.0225),
    "g": (15.6025, 1.44, 1.3225, 1.96, 1.1025, 1.8225),
    "r": (1.8225, 1.0, 1.3225, 1.3225, 0.81, 0.9025),
    "i": (7.84, 5.76, 4.6225, 6.25, 7.84, 5.0625),
    "z": (0.81, 1.0, 1.0, 9.61, 1.8225, 1.21),
}
# Where the camera changed: (band, camcol) -> (last run before, value since) [1]. The data model gives 6.565
# for ("i", 2) throughout; psField of run 2583 says 5.195, and so does the scatter of blank pixels in runs
# 2583 and 3184 (6.565 is 15 % short of it), so the gain is taken to have changed with the dark
# variance of the same amplifier.
_GAIN_SINCE = {("u", 2): (1100, 1.825), ("i", 2): (1500, 5.195)}
_DARK_VARIANCE_SINCE = {
    ("i", 2): (1500, 6.25),
    ("i", 4): (1500, 7.5625),
    ("z", 4): (1500, 12.6025),
    ("z", 5): (1500, 2.1025),
}


def gain(band: str, camcol: int, run: int) -> float:
    """Return the amplifiers' mean gain in electrons a count."""
    last, value = _GAIN_SINCE.get((band, camcol), (run, 0.0))
    return value if run > last else _GAIN[band][camcol - 1]


def dark_variance(band: str, camcol: int, run: int) -> float:
    """Return the variance of an unexposed pixel (read noise, dark current) in counts squared."""
    last, value = _DARK_VARIANCE_SINCE.get((band, camcol), (run, 0.0))
    return value if run > last else _DARK_VARIANCE[band][camcol - 1]


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """What is needed for the variance of any pixel of one frame.

    Attributes
    ----------
    calibration
        Nanomaggies a count, one value a column, shape (nx,).
    sky
        Sky that was subtracted, in counts, on a coarse grid, shape (sy, sx).
    x, y
        Position in ``sky`` of each column (nx,) and row (ny,) of the frame.
    gain
        Electrons a count.
    dark_variance
        Counts squared.
    """

    calibration: Floats
    sky: Floats
    x: Floats
    y: Floats
    gain: float
    dark_variance: float

    def sky_rows(self, rows: NDArray[np.int64]) -> Floats:
        """Return the sky in counts of some rows, every column: shape (n, nx).

        Bilinear; beyond the grid's edge the nearest value, as the data model prescribes.
        """
        row, above = _split(self.y[rows], self.sky.shape[0])
        column, right = _split(self.x, self.sky.shape[1])
        lines = self.sky[row] * (1 - above)[:, None] + self.sky[row + 1] * above[:, None]
        return (lines[:, column] * (1 - right) + lines[:, column + 1] * right).astype(np.float32)

    def background_sigma(self, grid: tuple[int, int]) -> Floats:
        """Return the standard deviation of blank sky on a coarse grid.

        Parameters
        ----------
        grid
            Rows and columns of the grid, at most one a pixel. Cell (i, j) is the mean over
            its columns, at its middle row.

        Returns
        -------
        NDArray[np.float32]
            Nanomaggies a pixel, shape ``grid``.
        """
        ny, nx = len(self.y), len(self.x)
        my, mx = min(grid[0], ny), min(grid[1], nx)
        rows = ((np.arange(my) + 0.5) * ny / my).astype(np.int64)
        counts = np.maximum(self.sky_rows(rows), 0) / self.gain + self.dark_variance
        sigma = np.sqrt(counts) * self.calibration
        edges = (np.arange(mx + 1) * nx) // mx
        return (np.add.reduceat(sigma, edges[:-1], axis=1) / np.diff(edges)).astype(np.float32)

    def inverse_variance(self, pixels: Floats) -> Floats:
        """Return the inverse variance of every pixel, its source's photon noise included.

        Parameters
        ----------
        pixels
            The frame in nanomaggies, shape (ny, nx).

        Returns
        -------
        NDArray[np.float32]
            Nanomaggies to the power -2, shape (ny, nx); 0 where the pixel is NaN.
        """
        counts = pixels / self.calibration + self.sky_rows(np.arange(len(self.y)))
        variance = (np.maximum(counts, 0) / self.gain + self.dark_variance) * self.calibration**2
        return np.where(np.isnan(variance), np.float32(0), 1 / variance).astype(np.float32)


def _split(position: Floats, size: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the grid cell below each position, and the fraction of the way to the next."""
    inside = np.clip(position, 0, size - 1)
    below = np.minimum(inside.astype(np.int64), size - 2)
    return below, (inside - below).astype(np.float32)
