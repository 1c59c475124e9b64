"""What a strong lens is: an isothermal ellipsoid with shear, a source of clumps, and the arcs that it makes.

Only the light of the lensed source is drawn, in nanomaggies on a cutout's grid, through a seeing of its own
in each band. The deflector's light and the noise are those of the image that it is added to.

The deflection is ray-traced back from a grid three times finer than the pixels: each image point sees the
source's surface brightness at the point where its light came from, which lensing conserves.

References
----------
.. [1] Kormann, Schneider & Bartelmann 1994, A&A 284, 285 (the singular isothermal ellipsoid, section 3).
.. [2] Graham & Driver 2005, PASA 22, 118 (Sersic profiles, equations 1 to 4).
.. [3] Ciotti & Bertin 1999, A&A 352, 447 (the coefficient b of a Sersic profile, equation 18).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray
from scipy.special import gamma

__all__ = ["CLUMPS", "Lenses", "deflection", "observed", "render_arcs", "sersic_peak"]

#: Clumps of a source: the first is its body, the others are knots of star formation.
CLUMPS = 5
#: Points of the ray-traced grid along the side of a pixel; odd, so that one is at a pixel's centre.
OVERSAMPLING = 3
#: Profiles end at so many half-light radii; 1 % of an exponential's flux lies beyond 4.
_REACH = 5.0
#: An ellipsoid rounder than this is traced as one of this axis ratio: the formula divides by 1 - q^2.
_ROUNDEST = 0.999


@dataclass(frozen=True)
class Lenses:
    """Deflectors and sources, one a row. Angles are in radians from the x axis towards the y axis.

    Attributes
    ----------
    einstein_radius
        Radius in arcsec of the circle that has the area within the critical curve, shape (n,).
    axis_ratio, angle
        Of the mass: minor over major axis, and direction of the major axis, shape (n,).
    shear, shear_angle
        Strength of the external shear and the direction in which it stretches images, shape (n,).
    x, y
        Centres of the source's clumps, arcsec from the deflector, shape (n, CLUMPS).
    radius, index, flattening, tilt
        Half-light radius in arcsec (semi-major axis), Sersic index, axis ratio and direction of each clump,
        shape (n, CLUMPS).
    share
        Share of the source's old (row 0) and young (row 1) light that each clump has, shape (n, 2, CLUMPS).
    flux
        Nanomaggies of the unlensed source: old and young light in each band, shape (n, 2, bands).
    """

    einstein_radius: NDArray[np.float64]
    axis_ratio: NDArray[np.float64]
    angle: NDArray[np.float64]
    shear: NDArray[np.float64]
    shear_angle: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    radius: NDArray[np.float64]
    index: NDArray[np.float64]
    flattening: NDArray[np.float64]
    tilt: NDArray[np.float64]
    share: NDArray[np.float64]
    flux: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.einstein_radius)

    def take(self, rows: NDArray | slice) -> Lenses:
        """Return some of the lenses."""
        return Lenses(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Lenses]) -> Lenses:
        """Return those of several in a row."""
        return cls(
            **{
                item.name: np.concatenate([getattr(part, item.name) for part in parts])
                for item in fields(cls)
            }
        )


def deflection(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    einstein_radius: float,
    axis_ratio: float,
    angle: float,
    shear: float = 0.0,
    shear_angle: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far light is deflected by a singular isothermal ellipsoid with external shear.

    Parameters
    ----------
    x, y
        Where it is seen, arcsec from the deflector, same shape.
    einstein_radius, axis_ratio, angle, shear, shear_angle
        See `Lenses`.

    Returns
    -------
    tuple
        Deflection in arcsec along x and y: the light came from (x, y) minus it.
    """
    flat_x, flat_y = np.ravel(x).astype(np.float64), np.ravel(y).astype(np.float64)
    out = np.empty((2, flat_x.size))
    for place in range(flat_x.size):
        out[:, place] = _deflect(
            flat_x[place], flat_y[place], einstein_radius, axis_ratio, angle, shear, shear_angle
        )
    return out[0].reshape(np.shape(x)), out[1].reshape(np.shape(x))


