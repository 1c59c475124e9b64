"""Sources behind lenses: how many of each magnitude, how far, of which colours, sizes and clumps.

References
----------
.. [1] LSST Science Collaborations 2009, arXiv:0912.0201, section 3.7 (counts and redshifts by i magnitude).
.. [2] Coleman, Wu & Weedman 1980, ApJS 43, 393 (template spectra, as GalSim extends them).
.. [3] Collett 2015, ApJ 811, 20 (sizes: LensPop).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from numpy.typing import NDArray

from gzscale.sky.lens import CLUMPS
from gzscale.sky.spectra import survey_magnitudes

__all__ = [
    "DISTANCES",
    "FAINT",
    "MODULI",
    "REDSHIFTS",
    "draw_clumps",
    "draw_fluxes",
    "draw_magnitudes",
    "draw_redshifts",
    "template_magnitudes",
]

_COSMOLOGY = FlatLambdaCDM(H0=70, Om0=0.3)
#: Redshifts of the tables; beyond, a source is too faint and a deflector is not seen.
REDSHIFTS = np.linspace(0.01, 4.0, 800)
#: Comoving distance in Mpc, and distance modulus in magnitudes, at these redshifts.
DISTANCES = _COSMOLOGY.comoving_distance(REDSHIFTS).value
MODULI = _COSMOLOGY.distmod(REDSHIFTS).value
_KPC_PER_ARCSEC = DISTANCES / (1 + REDSHIFTS) * 1000 / 206264.8
#: Brightest i magnitude of sources, and slope of the logarithm of their counts [1]_.
_BRIGHTEST, _SLOPE = 19.5, 0.31
#: Faintest source where nothing has to be seen.
FAINT = 25.0
#: Colours of templates scatter by so many magnitudes from galaxy to galaxy.
_COLOUR_SCATTER = 0.08


@cache
def _template_table(template: str, bands: str, survey: str) -> NDArray[np.float64]:
    """Magnitudes of a spectrum on the grid of redshifts, against its own r at redshift 0.01."""
    grid = REDSHIFTS[::10]
    table = survey_magnitudes(template, survey, bands, grid)
    table -= survey_magnitudes(template, survey, "r", REDSHIFTS[:1])
    return np.stack([np.interp(REDSHIFTS, grid, column) for column in table.T], axis=1)


def template_magnitudes(
    template: str, redshift: NDArray[np.float64], bands: str, survey: str = "sdss"
) -> NDArray[np.float64]:
    """Return magnitudes of a redshifted template spectrum, up to one constant, shape (n, bands).

    Parameters
    ----------
    template
        ``E``, ``Sbc``, ``Scd`` or ``Im``.
    redshift
        Shape (n,), from 0.01 to 4.
    bands
        One letter each.
    survey
        A key of `gzscale.sky.spectra.FILTERS`: through whose curves, and in whose system.
    """
    place = np.rint((np.asarray(redshift) - REDSHIFTS[0]) / (REDSHIFTS[1] - REDSHIFTS[0]))
    return _template_table(template, bands, survey)[np.clip(place, 0, len(REDSHIFTS) - 1).astype(np.int64)]


def draw_magnitudes(n: int, faintest: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw i magnitudes from N(<i) proportional to 10^(0.31 i)."""
    magnitudes: NDArray[np.float64] = (
        _BRIGHTEST + np.log10(1 + rng.random(n) * (10 ** (_SLOPE * (faintest - _BRIGHTEST)) - 1)) / _SLOPE
    )
    return magnitudes


def draw_redshifts(magnitude: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw redshifts from p(z) proportional to z^2 exp(-z / z0), z0 = 0.0417 i - 0.744 (Science Book)."""
    scale = 0.0417 * magnitude - 0.744
    return np.clip(rng.gamma(3.0, scale), REDSHIFTS[0], REDSHIFTS[-1])


def draw_fluxes(
    magnitude: NDArray[np.float64],
    redshift: NDArray[np.float64],
    bands: str,
    rng: np.random.Generator,
    survey: str = "sdss",
) -> NDArray[np.float64]:
    """Return nanomaggies of old and young light in each band of a survey, shape (n, 2, bands).

    Old light has the spectrum of an Sbc galaxy, young that of an irregular one.
    """
    n = len(magnitude)
    young_share = rng.uniform(0.4, 0.95, n)
    scatter = rng.normal(0, _COLOUR_SCATTER, (n, 1, len(bands)))
    flux = []
    for template, share in (("Sbc", 1 - young_share), ("Im", young_share)):
        against_i = template_magnitudes(template, redshift, bands, survey)
        against_i -= template_magnitudes(template, redshift, "i", survey)
        flux.append(share[:, None] * 10 ** (0.4 * (22.5 - magnitude[:, None] - against_i)))
    return np.stack(flux, axis=1) * 10 ** (0.4 * scatter)


def draw_clumps(
    magnitude: NDArray[np.float64],
    redshift: NDArray[np.float64],
    place: tuple[NDArray[np.float64], NDArray[np.float64]],
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """Draw the shape of sources: a body with old and young light, and knots of young light in it.

    Half-light radius as LensPop has it: log R / kpc = -(M + 18) / 4, times ((1 + z) / 1.6)^-1.2, with a
    scatter of 0.35 dex.
    """
    n = len(magnitude)
    absolute = magnitude - np.interp(redshift, REDSHIFTS, MODULI)
    kpc = 10 ** (-(absolute + 18) / 4 + rng.normal(0, 0.35, n)) * ((1 + redshift) / 1.6) ** -1.2
    radius = np.clip(kpc / np.interp(redshift, REDSHIFTS, _KPC_PER_ARCSEC), 0.08, 1.2)
    knots = CLUMPS - 1
    flattening, tilt = rng.uniform(0.4, 1.0, n), rng.uniform(0, np.pi, n)
    share = np.zeros((n, 2, CLUMPS))
    weight = rng.exponential(1.0, (n, knots)) * (np.arange(knots) < rng.integers(0, knots + 1, n)[:, None])
    in_knots = np.where(weight.sum(axis=1) > 0, rng.uniform(0.2, 0.8, n), 0.0)
    share[:, 0, 0], share[:, 1, 0] = 1.0, 1 - in_knots
    share[:, 1, 1:] = in_knots[:, None] * weight / np.maximum(weight.sum(axis=1), 1e-9)[:, None]
    apart = rng.normal(0, 0.8, (2, n, knots)) * radius[:, None]
    cosine, sine = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
    across = apart[1] * flattening[:, None]
    body = np.ones((n, 1))
    return {
        "x": place[0][:, None] + np.concatenate([0 * body, cosine * apart[0] - sine * across], axis=1),
        "y": place[1][:, None] + np.concatenate([0 * body, sine * apart[0] + cosine * across], axis=1),
        "radius": radius[:, None] * np.concatenate([body, rng.uniform(0.1, 0.35, (n, knots))], axis=1),
        "index": np.concatenate([rng.uniform(0.7, 2.0, (n, 1)), np.ones((n, knots))], axis=1),
        "flattening": np.concatenate([flattening[:, None], np.ones((n, knots))], axis=1),
        "tilt": np.repeat(tilt[:, None], CLUMPS, axis=1),
        "share": share,
    }
