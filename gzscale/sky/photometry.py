"""Photometry of cutouts: what a survey's catalog would say of the galaxy in the middle, noise and all.

Apertures are circular and centred; the Petrosian radius is measured in r. Colours come from
one aperture in all bands, the r magnitude from twice its radius, as SDSS's model colours and Petrosian
magnitudes divide the work. What does not match the other side of the galaxy is taken for a neighbour and
replaced by it: the symmetry by which SDSS's deblender begins (Lupton et al. 2001, ASP Conf. 238, 269).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SOFTENING", "Photometry", "asinh_magnitude", "measure"]

#: Softening parameters b of SDSS's asinh magnitudes (Lupton, Gunn & Szalay 1999, AJ 118, 1406; Stoughton
#: et al. 2002, AJ 123, 485, table 21).
SOFTENING = {"u": 1.4e-10, "g": 0.9e-10, "r": 1.2e-10, "i": 1.8e-10, "z": 7.4e-10, "y": 7.4e-10}
#: A pixel is a neighbour's if it is above its mirror image by so many times the noise.
_ASYMMETRY = 4.0
#: Surface brightness on the Petrosian radius over the mean within; the flux is that within twice the radius.
_PETROSIAN_RATIO, _PETROSIAN_APERTURE = 0.2, 2.0
#: Cutouts that are measured at once: it bounds the memory.
_BATCH = 128


@dataclass(frozen=True, slots=True)
class Photometry:
    """Of n cutouts.

    Attributes
    ----------
    flux
        Nanomaggies, shape (n, bands): in r within two Petrosian radii, in the other bands with the colours
        of the aperture of one Petrosian radius. Light beyond the cutout is not in it.
    error
        Standard deviation of ``flux`` by the background's noise, same shape.
    radius
        Petrosian radius in arcsec, shape (n,), seeing included.
    """

    flux: NDArray[np.float64]
    error: NDArray[np.float64]
    radius: NDArray[np.float64]


def measure(
    images: NDArray[np.floating], noise: NDArray[np.floating], scale: float, bands: str
) -> Photometry:
    """Measure the galaxies in the middle of cutouts.

    Parameters
    ----------
    images
        Nanomaggies a pixel, shape (n, bands, size, size), finite.
    noise
        Background sigma of a pixel, shape (n, bands).
    scale
        Arcsec a pixel.
    bands
        One letter a band; r is among them.
    """
    red = bands.index("r")
    size = images.shape[-1]
    axis = np.arange(size) - (size - 1) / 2
    distance = np.hypot(axis[:, None], axis[None, :]).ravel()
    edges = np.arange(1.0, size / 2 - 0.5, 0.5)
    # Shape (pixels, radii): the share of each pixel within each radius.
    inside = np.clip(edges[None, :] - distance[:, None] + 0.5, 0.0, 1.0)
    curve = np.empty((len(images), len(bands), len(edges)))
    for first in range(0, len(images), _BATCH):
        part = slice(first, first + _BATCH)
        pixels = _without_neighbours(np.asarray(images[part], np.float32), noise[part], red)
        curve[part] = pixels.reshape(len(pixels), len(bands), -1) @ inside.astype(np.float32)
    area = inside.sum(axis=0)
    radius = _petrosian_radius(curve[:, red], edges, area)
    aperture = _at(curve, edges, radius)
    total = _at(curve[:, [red]], edges, np.minimum(_PETROSIAN_APERTURE * radius, edges[-1]))[:, 0]
    # A galaxy too faint for its r flux to be positive keeps its aperture's.
    growth = np.where(
        (aperture[:, red] > 0) & (total > 0), total / np.where(aperture[:, red] > 0, aperture[:, red], 1), 1
    )
    error = noise * np.sqrt(np.interp(radius, edges, area))[:, None] * growth[:, None]
    return Photometry(aperture * growth[:, None], error, radius * scale)


def _without_neighbours(
    pixels: NDArray[np.float32], noise: NDArray[np.floating], red: int
) -> NDArray[np.float32]:
    """Replace what is much brighter than its mirror image in r, in all bands."""
    mirror = pixels[:, :, ::-1, ::-1]
    brighter = pixels[:, red] - mirror[:, red]
    # A galaxy's own structure is less than a third of its light there.
    limit = np.float32(_ASYMMETRY * np.sqrt(2)) * noise[:, red, None, None] + np.float32(0.3) * np.abs(
        mirror[:, red]
    )
    return np.where((brighter > limit)[:, None], mirror, pixels)


def _petrosian_radius(
    curve: NDArray[np.float64], edges: NDArray[np.float64], area: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the first radius at which the ring's surface brightness is a fifth of that within, in pixels."""
    inner, outer = (np.clip(factor * edges, edges[0], edges[-1]) for factor in (0.8, 1.25))

    def at(places: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        position = (places - edges[0]) / (edges[1] - edges[0])
        low = np.minimum(position.astype(int), len(edges) - 2)
        return values[..., low] + (position - low) * (values[..., low + 1] - values[..., low])

    ring = (at(outer, curve) - at(inner, curve)) / (at(outer, area) - at(inner, area))
    below = (ring < _PETROSIAN_RATIO * curve / area) & (edges >= 2.5)
    first = np.where(below.any(axis=1), below.argmax(axis=1), len(edges) - 1)
    return edges[first]


def _at(
    curve: NDArray[np.float64], edges: NDArray[np.float64], radius: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the flux within each galaxy's radius, shape (n, bands); radii lie on or between the edges."""
    position = (radius - edges[0]) / (edges[1] - edges[0])
    low = np.clip(position.astype(int), 0, len(edges) - 2)
    part = (position - low)[:, None]
    number = np.arange(len(curve))
    return (1 - part) * curve[number, :, low] + part * curve[number, :, low + 1]


def asinh_magnitude(flux: NDArray[np.floating], bands: str) -> NDArray[np.float64]:
    """Return SDSS's asinh magnitudes, shape (n, bands), finite for fluxes of any sign (nanomaggies)."""
    softening = np.array([SOFTENING[band] for band in bands])
    return -2.5 / np.log(10) * (np.arcsinh(1e-9 * flux / (2 * softening)) + np.log(softening))
