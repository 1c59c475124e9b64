"""The synthetic camera: gain, dark variance, sky, calibration, seeing and noise of the SDSS imager.

Pixels are made as the real camera makes them [1]_: electrons of sky and source arrive by
Poisson statistics, are divided by the gain, read with the dark variance, digitised to
whole counts; the sky is subtracted, the calibration multiplied in, and the mantissa cut to
ten binary digits.

References
----------
.. [1] SDSS data model, ``frame`` (BOSS_PHOTOOBJ/frames): "how to calculate the noise".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gzscale.sky.scan import BANDS, COLUMNS, FIELD_STEP, ROWS, RUN, FieldKey

__all__ = [
    "DARK_VARIANCE",
    "GAIN",
    "NANOMAGGIES_PER_COUNT",
    "SEEING",
    "calibration",
    "float_compress",
    "observe",
    "sky_counts",
]

#: Electrons a count, by band and camera column 1 to 6 (the data model's table; runs after 1100).
GAIN = {
    "u": (1.62, 1.825, 1.59, 1.6, 1.47, 2.17),
    "g": (3.32, 3.855, 3.845, 3.995, 4.05, 4.035),
    "r": (4.71, 4.6, 4.72, 4.76, 4.725, 4.895),
    "i": (5.165, 6.565, 4.86, 4.885, 4.64, 4.76),
    "z": (4.745, 5.155, 4.885, 4.775, 3.48, 4.69),
}
#: Read noise and dark current, counts squared (the same table; runs after 1500).
DARK_VARIANCE = {
    "u": (9.61, 12.6025, 8.7025, 12.6025, 9.3025, 7.0225),
    "g": (15.6025, 1.44, 1.3225, 1.96, 1.1025, 1.8225),
    "r": (1.8225, 1.0, 1.3225, 1.3225, 0.81, 0.9025),
    "i": (7.84, 6.25, 4.6225, 7.5625, 7.84, 5.0625),
    "z": (0.81, 1.0, 1.0, 12.6025, 2.1025, 1.21),
}
#: Sky in counts a pixel, and nanomaggies a count, of the real frames of 3918-3-213.
SKY_COUNTS = {"u": 16.0, "g": 54.2, "r": 97.0, "i": 130.1, "z": 70.3}
NANOMAGGIES_PER_COUNT = {"u": 0.00971, "g": 0.00378, "r": 0.00511, "i": 0.00679, "z": 0.03624}
#: Full width at half maximum of a star in arcsec, the survey's medians by band
#: (Data Release 7 paper, Abazajian et al. 2009; r: 1.32).
SEEING = {"u": 1.53, "g": 1.44, "r": 1.32, "i": 1.26, "z": 1.29}
#: The largest count above the software bias of 1000 that 16 bits hold.
SATURATION = 64535.0
#: Variance of rounding to whole counts, part of the dark variance that the table gives.
_ROUNDING_VARIANCE = 1 / 12


def calibration(camcol: int, band: str) -> NDArray[np.float32]:
    """Return nanomaggies a count in each column of the CCD, shape (2048,): flat field times calibration."""
    phase = 1.7 * camcol + BANDS.index(band)
    column = np.arange(COLUMNS) / COLUMNS
    flat = 1 + 0.006 * np.sin(2 * np.pi * column + phase) + 0.003 * np.cos(14 * np.pi * column - phase)
    return (NANOMAGGIES_PER_COUNT[band] * flat).astype(np.float32)


def sky_counts(camcol: int, band: str, row: ArrayLike, column: ArrayLike) -> NDArray[np.float32]:
    """Return the sky in counts on a grid of rows of the run and columns, shape (rows, columns), float32.

    It varies slowly, by half a percent, so that interpolation between the 8-pixel bins
    that a frame stores is exact to 0.001 count.
    """
    level = SKY_COUNTS[band] * (1 + 0.01 * (camcol - 3))
    row, column = np.asarray(row, float), np.asarray(column, float)
    along = 0.002 * np.sin(2 * np.pi * row / 5200 + camcol) + 0.001 * np.sin(2 * np.pi * row / 1900)
    across = 0.0015 * np.cos(2 * np.pi * column / 3000 + BANDS.index(band))
    return (level * (1 + along[:, None] + across[None, :])).astype(np.float32)


def float_compress(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to ten significant binary digits, half away from zero: FLOATCOMPRESS of idlutils."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(1 << 13)) & np.uint32(0xFFFFFFFF ^ ((1 << 14) - 1))
    return rounded.view(np.float32)


def observe(source: NDArray[np.float32], key: FieldKey, band: str, seed: int) -> NDArray[np.float32]:
    """Turn the flux that falls on a frame into the frame's pixels.

    Noise is drawn by blocks of 1,361 rows of the run, so that the 128 rows that two
    consecutive fields share have the same values in both.

    Parameters
    ----------
    source
        Nanomaggies a pixel without noise, shape (1489, 2048).
    key, band
        Which frame.
    seed
        Of the sky.

    Returns
    -------
    NDArray[np.float32]
        Sky-subtracted nanomaggies a pixel, ten significant binary digits.
    """
    calib = calibration(key.camcol, band)
    sky = sky_counts(key.camcol, band, key.first_row + np.arange(ROWS), np.arange(COLUMNS))
    expected = np.minimum(np.maximum(source / calib, 0) + sky, SATURATION)
    counts = np.empty((ROWS, COLUMNS), np.float32)
    for field, rows in ((key.field, slice(0, FIELD_STEP)), (key.field + 1, slice(FIELD_STEP, ROWS))):
        counts[rows] = _read_out(expected[rows], key.camcol, band, (seed, key.camcol, field))
    return float_compress((counts - sky) * calib)


def _read_out(
    expected: NDArray[np.float32], camcol: int, band: str, block: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Draw whole counts of a block; the generators run along its rows, so a part of the rows has the same."""
    gain = GAIN[band][camcol - 1]
    read_noise = np.sqrt(max(DARK_VARIANCE[band][camcol - 1] - _ROUNDING_VARIANCE, 0.0))
    photons, amplifier = (
        np.random.Generator(np.random.SFC64([*block, RUN, BANDS.index(band), part])) for part in (0, 1)
    )
    counts = photons.poisson(expected * gain).astype(np.float32)
    counts /= np.float32(gain)
    counts += np.float32(read_noise) * amplifier.standard_normal(expected.shape, dtype=np.float32)
    return np.minimum(np.rint(counts), np.float32(SATURATION))