@njit(cache=True, nogil=True)
def _deflect(x, y, radius, ratio, angle, shear, shear_angle):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Deflection at one point: Kormann et al. 1994, equation 27a, in the frame of the major axis."""
    cosine, sine = np.cos(angle), np.sin(angle)
    along, across = cosine * x + sine * y, cosine * y - sine * x
    q = min(ratio, _ROUNDEST)
    root = np.sqrt(1 - q * q)
    distance = max(np.sqrt(q * q * along * along + across * across), 1e-12)
    strength = radius * np.sqrt(q) / root
    a = strength * np.arctan(root * along / distance)
    b = strength * np.arctanh(root * across / distance)
    twice = 2 * shear_angle
    first, second = shear * np.cos(twice), shear * np.sin(twice)
    return (
        cosine * a - sine * b + first * x + second * y,
        sine * a + cosine * b + second * x - first * y,
    )


def sersic_peak(
    radius: NDArray[np.float64], index: NDArray[np.float64], flattening: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return central surface brightness of a Sersic profile of unit flux, and its coefficient b.

    Parameters
    ----------
    radius, index, flattening
        Half-light radius (semi-major axis) in arcsec, Sersic index above 0.36, axis ratio; same shape.

    Returns
    -------
    tuple
        Flux a square arcsec at the centre, and b of ``exp(-b (r / radius)^(1 / index))``.
    """
    n = np.asarray(index, np.float64)
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)
    area = 2 * np.pi * n * np.square(radius) * flattening * gamma(2 * n) / b ** (2 * n)
    return 1 / area, b


@njit(cache=True, nogil=True)
def _trace(out, step, mass, clumps, peaks, shares):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Ray-trace one lens: add surface brightness of old and young light to ``out``, shape (2, side, side).

    ``mass`` holds the five numbers of `_deflect` behind the position, ``clumps`` x, y, radius, 1 / index,
    flattening, cosine and sine of the tilt, b of each.
    """
    side = out.shape[1]
    for row in range(side):
        for column in range(side):
            x, y = (column - (side - 1) / 2) * step, (row - (side - 1) / 2) * step
            dx, dy = _deflect(x, y, mass[0], mass[1], mass[2], mass[3], mass[4])
            for clump in range(clumps.shape[0]):
                cx, cy = x - dx - clumps[clump, 0], y - dy - clumps[clump, 1]
                along = clumps[clump, 5] * cx + clumps[clump, 6] * cy
                across = (clumps[clump, 5] * cy - clumps[clump, 6] * cx) / clumps[clump, 4]
                distance = np.sqrt(along * along + across * across) / clumps[clump, 2]
                if distance > _REACH:
                    continue
                light = peaks[clump] * np.exp(-clumps[clump, 7] * distance ** clumps[clump, 3])
                out[0, row, column] += shares[0, clump] * light
                out[1, row, column] += shares[1, clump] * light


def render_arcs(
    lenses: Lenses, seeing: NDArray[np.float64], size: int, scale: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Draw the lensed sources.

    Parameters
    ----------
    lenses
        What to draw.
    seeing
        Full width at half maximum of a star in arcsec, shape (n, bands). Its profile is a Moffat function of
        index 3.5 (Racine 1996, PASP 108, 699).
    size
        Side of the cutouts in pixels.
    scale
        Arcsec a pixel, shape (n,).

    Returns
    -------
    images : NDArray[np.float32]
        Nanomaggies a pixel without noise, shape (n, bands, size, size), the deflector at the exact centre.
    magnification : NDArray[np.float64]
        Flux of all images over that of the source, summed over the bands, shape (n,).
    """
    bands = lenses.flux.shape[2]
    images = np.empty((len(lenses), bands, size, size), np.float32)
    magnification = np.empty(len(lenses))
    peaks, b = sersic_peak(lenses.radius, lenses.index, lenses.flattening)
    mass = np.stack(
        [lenses.einstein_radius, lenses.axis_ratio, lenses.angle, lenses.shear, lenses.shear_angle], axis=1
    )
    shape = [lenses.x, lenses.y, lenses.radius, 1 / lenses.index, lenses.flattening]
    clumps = np.stack([*shape, np.cos(lenses.tilt), np.sin(lenses.tilt), b], axis=2)
    reach = _reach(lenses)
    for row in range(len(lenses)):
        window = min(size, 2 * int(np.ceil(reach[row] / scale[row])) + size % 2)
        step = float(scale[row]) / OVERSAMPLING
        traced = np.zeros((2, window * OVERSAMPLING, window * OVERSAMPLING))
        _trace(traced, step, mass[row], clumps[row], peaks[row], lenses.share[row])
        traced *= step**2
        light = traced.sum(axis=(1, 2)) @ lenses.flux[row]
        magnification[row] = light.sum() / max(lenses.flux[row].sum(), 1e-30)
        images[row] = observed(traced, lenses.flux[row], seeing[row], size, float(scale[row]))
    return images, magnification


