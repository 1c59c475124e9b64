"""How far, how luminous and how large the synthetic galaxies are, given their kind and apparent magnitude.

A magnitude-limited sample's redshifts follow from the luminosity function and the volume:
p(z | m, kind) is proportional to phi(m - D(z) - K(z)) dV/dz. Sizes follow from the luminosities.
Cosmology: flat, H0 = 70 km/s/Mpc, matter density 0.3.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gzscale.sky.spectra import Library, library

__all__ = [
    "REDSHIFTS",
    "Schechter",
    "absolute_magnitude",
    "distance_modulus",
    "draw_radius",
    "draw_redshift",
    "faded",
    "shrunk",
]

#: Survey -> redshifts that are drawn: nearer ones are no Hubble flow, further ones have few galaxies as
#: bright as its sample (r < 19 and r < 23).
REDSHIFTS = {"sdss": (0.005, 0.4), "rubin": (0.005, 1.5)}
#: Luminosities grow by this many magnitudes per unit redshift: Blanton et al. 2003 (ApJ 592, 819) for SDSS's
#: main sample; to redshift 1 and beyond Faber et al. 2007 (ApJ 665, 265, in B).
_EVOLUTION = {"sdss": 1.62, "rubin": 1.2}
#: Steps of a survey's grid of redshifts.
_STEPS = {"sdss": 800, "rubin": 3000}
#: Sizes at a given mass fall as this power of 1 + z: late types of van der Wel et al. 2014 (ApJ 788, 28).
_SHRINKING = -0.75
#: Step of the apparent magnitudes for which p(z | m) is tabulated.
_MAGNITUDE_STEP = 0.05


class Schechter(NamedTuple):
    """A luminosity function in rest-frame r, and the template whose K correction goes with it."""

    characteristic: float
    slope: float
    template: str


#: Luminosity functions by morphology: Nakamura et al. 2003 (AJ 125, 1682), for h = 0.7; mergers as
#: all galaxies together in Blanton et al. 2003. Of irregulars the slope is taken no steeper than -1.6.
_FUNCTIONS = {
    "early": Schechter(-21.5, -0.83, "E"),
    "disk": Schechter(-21.1, -1.0, "Scd"),
    "irregular": Schechter(-20.3, -1.6, "Im"),
    "merger": Schechter(-21.2, -1.05, "Scd"),
}
_FUNCTION_OF = {
    **dict.fromkeys(("elliptical", "lenticular"), "early"),
    **dict.fromkeys(("spiral", "barred_spiral", "edge_on"), "disk"),
    **dict.fromkeys(("irregular", "merger"), None),
}


def distance_modulus(redshift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance modulus in magnitudes, shape (n,), of redshifts above 0, shape (n,)."""
    grid, distance = _comoving()
    return 5 * np.log10((1 + redshift) * np.interp(redshift, grid, distance)) + 25


@cache
def _comoving() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Comoving distance in Mpc on a grid of redshifts, by the trapezoid rule."""
    grid = np.linspace(0, 2, 40001)
    rate = 1 / np.sqrt(0.3 * (1 + grid) ** 3 + 0.7)
    steps = (rate[1:] + rate[:-1]) / 2 * grid[1]
    return grid, np.concatenate([[0.0], np.cumsum(steps)]) * 299792.458 / 70


@cache
def _grid(survey: str) -> NDArray[np.float64]:
    return np.linspace(*REDSHIFTS[survey], _STEPS[survey])


def draw_redshift(
    kind: NDArray[np.str_], magnitude: NDArray[np.float64], rng: np.random.Generator, survey: str = "sdss"
) -> NDArray[np.float64]:
    """Draw redshifts of galaxies of known kind and apparent magnitude.

    Parameters
    ----------
    kind
        Kinds of `gzscale.sky.population.KINDS`, shape (n,); others get NaN.
    magnitude
        Apparent r, shape (n,).
    rng
        One uniform number is drawn for each object.
    survey
        A key of `REDSHIFTS`: in whose r they are.

    Returns
    -------
    NDArray[np.float64]
        Within `REDSHIFTS`, shape (n,).
    """
    share, redshift = rng.random(kind.size), np.full(kind.size, np.nan)
    for name, function in _FUNCTION_OF.items():
        here = np.flatnonzero(kind == name)
        if not here.size:
            continue
        row = np.round(magnitude[here] / _MAGNITUDE_STEP).astype(np.int64)
        for number in np.unique(row):
            members = here[row == number]
            table = _cumulative(function or name, int(number), survey)
            redshift[members] = np.interp(share[members], table, _grid(survey))
    return redshift


@cache
def _cumulative(function: str, number: int, survey: str) -> NDArray[np.float64]:
    """Cumulative p(z) on the survey's grid for one apparent magnitude."""
    characteristic, slope, name = _FUNCTIONS[function]
    redshift = _grid(survey)
    magnitude = number * _MAGNITUDE_STEP
    absolute = (
        magnitude - distance_modulus(redshift) - _k_correction(name, survey) + _EVOLUTION[survey] * redshift
    )
    ratio = 10 ** (-0.4 * (absolute - characteristic))
    grid, distance = _comoving()
    comoving = np.interp(redshift, grid, distance)
    volume = comoving**2 / np.sqrt(0.3 * (1 + redshift) ** 3 + 0.7)
    density = ratio ** (slope + 1) * np.exp(-ratio) * volume
    # Far out on the bright side every redshift may be impossible; the farthest from it is then taken.
    density = np.maximum(density, 1e-300)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return total / total[-1]


