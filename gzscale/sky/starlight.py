"""What the bodies of the synthetic galaxies are made of: old and young stars, gas and dust, as band fluxes.

Every body has a place on the sequence of templates from elliptical (0) by Scd (1) to irregular (2), and
is a mixture of the two next to it. A galaxy's bulge is old, its disk mixed, its arms young; all
move along with the galaxy's star formation, which falls with luminosity and scatters.
The coefficients were set so that colours of a sample selected like SDSS's spectroscopic
galaxies follow the real ones with redshift (``tests/real/test_colours_real.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gzscale.sky.spectra import SEQUENCE, Library

__all__ = ["body_fluxes", "locus_fluxes", "star_fluxes"]


class _Population(NamedTuple):
    """A body's stars at M_r = -21.

    Its place on the sequence, how strongly the galaxy's star formation moves it, and the share of the
    disk's dust before it.
    """

    place: float
    activity: float
    dust: float


_POPULATIONS = {
    "bulge": _Population(0.08, 0.12, 0.4),
    "bar": _Population(0.20, 0.25, 0.6),
    "disk": _Population(0.44, 1.0, 1.0),
    "arms": _Population(1.10, 1.0, 1.0),
    "companion": _Population(0.35, 0.6, 0.3),
}
#: Of a galaxy whose light is all old.
_OLD = _Population(0.0, 0.15, 0.0)
#: How much later on the sequence a disk is, by kind: lenticulars have stopped forming stars.
_LATER = {"lenticular": -0.45, "irregular": 0.25, "merger": 0.1}
#: Star formation: change of the place a magnitude of luminosity, and scatter.
_ACTIVITY_SLOPE, _ACTIVITY_SCATTER = 0.10, 0.42
#: Tilt of the spectrum with luminosity, and its scatter: the slope of the red sequence and its width
#: (Bernardi et al. 2003, AJ 125, 1882: g-r reddens by 0.02 a magnitude and scatters by 0.04), metals and
#: age together.
_TILT_SLOPE, _TILT_SCATTER = 0.08, 0.12
#: Dust of a disk seen face on in r: median and scatter (ln); how it grows when the disk is inclined:
#: 1.27 (log10 q)^2 (Unterborn & Ryden 2008, ApJ 687, 976).
_FACE_ON, _FACE_ON_SCATTER, _INCLINED = 0.20, 0.5, 1.27
#: Optical depth at 5500 Angstrom over that in r, for the wavelength dependence of `gzscale.sky.spectra`.
_DUST_RATIO = (6170 / 5500) ** 0.7
#: Emission lines: H-alpha equivalent width in units of 100 Angstrom of a body at places 0, 1 and 2
#: (Kennicutt 1992, ApJ 388, 310), and scatter (ln). The irregular template has lines of its own besides.
_EQUIVALENT_WIDTHS, _LINE_SCATTER = (0.0, 0.30, 0.30), 0.5
#: Stars of the last 100 Myr beside the smooth history: share of r light (median) and scatter (ln), of
#: bodies that form stars at all (Kauffmann et al. 2003, MNRAS 341, 33: bursts at fixed mass).
_BURST, _BURST_SCATTER = 0.04, 1.0

#: The stellar locus: g-r and with it u-g, r-i, i-z, z-y. SDSS: Covey et al. 2007 (AJ 134, 2398), table 3;
#: z-y continues it by the dwarfs' slope; the first column is the blue horizontal branch (Yanny et al. 2000,
#: ApJ 540, 825: u-g from 0.8 to 1.35, g-r from -0.3 to 0).
_LOCUS = np.array(
    [
        [-0.25, 0.25, 0.45, 0.70, 1.00, 1.30, 1.42],
        [1.10, 0.95, 1.17, 1.65, 2.15, 2.50, 2.55],
        [-0.20, 0.07, 0.15, 0.25, 0.39, 0.65, 1.30],
        [-0.12, 0.01, 0.06, 0.14, 0.23, 0.38, 0.72],
        [-0.05, 0.00, 0.02, 0.06, 0.10, 0.18, 0.35],
    ]
)
#: The bluest that stars at high latitude are drawn, g-r.
_BLUEST = 0.25


def body_fluxes(
    galaxies: Mapping[str, NDArray[Any]], table: Library, rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Return each body's flux in every band.

    Parameters
    ----------
    galaxies
        Columns ``kind``, ``total_r`` (apparent magnitude), ``redshift``, ``absolute_r``, ``axis_ratio`` and
        ``fraction_<body>``, each of shape (n,).
    table
        The survey's library.
    rng
        The generator.

    Returns
    -------
    dict
        Body to nanomaggies, shape (n, bands). The r fluxes of all bodies add up to the apparent magnitude.
    """
    kind, n = galaxies["kind"], galaxies["kind"].size
    activity = _ACTIVITY_SLOPE * (galaxies["absolute_r"] + 21.0) + _ACTIVITY_SCATTER * rng.standard_normal(n)
    tilt = -_TILT_SLOPE * (galaxies["absolute_r"] + 21.0) + _TILT_SCATTER * rng.standard_normal(n)
    face_on = _FACE_ON * np.exp(_FACE_ON_SCATTER * rng.standard_normal(n))
    depth = face_on + _INCLINED * np.log10(np.minimum(galaxies["axis_ratio"], 1.0)) ** 2
    depth = _DUST_RATIO * np.where(kind == "elliptical", 0.0, depth)
    lines = np.exp(_LINE_SCATTER * rng.standard_normal(n))
    burst = _BURST * np.exp(_BURST_SCATTER * rng.standard_normal(n))
    later = np.select([kind == name for name in _LATER], list(_LATER.values()), 0.0)
    fluxes = {}
    for body, usual in _POPULATIONS.items():
        alone = (kind == "elliptical") & (body == "bulge")
        moved = np.where(body == "bulge", 0.0, later)
        place = np.where(
            alone, _OLD.place + _OLD.activity * activity, usual.place + moved + usual.activity * activity
        )
        weights = _mixture(place, lines, burst)
        light = table.at(weights, galaxies["redshift"], usual.dust * depth, tilt)
        fluxes[body] = galaxies[f"fraction_{body}"][:, None] * light / light[:, [_red(table)]]
    scale = 10 ** (0.4 * (22.5 - galaxies["total_r"]))
    return {body: flux * scale[:, None] for body, flux in fluxes.items()}