def _reach(lenses: Lenses) -> NDArray[np.float64]:
    """Return half the side of the square in arcsec that holds all images of each source, shape (n,).

    An isothermal sphere shifts light by its Einstein radius, an ellipsoid's long axis by up to 1 / sqrt(q).
    """
    furthest = (np.hypot(lenses.x, lenses.y) + 0.8 * _REACH * lenses.radius).max(axis=1)
    stretch = 1 / (np.sqrt(lenses.axis_ratio) * (1 - np.abs(lenses.shear)))
    reach: NDArray[np.float64] = (lenses.einstein_radius + furthest) * stretch
    return reach


def observed(
    traced: NDArray[np.float64],
    flux: NDArray[np.float64],
    seeing: NDArray[np.float64],
    size: int,
    scale: float,
) -> NDArray[np.float32]:
    """Blur light on a fine grid by seeing and pixel, and sample it at the pixels' centres.

    Parameters
    ----------
    traced
        Shares of old and young light on points a third of a pixel apart, shape (2, side, side), the deflector
        at the exact centre; flux is the sum over the points.
    flux
        Nanomaggies of old and young light in each band, shape (2, bands).
    seeing
        Full width at half maximum of a star in arcsec, shape (bands,).
    size
        Side of the cutout in pixels.
    scale
        Arcsec a pixel.

    Returns
    -------
    NDArray[np.float32]
        Nanomaggies a pixel, shape (bands, size, size).
    """
    fine = size * OVERSAMPLING
    spectra = scipy.fft.rfft2(_centred(traced, fine).astype(np.float32), axes=(1, 2))
    rows = np.fft.fftfreq(fine, scale / OVERSAMPLING).astype(np.float32)
    columns = np.fft.rfftfreq(fine, scale / OVERSAMPLING).astype(np.float32)
    k = 2 * np.float32(np.pi) * np.hypot(rows[:, None], columns[None, :])
    pixel = np.float32(OVERSAMPLING**2) * np.sinc(rows * scale)[:, None] * np.sinc(columns * scale)[None, :]
    images = np.empty((len(seeing), size, size), np.float32)
    for band, width in enumerate(seeing):
        light = np.float32(flux[0, band]) * spectra[0] + np.float32(flux[1, band]) * spectra[1]
        light *= pixel * _moffat_transform(k, np.float32(width))
        blurred = scipy.fft.irfft2(light, s=(fine, fine))
        images[band] = blurred[OVERSAMPLING // 2 :: OVERSAMPLING, OVERSAMPLING // 2 :: OVERSAMPLING]
    return images


def _centred(traced: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    before = (side - traced.shape[1]) // 2
    after = side - traced.shape[1] - before
    return np.pad(traced, ((0, 0), (before, after), (before, after)))


def _moffat_transform(k: NDArray[np.float32], width: np.float32) -> NDArray[np.float32]:
    """Return the transform of a Moffat function of index 3.5, unit flux, at k in radians an arcsec.

    It is proportional to ``(k a)^(5/2) K_(5/2)(k a)``, and the Bessel function of order 5/2 is elementary.
    """
    x = k * np.float32(width / (2 * np.sqrt(2 ** (1 / 3.5) - 1)))
    transform: NDArray[np.float32] = np.exp(-x) * (1 + x + x * x / 3)
    return transform
