"""The gnomonic (TAN) projection in plain NumPy: where positions fall on an image, by the thousand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TanFrame", "edge_distance", "tan_pixels", "tan_sky", "unit_vectors"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TanFrame:
    """The TAN world coordinate system of one image and its size.

    Attributes
    ----------
    crval
        Right ascension and declination of the reference point in degrees.
    crpix
        Its pixel, 1-based as in FITS.
    cd
        CD1_1, CD1_2, CD2_1, CD2_2 in degrees a pixel.
    shape
        (ny, nx) in pixels.
    """

    crval: tuple[float, float]
    crpix: tuple[float, float]
    cd: tuple[float, float, float, float]
    shape: tuple[int, int]

    @property
    def scale(self) -> float:
        """Side of a pixel in degrees."""
        a, b, c, d = self.cd
        return float(np.sqrt(abs(a * d - b * c)))

    def pixels(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return 0-based pixel positions of sky positions; see `tan_pixels`."""
        return tan_pixels(np.array([*self.crval, *self.crpix, *self.cd]), ra, dec)

    def centre(self) -> tuple[float, float]:
        """Return right ascension and declination of the image's middle in degrees."""
        ny, nx = self.shape
        middle = np.array([(nx - 1) / 2.0]), np.array([(ny - 1) / 2.0])
        ra, dec = tan_sky(np.array([*self.crval, *self.crpix, *self.cd]), *middle)
        return float(ra[0]), float(dec[0])


def tan_pixels(parameters: Floats, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Project sky positions onto pixels.

    Parameters
    ----------
    parameters
        crval (2), crpix (2), cd (4) as in `TanFrame`, shape (8,) or (8, n) for n different images.
    ra, dec
        Degrees, shape (n,).

    Returns
    -------
    tuple[NDArray, NDArray]
        0-based x and y, shape (n,); NaN for positions 90 degrees or more from the reference point.

    References
    ----------
    Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3 (TAN).
    """
    ra0, dec0, crpix1, crpix2, a, b, c, d = np.asarray(parameters, dtype=np.float64)
    delta = np.radians(ra - ra0)
    sin_dec, cos_dec = np.sin(np.radians(dec)), np.cos(np.radians(dec))
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    depth = sin_dec * sin0 + cos_dec * cos0 * np.cos(delta)
    depth = np.where(depth > 0, depth, np.nan)
    xi = np.degrees(cos_dec * np.sin(delta) / depth)
    eta = np.degrees((sin_dec * cos0 - cos_dec * sin0 * np.cos(delta)) / depth)
    determinant = _turn(dec0) * (a * d - b * c)
    x = (d * xi - b * eta) / determinant + crpix1 - 1.0
    y = (a * eta - c * xi) / determinant + crpix2 - 1.0
    return x, y


def tan_sky(parameters: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the sky positions of 0-based pixels in degrees; the inverse of `tan_pixels`."""
    ra0, dec0, crpix1, crpix2, a, b, c, d = np.asarray(parameters, dtype=np.float64)
    u, v = _turn(dec0) * (x - crpix1 + 1.0), _turn(dec0) * (y - crpix2 + 1.0)
    xi, eta = np.radians(a * u + b * v), np.radians(c * u + d * v)
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    ra = ra0 + np.degrees(np.arctan2(xi, cos0 - eta * sin0))
    dec = np.degrees(np.arctan2(sin0 + eta * cos0, np.hypot(xi, cos0 - eta * sin0)))
    return ra % 360.0, dec


def _turn(dec0: Floats) -> Floats:
    """Return -1 where the reference point is the north pole itself: LONPOLE is 0 by default there."""
    return np.where(dec0 >= 90.0, -1.0, 1.0)


def edge_distance(x: Floats, y: Floats, shape: tuple[int, int] | NDArray[np.int64]) -> Floats:
    """Return how far inside an image positions lie, in pixels.

    Parameters
    ----------
    x, y
        0-based positions, shape (n,).
    shape
        (ny, nx), or shape (2, n) for n different images.

    Returns
    -------
    NDArray[np.float64]
        Distance to the nearest edge, positive inside; outside, minus the Euclidean distance to
        the image; minus infinity where the position is NaN.
    """
    ny, nx = shape
    right, left = nx - 0.5 - x, x + 0.5
    top, bottom = ny - 0.5 - y, y + 0.5
    inside = np.minimum(np.minimum(left, right), np.minimum(bottom, top))
    beside = np.hypot(np.minimum(np.minimum(left, right), 0), np.minimum(np.minimum(bottom, top), 0))
    distance = np.where(inside >= 0, inside, -beside)
    return np.where(np.isnan(distance), -np.inf, distance)


def unit_vectors(ra: Floats, dec: Floats) -> Floats:
    """Return the unit vectors of sky positions in degrees, shape (n, 3)."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