def _red(table: Library) -> int:
    return table.filters.bands.index("r")


def _mixture(
    place: NDArray[np.float64], lines: NDArray[np.float64], burst: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the templates' weights at places on the sequence, the nebular one last; (n, templates)."""
    place = np.clip(place, 0, len(SEQUENCE) - 1)
    numbers = np.arange(len(SEQUENCE))
    weights = np.maximum(0.0, 1 - np.abs(place[:, None] - numbers))
    weights[:, -1] += burst * np.minimum(1.0, place / 0.5)
    width = np.interp(place, numbers, _EQUIVALENT_WIDTHS) * lines
    return np.concatenate([weights, width[:, None]], axis=1)


def star_fluxes(magnitude: NDArray[np.float64], bands: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return stars' fluxes in nanomaggies, shape (n, bands), of apparent r magnitudes, shape (n,).

    Six in ten are of the halo's turn-off and its giants, the others late dwarfs, as at high latitude.
    """
    n = magnitude.size
    blue, red = rng.normal(0.45, 0.12, n), rng.normal(1.38, 0.06, n)
    g_r = np.clip(np.where(rng.random(n) < 0.6, blue, red), _BLUEST, _LOCUS[0, -1])
    return locus_fluxes(magnitude, g_r, bands, rng)


def locus_fluxes(
    magnitude: NDArray[np.float64], g_r: NDArray[np.float64], bands: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the fluxes in nanomaggies, shape (n, bands), of stars of given r and g-r, each of shape (n,).

    They scatter about the stellar locus, which ends at the horizontal branch and at cool dwarfs.
    """
    scatter = rng.normal(0, 0.04, (magnitude.size, 5))
    u_g, r_i, i_z, z_y = (np.interp(g_r, _LOCUS[0], row) for row in _LOCUS[1:])
    colours = np.stack([u_g, np.clip(g_r, *_LOCUS[0, [0, -1]]), r_i, i_z, z_y], axis=1) + scatter
    steps = np.concatenate([np.zeros((len(colours), 1)), -np.cumsum(colours, axis=1)], axis=1)
    steps -= steps[:, [2]]
    mags = magnitude[:, None] + steps[:, ["ugrizy".index(band) for band in bands]]
    return 10 ** (0.4 * (22.5 - mags))
