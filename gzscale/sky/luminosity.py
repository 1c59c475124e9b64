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

__all__ = ["REDSHIFTS", "Schechter", "absolute_magnitude", "distance_modulus", "draw_radius", "draw_redshift"]

#: Redshifts that are drawn: nearer ones are no Hubble flow, further ones have few galaxies this bright.
REDSHIFTS = (0.005, 0.4)
#: Luminosities grow by this many magnitudes per unit redshift (Blanton et al. 2003, ApJ 592, 819).
_EVOLUTION = 1.62
_GRID = np.linspace(*REDSHIFTS, 800)
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
    grid = np.linspace(0, 1, 20001)
    rate = 1 / np.sqrt(0.3 * (1 + grid) ** 3 + 0.7)
    steps = (rate[1:] + rate[:-1]) / 2 * grid[1]
    return grid, np.concatenate([[0.0], np.cumsum(steps)]) * 299792.458 / 70


def draw_redshift(
    kind: NDArray[np.str_], magnitude: NDArray[np.float64], rng: np.random.Generator
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
            table = _cumulative(function or name, int(number))
            redshift[members] = np.interp(share[members], table, _GRID)
    return redshift


@cache
def _cumulative(function: str, number: int) -> NDArray[np.float64]:
    """Cumulative p(z) on the grid for one apparent magnitude."""
    characteristic, slope, name = _FUNCTIONS[function]
    magnitude = number * _MAGNITUDE_STEP
    absolute = magnitude - distance_modulus(_GRID) - _k_correction(name) + _EVOLUTION * _GRID
    ratio = 10 ** (-0.4 * (absolute - characteristic))
    grid, distance = _comoving()
    comoving = np.interp(_GRID, grid, distance)
    volume = comoving**2 / np.sqrt(0.3 * (1 + _GRID) ** 3 + 0.7)
    density = ratio ** (slope + 1) * np.exp(-ratio) * volume
    # Far out on the bright side every redshift may be impossible; the farthest from it is then taken.
    density = np.maximum(density, 1e-300)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return total / total[-1]


@cache
def _k_correction(name: str) -> NDArray[np.float64]:
    table: Library = library("sdss")
    return np.interp(_GRID, table.redshift, table.k_correction(name, "r"))


def absolute_magnitude(
    kind: NDArray[np.str_], magnitude: NDArray[np.float64], redshift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return rest-frame absolute r magnitudes, shape (n,), by the K correction of each kind's template."""
    absolute = magnitude - distance_modulus(redshift)
    for name, function in _FUNCTION_OF.items():
        here = kind == name
        table = _k_correction(_FUNCTIONS[function or name].template)
        absolute[here] -= np.interp(redshift[here], _GRID, table)
    return absolute


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
