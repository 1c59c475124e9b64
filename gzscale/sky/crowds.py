"""Crowds of stars over a cutout, as in a globular cluster or towards the Milky Way.

Among hundreds of blended stars some always lie as the images of a lens would. A finder that has seen galaxies
at high latitude alone takes a crowd for a doubtful lens; one that has seen crowds does not. One that has seen
stars in crowds alone takes a lens with a few stars round it for none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gzscale.sky.lens import OVERSAMPLING, observed
from gzscale.sky.population import draw_magnitudes
from gzscale.sky.stamps import Stamps
from gzscale.sky.starlight import locus_fluxes

__all__ = ["CROWDED", "SPARSE", "draw_crowds"]

#: Square arcsec of an SDSS cutout.
_AREA = 640.0
#: The fewest and the most stars in it, from a cluster's outskirts to its core; most of them are too faint to
#: be told apart, and are its diffuse light.
CROWDED = (10.0, 3000.0)
#: The same where galaxies can be seen as such (`gzscale.sky.deflectors`): of a hundred a dozen are told
#: apart.
SPARSE = (5.0, 100.0)
#: Range of their r magnitudes and slope of log10 N(r): giants, turn-off and upper main sequence of a globular
#: cluster at 10 kpc (M2 as SDSS sees it: An et al. 2008, ApJS 179, 326).
_LIMITS, _SLOPE = (14.0, 24.5), 0.35
#: Mean g-r, its scatter, and share: turn-off, red giants, horizontal branch; in half of the crowds a part are
#: cool dwarfs of the Galaxy's disk.
_KINDS = np.array([[0.42, 0.12, 0.80], [0.65, 0.12, 0.15], [-0.15, 0.10, 0.05]])
_DWARFS, _MOST_DWARFS = (1.35, 0.07), 0.6
#: Stars redder than this in g - r, as a flux ratio, are drawn together, the others together.
_RED = 10 ** (-0.4 * 0.55)


def draw_crowds(
    base: Stamps, bands: str, rng: np.random.Generator, stars: tuple[float, float] = CROWDED
) -> NDArray[np.float32]:
    """Draw crowds of stars over cutouts, each blurred by its own seeing.

    Parameters
    ----------
    base
        The cutouts, n of them.
    bands
        Their bands; g and r among them.
    rng
        The source of chance.
    stars
        The fewest and the most in 640 square arcsec.

    Returns
    -------
    NDArray[np.float32]
        Nanomaggies a pixel without noise, shape (n, bands, size, size).
    """
    size = base.images.shape[-1]
    crowds = np.empty((len(base), len(bands), size, size), np.float32)
    for row in range(len(base)):
        scale = float(base.scale[row])
        density = np.exp(rng.uniform(*np.log(stars))) / _AREA
        count = 1 + rng.poisson(density * (size * scale) ** 2)
        flux = locus_fluxes(draw_magnitudes(count, rng, _LIMITS, _SLOPE), _colours(count, rng), bands, rng)
        crowds[row] = observed(*_two_kinds(flux, bands, size, rng), base.seeing[row], size, scale)
    return crowds


def _colours(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    kind = rng.choice(len(_KINDS), count, p=_KINDS[:, 2])
    colour = rng.normal(_KINDS[kind, 0], _KINDS[kind, 1])
    dwarfs = rng.random(count) < max(0.0, rng.uniform(-_MOST_DWARFS, _MOST_DWARFS))
    colours: NDArray[np.float64] = np.where(dwarfs, rng.normal(*_DWARFS, count), colour)
    return colours


def _two_kinds(
    flux: NDArray[np.float64], bands: str, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place stars at random; return where the light of blue and of red ones is, and how much it is by band.

    A kind's stars share their mean colour: two transforms a crowd instead of one a band and star.
    """
    side = size * OVERSAMPLING
    row, column = rng.integers(0, side, (2, len(flux)))
    red = flux[:, bands.index("g")] < _RED * flux[:, bands.index("r")]
    places, totals = np.zeros((2, side, side)), np.zeros((2, len(bands)))
    for kind, chosen in enumerate((~red, red)):
        light = flux[chosen, bands.index("r")]
        np.add.at(places[kind], (row[chosen], column[chosen]), light / max(light.sum(), 1e-12))
        totals[kind] = flux[chosen].sum(axis=0)
    return places, totals
