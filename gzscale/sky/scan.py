"""The synthetic run: a drift scan along a great circle, its fields, their astrometry and identifiers.

Rows are counted along the whole run: row 0 is the first row of the first field in the
r band, and field k starts at row ``1361 k`` of every band. Where a pixel of a band lies on
the sky is said once, by the asTrans relation [1]_ without its higher terms::

    mu = A + B (row + 0.5) + C (column + 0.5),    nu = D + F (column + 0.5)

with (mu, nu) the great-circle coordinates of the stripe; the frames' TAN headers are the
best linear fit to it, as SDSS's are.

References
----------
.. [1] SDSS data model, ``asTrans`` and ``frame``; J. Pier et al. 2003, AJ 125, 1559.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gzscale.errors import ConfigError

__all__ = [
    "BANDS",
    "COLUMNS",
    "FIELD_STEP",
    "PIXEL_SCALE",
    "RERUN",
    "ROWS",
    "RUN",
    "FieldKey",
    "FrameWcs",
    "column_angle",
    "exposures",
    "frame_wcs",
    "mu_nu",
    "object_id",
    "pixel_to_sky",
    "primary_field",
    "sky_to_pixel",
    "transform",
]

BANDS = "ugriz"
#: Pixels of a frame along a row and along a column.
COLUMNS, ROWS = 2048, 1489
#: Rows from one field to the next; the 128 rows that remain are in both.
FIELD_STEP = 1361
#: A field owns the objects from this row of it to ``FIELD_STEP`` rows further.
PRIMARY_MARGIN = 64
#: Side of a pixel in arcsec.
PIXEL_SCALE = 0.396
_DEGREE_PER_PIXEL = PIXEL_SCALE / 3600

#: The run's number lies in the 16 bits of an objID and beyond every run of the real survey (94 to 8162).
RUN, RERUN = 9000, 301
FIRST_FIELD = 11
#: Field numbers have 12 bits; a run of 900 fields spans 136 degrees, the longest that is plausible.
MAX_FIELDS = 900
#: Stripe 14: its great circle is inclined by 10 degrees and reaches declination +10.
STRIPE, NODE, INCLINATION = 14, 95.0, 10.0
#: Great-circle longitude where the run starts [deg].
MU_START = 157.0

#: Shift of a band against r in columns and rows, and rotation of its CCD, as measured
#: in the real frames of 3918-3-213.
_BAND_SHIFT = {
    "u": (-2.00, 3.72),
    "g": (-2.07, 8.93),
    "r": (0.0, 0.0),
    "i": (-1.29, 3.45),
    "z": (-1.53, 7.76),
}
_BAND_ROTATION = {"u": 3.8e-4, "g": 3.0e-4, "r": 1.6e-4, "i": 1.6e-4, "z": 3.3e-4}

#: Camera columns in the order in which they are filled: the two beside the great circle first.
_CAMCOL_ORDER = (3, 4, 2, 5, 1, 6)
_FIELDS_BEFORE_SECOND_CAMCOL = 20


@dataclass(frozen=True, slots=True, order=True)
class FieldKey:
    """One field of the run: camera column and field number."""

    camcol: int
    field: int

    @property
    def first_row(self) -> int:
        """Row of the run at which the field starts."""
        return FIELD_STEP * (self.field - FIRST_FIELD)


@dataclass(frozen=True, slots=True)
class FrameWcs:
    """A TAN header: 1-based ``crpix``, ``crval`` and ``cd`` in degrees."""

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cd: NDArray[np.float64]


def exposures(count: int) -> list[FieldKey]:
    """Lay ``count`` fields out on the camera columns of one run.

    Returns
    -------
    list[FieldKey]
        Sorted. Up to 20 fields follow each other in one camera column, up to 1,800
        in two; more take all six.

    Raises
    ------
    ConfigError
        If there are more fields than a run can have.
    """
    capacity = MAX_FIELDS * len(_CAMCOL_ORDER)
    if count > capacity:
        raise ConfigError(f"{count} fields: a synthetic run has at most {capacity}; ask for fewer objects")
    columns = 1 if count <= _FIELDS_BEFORE_SECOND_CAMCOL else 2 if count <= 2 * MAX_FIELDS else 6
    share, rest = divmod(count, columns)
    return sorted(
        FieldKey(camcol, FIRST_FIELD + number)
        for position, camcol in enumerate(_CAMCOL_ORDER[:columns])
        for number in range(share + (position < rest))
    )


def primary_field(row: ArrayLike, fields: int) -> NDArray[np.int64]:
    """Return which of a camera column's ``fields`` consecutive fields owns each row of the run."""
    number = np.floor_divide(np.asarray(row, float) - PRIMARY_MARGIN, FIELD_STEP).astype(np.int64)
    return np.clip(number, 0, fields - 1) + FIRST_FIELD


