"""Which of some cutouts show galaxies that can be lenses: bright, red, extended; and what they are like.

Everything is measured on the cutouts themselves: aperture fluxes, second moments, and the seeing from what
is sharpest in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from gzscale.sky.conditions import CAMERAS
from gzscale.sky.lens_population import Deflectors, passive_redshift
from gzscale.surveys.seeing import MOFFAT_BETA, SHARPEST, peak_widths

__all__ = ["Measured", "aperture_flux", "measure", "measure_seeing"]

#: Radii in arcsec of the apertures for colours, for total magnitudes, for shapes, and for sizes: in a larger
#: one neighbours make galaxies of stars.
_COLOUR_APERTURE, _TOTAL_APERTURE, _SHAPE_APERTURE, _SIZE_APERTURE = 2.0, 5.0, 2.5, 3.0
#: A deflector is brighter than this in r and redder than this in g-r: luminous red galaxies from redshift
#: 0.1 on, and no faint ones, whose Einstein radii are within the survey's seeing.
FAINTEST, BLUEST = {"sdss": 19.8, "rubin": 21.5}, {"sdss": 0.75, "rubin": 1.0}
#: A galaxy's half-light radius is larger than a star's by this factor at least: a star that lies 0.3 arcsec
#: beside the centre has 1.2 in the best seeing.
_EXTENDED = 1.3
#: Least number of stars that a seeing is taken from, and their least signal-to-noise ratio.
_STARS, _STAR_SIGNAL = 5, 25.0
#: Least measured part of a cutout, and largest median of its rim in sigma of a pixel; or in nanomaggies a
#: square arcsec, 25 mag, which in a deep image is a galaxy's own outskirts.
_MEASURED, _SKY, _OUTSKIRTS = 0.95, 1.5, 0.1
#: Among so many peaks a square arcsec beyond 4 arcsec, as in a globular cluster, nobody can tell arcs; most
#: galaxies have a tenth of that round them. Peaks are brighter in r than so many sigma of a pixel and than
#: 22.8 mag a square arcsec, and the highest within 0.8 arcsec.
_CROWDED, _BRIGHT, _NEIGHBOURS, _APART = 0.02, 5.0, 0.75, 0.8
#: Radius in arcsec within which the galaxy is the brightest.
_CLOSE = 4.0
#: Parts of a pixel's side that apertures are drawn with.
_FINE = 5


@dataclass(frozen=True)
class Measured:
    """What cutouts show at their centres.

    Attributes
    ----------
    deflectors
        Of all cutouts.
    magnitudes
        g, r, i within 2 arcsec, shape (n, 3).
    chosen
        Which can be lenses, bool, shape (n,).
    """

    deflectors: Deflectors
    magnitudes: NDArray[np.float64]
    chosen: NDArray[np.bool_]


def measure(
    images: NDArray[np.floating],
    bands: str,
    scale: NDArray[np.float64],
    seeing: NDArray[np.float64],
    noise: NDArray[np.floating],
    redshift: NDArray[np.float64] | None = None,
    survey: str = "sdss",
) -> Measured:
    """Measure galaxies as deflectors.

    Parameters
    ----------
    images
        Nanomaggies a pixel, shape (n, bands, y, x), the objects at the centres; NaN counts as 0.
    bands
        One letter each; g, r and i among them.
    scale
        Arcsec a pixel, shape (n,).
    seeing
        Full width at half maximum of a star in arcsec, shape (n, bands).
    noise
        Sigma of a pixel in nanomaggies, shape (n, bands).
    redshift
        Where they are known, shape (n,), NaN where not; elsewhere a passive galaxy's colours tell.
    survey
        A key of `gzscale.sky.conditions.CAMERAS`: whose they are.
    """
    gri = np.nan_to_num(images[:, [bands.index(band) for band in "gri"]].astype(np.float64))
    radius = _radii(images.shape[-1], scale)
    small = _flux_within(gri, radius, _COLOUR_APERTURE)
    total = _flux_within(gri[:, 1:2], radius, _TOTAL_APERTURE)[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        magnitudes = 22.5 - 2.5 * np.log10(small)
        magnitude = 22.5 - 2.5 * np.log10(total)
    passive = passive_redshift(magnitudes, survey)
    known = passive if redshift is None else np.where(np.isfinite(redshift), redshift, passive)
    ratio, angle = _shapes(gri[:, 1], radius, scale)
    half = _half_light_radius(gri[:, 1], scale)
    star = _star_half_light_radius(seeing[:, bands.index("r")], scale, images.shape[-1])
    with np.errstate(invalid="ignore"):
        chosen = (
            (magnitude < FAINTEST[survey])
            & (magnitudes[:, 0] - magnitudes[:, 1] > BLUEST[survey])
            & (half > _EXTENDED * star)
            & _central(gri[:, 1], radius)
            & _on_sky(images, noise, scale)
            & _uncrowded(gri[:, 1], radius, noise[:, bands.index("r")], scale)
            & np.isfinite(known)
            & np.isfinite(magnitudes).all(axis=1)
        )
    return Measured(Deflectors(known, magnitude, ratio, angle), magnitudes, chosen)


def aperture_flux(
    images: NDArray[np.floating], scale: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Return the flux about the centres of cutouts, shape (n, bands).

    Parameters
    ----------
    images
        Nanomaggies a pixel, shape (n, bands, y, x); what is not measured counts nothing.
    scale
        Arcsec a pixel, shape (n,).
    radius
        Of the aperture in arcsec.
    """
    known = np.nan_to_num(images.astype(np.float64))
    return _flux_within(known, _radii(images.shape[-1], scale), radius)