@cache
def _k_correction(name: str, survey: str) -> NDArray[np.float64]:
    table: Library = library(survey)
    return np.interp(_grid(survey), table.redshift, table.k_correction(name, "r"))


def absolute_magnitude(
    kind: NDArray[np.str_],
    magnitude: NDArray[np.float64],
    redshift: NDArray[np.float64],
    survey: str = "sdss",
) -> NDArray[np.float64]:
    """Return rest-frame absolute r magnitudes, shape (n,), by the K correction of each kind's template."""
    absolute = magnitude - distance_modulus(redshift)
    for name, function in _FUNCTION_OF.items():
        here = kind == name
        table = _k_correction(_FUNCTIONS[function or name].template, survey)
        absolute[here] -= np.interp(redshift[here], _grid(survey), table)
    return absolute


def faded(absolute: NDArray[np.float64], redshift: NDArray[np.float64], survey: str) -> NDArray[np.float64]:
    """Return absolute magnitudes, shape (n,), as galaxies will have them today: what local relations are for.

    SDSS's main sample is that of the local relations; its galaxies stay as they are.
    """
    return absolute if survey == "sdss" else absolute + _EVOLUTION[survey] * redshift


def shrunk(radius: NDArray[np.float64], redshift: NDArray[np.float64], survey: str) -> NDArray[np.float64]:
    """Return radii, shape (n,), of a time when galaxies were smaller; of SDSS's main sample as they are."""
    return radius if survey == "sdss" else radius * (1 + redshift) ** _SHRINKING


def draw_radius(
    early: NDArray[np.bool_],
    absolute: NDArray[np.float64],
    redshift: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw circularised half-light radii in arcsec: Shen et al. 2003 (MNRAS 343, 978), table 1.

    Parameters
    ----------
    early
        Whether the early-type relation holds (equation 14), or the late-type one (15), shape (n,).
    absolute, redshift
        Absolute r magnitude and redshift, shape (n,).
    rng
        One normal number is drawn for each object.

    Returns
    -------
    NDArray[np.float64]
        Shape (n,). Log-normal about the relation, wider for faint galaxies (equation 16).
    """
    early_kpc = 10 ** (-0.4 * 0.65 * absolute - 5.06)
    late_kpc = 10 ** (
        -0.4 * 0.26 * absolute + (0.51 - 0.26) * np.log10(1 + 10 ** (-0.4 * (absolute + 20.91))) - 1.71
    )
    # The early-type line was fitted above this luminosity; dwarf ellipticals do not go on shrinking.
    early_kpc = np.maximum(early_kpc, 10 ** (-0.4 * 0.65 * -18.5 - 5.06))
    scatter = 0.27 + (0.45 - 0.27) / (1 + 10 ** (-0.8 * (absolute + 20.91)))
    kpc = np.where(early, early_kpc, late_kpc) * np.exp(scatter * rng.standard_normal(absolute.size))
    angular_distance = 10 ** (distance_modulus(redshift) / 5 - 5) / (1 + redshift) ** 2
    return np.degrees(kpc / 1000 / angular_distance) * 3600