def object_id(camcol: ArrayLike, field: ArrayLike, number: ArrayLike) -> NDArray[np.int64]:
    """Return the DR8+ objID of the run's objects, int64.

    Bits 59-62 sky version (2), 48-58 rerun, 32-47 run, 29-31 camera column, 28 first
    field (0), 16-27 field, 0-15 number within the field.
    """
    head = (2 << 59) | (RERUN << 48) | (RUN << 32)
    parts = [np.asarray(part, np.int64) for part in (camcol, field, number)]
    return head | (parts[0] << 29) | (parts[1] << 16) | parts[2]


def transform(camcol: int, band: str) -> dict[str, float]:
    """Return the asTrans coefficients A to F of a band, rows counted along the run [deg, deg/pixel]."""
    scale = _DEGREE_PER_PIXEL
    columns, rows = _BAND_SHIFT[band]
    # Centres of the camera's columns lie 25.2 arcmin apart; camcol 3 and 4 straddle the great circle.
    centre = -0.107 + 0.416 * (camcol - 3)
    return {
        "A": MU_START - rows * scale,
        "B": scale,
        "C": _BAND_ROTATION[band] * scale,
        "D": centre - (COLUMNS / 2 + columns) * scale,
        "E": 0.0,
        "F": scale,
    }


def mu_nu(camcol: int, band: str, column: ArrayLike, row: ArrayLike) -> tuple[NDArray, NDArray]:
    """Map 0-based pixel positions of a band to great-circle coordinates in degrees."""
    a = transform(camcol, band)
    x, y = np.asarray(column, float) + 0.5, np.asarray(row, float) + 0.5
    return a["A"] + a["B"] * y + a["C"] * x, a["D"] + a["F"] * x


def sky_to_pixel(camcol: int, band: str, mu: ArrayLike, nu: ArrayLike) -> tuple[NDArray, NDArray]:
    """Map great-circle coordinates to 0-based column and row of the run: the inverse of `mu_nu`."""
    a = transform(camcol, band)
    x = (np.asarray(nu, float) - a["D"]) / a["F"]
    y = (np.asarray(mu, float) - a["A"] - a["C"] * x) / a["B"]
    return x - 0.5, y - 0.5


def _to_equatorial(mu: ArrayLike, nu: ArrayLike) -> tuple[NDArray, NDArray]:
    longitude, latitude = np.radians(np.asarray(mu, float) - NODE), np.radians(np.asarray(nu, float))
    tilt = np.radians(INCLINATION)
    x = np.cos(longitude) * np.cos(latitude)
    y = np.sin(longitude) * np.cos(latitude) * np.cos(tilt) - np.sin(latitude) * np.sin(tilt)
    z = np.sin(longitude) * np.cos(latitude) * np.sin(tilt) + np.sin(latitude) * np.cos(tilt)
    return (np.degrees(np.arctan2(y, x)) + NODE) % 360, np.degrees(np.arcsin(z))


def pixel_to_sky(camcol: int, band: str, column: ArrayLike, row: ArrayLike) -> tuple[NDArray, NDArray]:
    """Map 0-based pixel positions of a band, rows counted along the run, to ra and dec in degrees."""
    return _to_equatorial(*mu_nu(camcol, band, column, row))


def column_angle(camcol: int, column: ArrayLike, row: ArrayLike) -> NDArray[np.float64]:
    """Return the position angle, north through east, of the direction of growing columns [deg]."""
    column = np.asarray(column, float)
    ra, dec = pixel_to_sky(camcol, "r", column - 0.5, row)
    ra_next, dec_next = pixel_to_sky(camcol, "r", column + 0.5, row)
    return np.degrees(np.arctan2((ra_next - ra) * np.cos(np.radians(dec)), dec_next - dec))


def frame_wcs(key: FieldKey, band: str) -> FrameWcs:
    """Fit a frame's TAN header to the run's astrometry.

    The reference pixel is (1025, 745), as in the real frames; the CD matrix is the
    least-squares fit over the frame. In camera columns 3 and 4 it departs from the exact
    positions by less than 0.01 pixel at the corners.
    """
    centre_x, centre_y = 1024.0, 744.0
    ra0, dec0 = (float(value) for value in pixel_to_sky(key.camcol, band, centre_x, key.first_row + centre_y))
    columns, rows = (
        grid.ravel() for grid in np.meshgrid(np.linspace(0, COLUMNS - 1, 9), np.linspace(0, ROWS - 1, 9))
    )
    xi, eta = _gnomonic(*pixel_to_sky(key.camcol, band, columns, key.first_row + rows), ra0, dec0)
    offsets = np.stack([columns - centre_x, rows - centre_y], axis=1)
    solution = np.linalg.lstsq(offsets, np.stack([xi, eta], axis=1), rcond=None)[0]
    return FrameWcs((centre_x + 1, centre_y + 1), (ra0, dec0), solution.T)


def _gnomonic(ra: NDArray, dec: NDArray, ra0: float, dec0: float) -> tuple[NDArray, NDArray]:
    """Project onto the tangent plane at (ra0, dec0); Calabretta & Greisen 2002, section 5.1.3. Degrees."""
    delta, dec, dec0 = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    depth = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(delta)
    xi = np.cos(dec) * np.sin(delta) / depth
    eta = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(delta)) / depth
    return np.degrees(xi), np.degrees(eta)
