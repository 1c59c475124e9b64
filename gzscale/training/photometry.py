"""Total fluxes of galaxies on their stamps: what an astronomer would measure redshifts from without images.

The radius is Petrosian's in a reference band: where the surface brightness at the radius is 0.2 of the
mean within it (Blanton et al. 2001, AJ 121, 2358). The total in that band is the flux within twice the
radius. Colours come from the same profile fitted in every band, as SDSS's model magnitudes do: the
amplitude of the reference band's circular profile, weighted by it, which measures faint bands
better than the sum over the aperture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["total_fluxes"]

#: Petrosian ratio, and the aperture in Petrosian radii.
RATIO, REACH = 0.2, 2.0
#: Stamps that are measured together.
_BLOCK = 512


def total_fluxes(images: NDArray[np.floating], reference: int) -> NDArray[np.float32]:
    """Measure the total flux in every band.

    Parameters
    ----------
    images
        Nanomaggies a pixel, sky subtracted, the galaxy at the centre, shape (n, B, y, x); NaN where there is
        no measurement.
    reference
        Index of the band whose profile is used.

    Returns
    -------
    NDArray[np.float32]
        Nanomaggies, shape (n, B); NaN where a band was not measured, or the reference band
        has no flux.
    """
    side = images.shape[-1]
    middle = np.arange(side) - (side - 1) / 2
    ring = np.hypot(middle[:, None], middle).astype(np.int64).ravel()
    rings = int(side // 2)
    member = (ring[:, None] == np.arange(rings)).astype(np.float32)
    found = np.full(images.shape[:2], np.nan, np.float32)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].astype(np.float32).reshape(-1, images.shape[1], side * side)
        found[start : start + _BLOCK] = _measure(block, reference, member)
    return found


def _measure(block: NDArray[np.float32], reference: int, member: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.isfinite(block)
    block = np.where(known, block, 0)
    area = np.maximum(known[:, reference].astype(np.float32) @ member, 1e-6)
    profile = (block[:, reference] @ member) / area
    whole = member.sum(axis=0)
    growth = np.cumsum(profile * whole, axis=1)
    inside = growth / np.cumsum(whole)
    # The first ring from which on the profile stays below the ratio; the centre is always inside.
    falls = profile[:, 1:] < RATIO * inside[:, 1:]
    radius = np.where(falls.any(axis=1), falls.argmax(axis=1) + 1, member.shape[1] - 1)
    last = np.minimum(np.ceil(REACH * radius).astype(np.int64), member.shape[1] - 1)
    rows = np.arange(len(block))
    total = growth[rows, last]
    shape = np.where(np.arange(member.shape[1]) <= last[:, None], np.maximum(profile, 0), 0)
    weight = (shape @ member.T)[:, None] * known
    power = (weight**2).sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        amplitude = (weight * block).sum(axis=2) / power
        fluxes = amplitude / amplitude[:, reference, None] * total[:, None]
    fluxes[(power <= 0) | (total <= 0)[:, None]] = np.nan
    return fluxes
