"""The synthetic Rubin coadd: depth, seeing and noise of one year's visits, pixel by pixel.

Depths, seeing and visits are those that the survey expects [1]_; ten years are 1.25 mag deeper. The noise
of the background is drawn by blocks of the tract's pixels, so that patches that share pixels share their
values.

References
----------
.. [1] Z. Ivezic et al. 2019, ApJ 873, 111, tables 1 and 2; effective area of a point source: LSE-40.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gzscale.sky.rubin_grid import PIXEL_SCALE, Box
from gzscale.surveys.rubin_coadd import NANOJANSKY

__all__ = ["BANDS", "MASK_PLANES", "SEEING", "background_sigma", "electrons", "expose", "saturation"]

BANDS = "ugrizy"
#: Full width at half maximum of a star, arcsec.
SEEING = {"u": 0.92, "g": 0.87, "r": 0.83, "i": 0.80, "z": 0.78, "y": 0.76}
#: AB magnitude of a point source at 5 sigma after one year.
DEPTH = {"u": 24.85, "g": 26.15, "r": 26.25, "i": 25.55, "z": 24.85, "y": 23.65}
#: Visits of 30 s in a year, and AB magnitude of one electron a second.
_VISITS = {"u": 5.6, "g": 8.0, "r": 18.4, "i": 18.4, "z": 16.0, "y": 16.0}
_ZERO_POINT = {"u": 26.50, "g": 28.30, "r": 28.13, "i": 27.79, "z": 27.40, "y": 26.58}
_EXPOSURE = 30.0
#: Electrons in a visit's pixel from which it is saturated.
_FULL_WELL = 100_000.0
#: Planes of the mask by bit, in the order in which LSST's software declares them.
MASK_PLANES = (
    *("BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "SUSPECT", "NO_DATA"),
    *("BRIGHT_OBJECT", "CLIPPED", "INEXACT_PSF", "REJECTED", "SENSOR_EDGE"),
)
#: Standard deviations above the background from which a pixel is part of a source.
_DETECTED = 5.0
#: Side of a block of noise in pixels.
_BLOCK = 250


def background_sigma(band: str) -> float:
    """Return the standard deviation of the background in nJy a pixel.

    The flux of a point source at 5 sigma is 5 sigma sqrt(n), with n = 2.266 (FWHM / pixel)^2 pixels.
    """
    flux = 10 ** (0.4 * (31.4 - DEPTH[band]))
    return float(flux / (5 * np.sqrt(2.266) * SEEING[band] / PIXEL_SCALE))


def electrons(band: str) -> float:
    """Return the electrons that one nJy makes in all visits together."""
    return _electrons_a_visit(band) * _VISITS[band]


def saturation(band: str) -> float:
    """Return the nanomaggies a pixel from which on a visit's pixel is saturated."""
    return _FULL_WELL / _electrons_a_visit(band) * NANOJANSKY


def _electrons_a_visit(band: str) -> float:
    return float(_EXPOSURE * 10 ** (0.4 * (_ZERO_POINT[band] - 31.4)))


def expose(
    source: NDArray[np.float32], band: str, box: Box, seen: NDArray[np.bool_], key: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Turn the flux that falls on a patch into the planes of its coadd.

    Parameters
    ----------
    source
        Nanomaggies a pixel without noise, shape (ny, nx).
    band
        The band.
    box
        Which of the tract's pixels they are.
    seen
        Which of them any visit saw.
    key
        Seed of the sky and number of the tract.

    Returns
    -------
    image, mask, variance
        nJy, bits of `MASK_PLANES`, nJy squared; NaN and NO_DATA where nothing was seen.
    """
    expected = source.astype(np.float64) / NANOJANSKY
    sigma = background_sigma(band)
    variance = sigma**2 + np.maximum(expected, 0) / electrons(band)
    image = expected + np.sqrt(variance) * _noise(band, box, key)
    mask = np.zeros(source.shape, np.int32)
    for plane, where in (
        ("DETECTED", expected > _DETECTED * sigma),
        ("SAT", expected * _electrons_a_visit(band) > _FULL_WELL),
        ("NO_DATA", ~seen),
    ):
        mask[where] |= 1 << MASK_PLANES.index(plane)
    image[~seen] = variance[~seen] = np.nan
    return image.astype(np.float32), mask, variance.astype(np.float32)


def _noise(band: str, box: Box, key: tuple[int, int]) -> NDArray[np.float32]:
    """Draw standard normal noise for a box of a tract's pixels, block by block."""
    x0, y0, x1, y1 = box
    noise = np.empty((y1 - y0, x1 - x0), np.float32)
    for row in range(y0 // _BLOCK, -(-y1 // _BLOCK)):
        for column in range(x0 // _BLOCK, -(-x1 // _BLOCK)):
            rng = np.random.Generator(np.random.SFC64([*key, row, column, BANDS.index(band)]))
            block = rng.standard_normal((_BLOCK, _BLOCK), dtype=np.float32)
            left, bottom = column * _BLOCK, row * _BLOCK
            xs = slice(max(x0, left), min(x1, left + _BLOCK))
            ys = slice(max(y0, bottom), min(y1, bottom + _BLOCK))
            noise[ys.start - y0 : ys.stop - y0, xs.start - x0 : xs.stop - x0] = block[
                ys.start - bottom : ys.stop - bottom, xs.start - left : xs.stop - left
            ]
    return noise
