"""How a cutout is laid on the sky: its TAN grid, pixel scale and size, and which sizes can be cut.

The grid of a cutout is a gnomonic (TAN) projection with its tangent point at the
object, north up (the row number grows to the north) and east left (the column
number grows to the west). The tangent point lies at the exact centre of the
cutout: at 0-based pixel ``(size - 1) / 2``, FITS pixel ``(size + 1) / 2``.

References
----------
.. [1] M. R. Calabretta and E. W. Greisen, "Representations of celestial coordinates
   in FITS", A&A 395, 1077 (2002), sections 2.2 and 5.1.3.
"""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from gzscale.config import GeometryConfig
from gzscale.errors import Reason

__all__ = ["MAX_SCALE", "MAX_WIDTH", "check_sizes", "grid_to_sky", "half_diagonal", "pixel_scales", "wcs_of"]

#: Widest cutout in degrees. A frame of SDSS is 0.23 degrees high; beyond twice that, a
#: cutout is no picture of one galaxy, and most likely its size is in another unit.
MAX_WIDTH = 0.5
#: Coarsest cutout in arcsec a pixel: it bounds the memory of the overlap tables, and a galaxy that
#: needs coarser pixels is larger than any frame.
MAX_SCALE = 30.0

_ARCSEC = np.pi / 180 / 3600


def check_sizes(
    config: GeometryConfig, sizes: NDArray[np.floating] | None, count: int
) -> dict[int, tuple[Reason, str]]:
    """Find the objects whose size does not allow a cutout of this geometry.

    Parameters
    ----------
    config
        The geometry.
    sizes
        Sizes of the objects in arcsec, shape (count,), NaN where missing; None if the catalog has none.
    count
        Number of objects.

    Returns
    -------
    dict[int, tuple[Reason, str]]
        Row -> reason (``MISSING_SIZE`` or ``BAD_SIZE``) and one sentence. A geometry of
        fixed scale needs no size; it refuses everybody if it is too wide or too coarse itself.
    """
    limit = min(MAX_SCALE, MAX_WIDTH * 3600 / config.size)
    if not config.needs_size:
        if config.factor <= limit:
            return {}
        sentence = f"{config.size} pixels of {config.factor:g} arcsec: at most {limit:g} arcsec can be cut"
        return dict.fromkeys(range(count), (Reason.BAD_SIZE, sentence))
    if sizes is None:
        return dict.fromkeys(range(count), (Reason.MISSING_SIZE, "the catalog has no size column"))
    largest = limit / config.factor
    refused: dict[int, tuple[Reason, str]] = {}
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~((sizes > 0) & (sizes <= largest)))
    for row in wrong.tolist():
        size = float(sizes[row])
        if np.isnan(size):
            refused[row] = (Reason.MISSING_SIZE, f"the size is missing; the scale is {config.scale!r}")
        else:
            refused[row] = (
                Reason.BAD_SIZE,
                f"size {size:g} arcsec is not above 0 and at most {largest:g} arcsec "
                f"({config.size} pixels of {limit:g} arcsec)",
            )
    return refused


def pixel_scales(
    config: GeometryConfig, sizes: NDArray[np.floating] | None, count: int
) -> NDArray[np.float64]:
    """Return each object's pixel scale.

    Parameters
    ----------
    config
        The geometry.
    sizes
        Sizes in arcsec, shape (count,); not used by a geometry of fixed scale.
    count
        Number of objects.

    Returns
    -------
    NDArray[np.float64]
        Arcsec a pixel, shape (count,); NaN where `check_sizes` refuses the object.
    """
    if sizes is None and config.needs_size:
        return np.full(count, np.nan)
    if not config.needs_size:
        scales = np.full(count, config.factor)
    else:
        scales = config.factor * np.asarray(sizes, dtype=np.float64)
    scales[list(check_sizes(config, sizes, count))] = np.nan
    return scales


def half_diagonal(config: GeometryConfig, scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return half the diagonal of each cutout in degrees, shape of ``scales`` (arcsec a pixel)."""
    return config.size * scales / np.sqrt(2.0) / 3600


def grid_to_sky(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    right: NDArray[np.float64],
    up: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sky positions of points on the tangent planes of some objects.

    The gnomonic projection inverted with vectors, which has no special case at the poles.

    Parameters
    ----------
    ra, dec
        Tangent points in degrees, shape (n, 1).
    right, up
        Offsets on the plane in arcsec, to the west and to the north, shape (n, m).

    Returns
    -------
    ra, dec : NDArray[np.float64]
        Degrees, shape (n, m), ra in [0, 360).
    """
    alpha, delta = np.radians(ra), np.radians(dec)
    xi, eta = -right * _ARCSEC, up * _ARCSEC
    # Unit vectors at the tangent point: outward, east and north; the point is their sum.
    along = np.cos(delta) - eta * np.sin(delta)
    x = along * np.cos(alpha) - xi * np.sin(alpha)
    y = along * np.sin(alpha) + xi * np.cos(alpha)
    z = np.sin(delta) + eta * np.cos(delta)
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def wcs_of(ra: float, dec: float, scale: float, size: int) -> WCS:
    """Return the world coordinate system of one cutout.

    Parameters
    ----------
    ra, dec
        Position of the object in degrees (ICRS).
    scale
        Arcsec a pixel.
    size
        Side in pixels.

    Returns
    -------
    astropy.wcs.WCS
        TAN, ICRS, north up, east left, ``CRPIX = (size + 1) / 2``.
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(size + 1) / 2, (size + 1) / 2]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    # At the pole itself, LONPOLE's default depends on the sign of a zero; 180 keeps north up.
    wcs.wcs.lonpole = 180.0
    wcs.wcs.radesys = "ICRS"
    wcs.array_shape = (size, size)
    wcs.wcs.set()
    return wcs