def _radii(size: int, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    axis = np.arange(size) - (size - 1) / 2
    distance: NDArray[np.float64] = np.hypot(axis[:, None], axis[None, :])[None] * scale[:, None, None]
    return distance


def _flux_within(
    images: NDArray[np.float64], radius: NDArray[np.float64], limit: float
) -> NDArray[np.float64]:
    flux: NDArray[np.float64] = (images * (radius < limit)[:, None]).sum(axis=(2, 3))
    return flux


def _central(images: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell where nothing within 4 arcsec is brighter than the galaxy itself, shape (n,)."""
    own = np.where(radius < 0.9, images, -np.inf).max(axis=(1, 2))
    near = np.where(radius < _CLOSE, images, -np.inf).max(axis=(1, 2))
    return near <= own


def _on_sky(
    images: NDArray[np.floating], noise: NDArray[np.floating], scale: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Tell where the rim is sky, and not the halo of a bright star, and all is measured, shape (n,)."""
    rim = np.ones(images.shape[2:], bool)
    rim[4:-4, 4:-4] = False
    level = np.median(np.nan_to_num(images[:, :, rim].astype(np.float32)), axis=2)
    whole = np.isfinite(images).mean(axis=(2, 3)) > _MEASURED
    limit = np.maximum(_SKY * noise, _OUTSKIRTS * scale[:, None] ** 2)
    clear: NDArray[np.bool_] = ((level < limit) & whole).all(axis=1)
    return clear


def _uncrowded(
    images: NDArray[np.float64],
    radius: NDArray[np.float64],
    noise: NDArray[np.floating],
    scale: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Tell where there are few neighbours, shape (n,)."""
    around = radius > _CLOSE
    limit = np.maximum(_BRIGHT * noise, _NEIGHBOURS * scale**2)[:, None, None]
    reach = 2 * max(1, round(_APART / float(np.median(scale)))) + 1 if len(scale) else 1
    highest = images >= maximum_filter(images, (1, reach, reach))
    peaks = (highest & around & (images > limit)).sum(axis=(1, 2))
    few: NDArray[np.bool_] = peaks < _CROWDED * around.sum(axis=(1, 2)) * scale**2
    return few


def _half_light_radius(images: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the radius in arcsec that holds half of the flux within 3 arcsec, shape (n,)."""
    steps = np.linspace(0.1, _SIZE_APERTURE, 30)
    found = np.empty(len(images))
    for side in np.unique(scale):
        rows = np.flatnonzero(scale == side)
        inner, distance = _fine_distance(images.shape[-1], float(side))
        # What part of each pixel lies within each step.
        within = np.stack([_by_pixel(distance < step) for step in steps])
        flux = images[rows[:, None, None], inner[:, None], inner]
        growth = np.maximum.accumulate(np.tensordot(flux, within, ((1, 2), (1, 2))), axis=1)
        found[rows] = [np.interp(0.5 * max(row[-1], 1e-9), row, steps) for row in growth]
    return found


def _star_half_light_radius(
    seeing: NDArray[np.float64], scale: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Return that of a star on the same pixels, shape (n,); NaN where the seeing is not known."""
    told = np.stack([np.round(seeing, 2), scale], axis=1)
    kinds, place = np.unique(told, axis=0, return_inverse=True)
    radii = np.empty(len(kinds))
    for number, (width, side) in enumerate(kinds):
        inner, distance = _fine_distance(size, float(side))
        core = width / 2 / np.sqrt(2 ** (1 / MOFFAT_BETA) - 1)
        star = np.zeros((1, size, size))
        star[:, inner[:, None], inner] = _by_pixel((1 + (distance / core) ** 2) ** -MOFFAT_BETA)
        radii[number] = _half_light_radius(star, np.array([side]))[0] if np.isfinite(width) else np.nan
    found: NDArray[np.float64] = radii[place.ravel()]
    return found


def _fine_distance(size: int, side: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which rows and columns are near the centre, and how far from it parts of their pixels are."""
    axis = (np.arange(size) - (size - 1) / 2) * side
    inner = np.flatnonzero(np.abs(axis) < _SIZE_APERTURE + side)
    parts = ((np.arange(_FINE) + 0.5) / _FINE - 0.5) * side
    fine = (axis[inner][:, None] + parts).ravel()
    return inner, np.hypot(fine[:, None], fine[None, :])


def _by_pixel(fine: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means over the parts of each pixel."""
    side = len(fine) // _FINE
    means: NDArray[np.float64] = fine.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))
    return means


def _shapes(
    images: NDArray[np.float64], radius: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return axis ratio and angle from second moments under a Gaussian window, shape (n,) each.

    The window and the seeing round them; the axis ratio is corrected for the window alone.
    """
    size = images.shape[-1]
    axis = (np.arange(size) - (size - 1) / 2) * scale[:, None]
    x, y = axis[:, None, :], axis[:, :, None]
    weight = np.clip(images, 0, None) * np.exp(-((radius / _SHAPE_APERTURE) ** 2) / 2)
    total = np.maximum(weight.sum(axis=(1, 2)), 1e-12)
    xx, yy, xy = ((weight * part).sum(axis=(1, 2)) / total for part in (x * x, y * y, x * y))
    # A Gaussian of variance s under a window of variance w has measured variance s w / (s + w).
    spread, twist = np.hypot(xx - yy, 2 * xy), (xx + yy)
    variances = np.stack([twist + spread, twist - spread]) / 2
    true = 1 / np.clip(1 / np.maximum(variances, 1e-6) - 1 / _SHAPE_APERTURE**2, 1e-3, None)
    ratio = np.sqrt(np.clip(true[1] / true[0], 0.04, 1.0))
    return ratio, np.arctan2(2 * xy, xx - yy) / 2


def measure_seeing(
    images: NDArray[np.floating],
    bands: str,
    scale: NDArray[np.float64],
    noise: NDArray[np.floating],
    survey: str = "sdss",
) -> NDArray[np.float64]:
    """Measure the seeing in each band from the sharpest peaks of some cutouts of the same images.

    A star's curvature at its peak tells its width. Galaxies and blends are wider: of all clear peaks the
    sharpest fifth counts.

    Parameters
    ----------
    images
        Nanomaggies a pixel, shape (n, bands, y, x).
    bands
        One letter each.
    scale
        Arcsec a pixel, shape (n,).
    noise
        Sigma of a pixel, shape (n, bands).
    survey
        A key of `gzscale.sky.conditions.CAMERAS`: whose they are.

    Returns
    -------
    NDArray[np.float64]
        Full width at half maximum of a Moffat function of index 3.5 in arcsec, shape (bands,). With fewer
        than five clear peaks it is the survey's median.
    """
    found = np.empty(len(bands))
    for number, band in enumerate(bands):
        pixels = np.nan_to_num(images[:, number].astype(np.float64))
        peak = maximum_filter(pixels, (0, 7, 7)) == pixels
        peak &= pixels > _STAR_SIGNAL * np.maximum(noise[:, number], 1e-9)[:, None, None]
        peak[:, :2], peak[:, -2:], peak[:, :, :2], peak[:, :, -2:] = False, False, False, False
        which, row, column = np.nonzero(peak)
        widths = peak_widths(pixels, which, row, column) * scale[which]
        widths = widths[np.isfinite(widths)]
        usual = CAMERAS[survey].seeing.get(band, 1.3)
        found[number] = np.quantile(widths, SHARPEST) if len(widths) >= _STARS else usual
    # Nothing sharper than the pixels, nothing that no night would be used with.
    bounded: NDArray[np.float64] = np.clip(found, 0.5, 2.5)
    return bounded
