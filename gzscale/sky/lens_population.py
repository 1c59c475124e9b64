"""Which lenses there are: deflectors of given light, sources behind them, and what both follow from.

Deflectors: velocity dispersion from the r luminosity; the mass is flattened as the light is, and aligned with
it. Sources are those of `gzscale.sky.lens_sources`. Lens and source that together make an observable lens are
kept, as Collett's are.

References
----------
.. [1] Collett 2015, ApJ 811, 20 (LensPop: sections 2 and 3; what counts as observable, section 3.1).
.. [2] Hyde & Bernardi 2009, MNRAS 394, 1978 (luminosity and velocity dispersion of early types).
.. [3] Koopmans et al. 2006, ApJ 649, 599 (SLACS: isothermal masses, aligned with the light).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gzscale.sky.lens import Lenses
from gzscale.sky.lens_sources import (
    DISTANCES,
    FAINT,
    MODULI,
    REDSHIFTS,
    draw_clumps,
    draw_fluxes,
    draw_magnitudes,
    draw_redshifts,
    template_magnitudes,
)

__all__ = [
    "Deflectors",
    "RadiusPrior",
    "Truth",
    "draw_lenses",
    "draw_uniform",
    "einstein_radius",
    "passive_redshift",
    "velocity_dispersion",
]

RadiusPrior = Literal["luminosity", "uniform"]

#: Signal-to-noise ratio of an observable arc, and magnifications that images have at least and at most.
_SIGNAL, _MAGNIFICATIONS = 20.0, (3.0, 20.0)
#: Scatter of log10 of the velocity dispersion at given luminosity (Hyde & Bernardi 2009).
_SIGMA_SCATTER = 0.07
#: External shear in each of two components, one sigma, as LensPop's lines of sight have it.
_SHEAR = 0.035
#: Proposals behind a deflector at a time, and how often they are repeated before it is given up.
_ATTEMPTS, _ROUNDS = 30, 10


@dataclass(frozen=True)
class Deflectors:
    """Galaxies as lenses, one a row.

    Attributes
    ----------
    redshift
        NaN where unknown: then there is no lens.
    magnitude
        r, total.
    axis_ratio, angle
        Of the light; radians from the x axis, shape (n,).
    """

    redshift: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    axis_ratio: NDArray[np.float64]
    angle: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.redshift)


@dataclass(frozen=True)
class Truth:
    """What was drawn, beside the lenses themselves, shape (n,).

    Attributes
    ----------
    deflector
        Row of the deflector.
    deflector_redshift, source_redshift
        Redshifts.
    velocity_dispersion
        Of the deflector, km/s.
    source_magnitude
        i, unlensed, in the AB system.
    """

    deflector: NDArray[np.int64]
    deflector_redshift: NDArray[np.float64]
    source_redshift: NDArray[np.float64]
    velocity_dispersion: NDArray[np.float64]
    source_magnitude: NDArray[np.float64]

    def take(self, rows: NDArray | slice) -> Truth:
        """Return that of some lenses."""
        return Truth(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Truth]) -> Truth:
        """Return that of several in a row."""
        return cls(
            **{
                item.name: np.concatenate([getattr(part, item.name) for part in parts])
                for item in fields(cls)
            }
        )


def passive_redshift(magnitudes: NDArray[np.float64], survey: str = "sdss") -> NDArray[np.float64]:
    """Return the redshift at which an elliptical's spectrum has given colours.

    Parameters
    ----------
    magnitudes
        g, r and i, shape (n, 3).
    survey
        A key of `gzscale.sky.spectra.FILTERS`: whose they are.

    Returns
    -------
    NDArray[np.float64]
        Shape (n,), from 0.03 to 0.7; NaN where no redshift gives g-r and r-i within 0.25 magnitudes (rms).
    """
    grid = REDSHIFTS[(REDSHIFTS >= 0.03) & (REDSHIFTS <= 0.7)]
    expected = template_magnitudes("E", grid, "gri", survey)
    found, wanted = -np.diff(magnitudes, axis=1), -np.diff(expected, axis=1)
    apart = np.sqrt(np.square(found[:, None] - wanted[None]).mean(axis=2))
    best = np.where(np.isfinite(apart), apart, np.inf).argmin(axis=1)
    near = apart[np.arange(len(best)), best] < 0.25
    return np.where(near, grid[best], np.nan)


def velocity_dispersion(magnitude: NDArray[np.float64], redshift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an early type's velocity dispersion in km/s from its apparent r magnitude.

    The relation is Hyde & Bernardi's parabola in the absolute r magnitude; K corrections are those of the
    elliptical's spectrum in SDSS's r, of which Rubin's differs by a few hundredths.
    """
    modulus = np.interp(redshift, REDSHIFTS, MODULI)
    shift = template_magnitudes("E", redshift, "r")[:, 0]
    # Fainter than the relation's range it is not followed: its parabola would turn.
    absolute = np.clip(magnitude - modulus - shift + 2.5 * np.log10(1.01), -24.5, -19.0)
    dispersion: NDArray[np.float64] = 10 ** (-2.97 - 0.37 * absolute - 0.006 * absolute**2)
    return dispersion


def einstein_radius(
    dispersion: NDArray[np.float64], deflector: NDArray[np.float64], source: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the Einstein radius of an isothermal sphere in arcsec; 0 where the source is nearer.

    Parameters
    ----------
    dispersion
        Velocity dispersion in km/s, shape (n,).
    deflector, source
        Redshifts, shape (n,), in a flat universe of H0 = 70 km/s/Mpc and matter density 0.3.
    """
    near, far = (np.interp(z, REDSHIFTS, DISTANCES) for z in (deflector, source))
    radius: NDArray[np.float64] = (
        206264.8 * 4 * np.pi * (dispersion / 299792.458) ** 2 * np.clip(1 - near / far, 0, None)
    )
    return radius


def draw_lenses(
    deflectors: Deflectors,
    rows: NDArray[np.int64],
    bands: str,
    rng: np.random.Generator,
    depth: NDArray[np.float64],
    seeing: NDArray[np.float64] | float,
    radii: tuple[float, float] = (0.5, 4.0),
    prior: RadiusPrior = "luminosity",
    survey: str = "sdss",
) -> tuple[Lenses, Truth]:
    """Draw a source behind each of some deflectors, such that the lens could be seen.

    Sources are proposed behind a deflector as they are on the sky, and velocity dispersions as the prior has
    them, until one makes an observable lens: faint sources are as frequent as they are. How often a deflector
    is a lens at all is the caller's matter.

    Parameters
    ----------
    deflectors
        What lenses.
    rows
        Which of them, each as often as it is named.
    bands
        One letter each, of ugrizy.
    rng
        The source of chance.
    depth
        Flux in nanomaggies that is one sigma over the area of an arc, of each row, shape (rows, bands), or
        of all, shape (bands,): see `gzscale.sky.inject.arc_noise`.
    seeing
        Full width at half maximum of a star in arcsec, of each row or of all.
    radii
        Least and largest Einstein radius in arcsec.
    prior
        Where Einstein radii come from: ``luminosity``, by the relation with the velocity dispersion; or
        ``uniform`` within ``radii``, as if groups helped, so that large ones are as frequent as small ones.
    survey
        A key of `gzscale.sky.spectra.FILTERS`: whose bands they are.

    Returns
    -------
    lenses : Lenses
    truth : Truth
        As many as rows, less those whose deflector gave none in 300 attempts.
    """
    depth, seeing = np.broadcast_to(depth, (len(rows), len(bands))), np.broadcast_to(seeing, len(rows))
    known = np.isfinite(deflectors.redshift[rows]) & np.isfinite(deflectors.magnitude[rows])
    rows, depth, seeing = rows[known], depth[known], seeing[known]
    parts: list[tuple[Lenses, Truth]] = []
    # Of fainter sources no images could be seen: none is proposed.
    faintest = 22.5 - 2.5 * np.log10(_SIGNAL / 2 * float(np.min(depth, initial=np.inf)) / _MAGNIFICATIONS[1])
    for turn in range(_ROUNDS):
        if not len(rows) and turn:
            break
        lenses, truth = _propose(deflectors, np.repeat(rows, _ATTEMPTS), bands, faintest, rng, survey)
        if prior == "uniform":
            lenses, truth = _with_radii(lenses, truth, rng.uniform(*radii, len(lenses)))
        limits = np.repeat(depth, _ATTEMPTS, axis=0), np.repeat(seeing, _ATTEMPTS)
        good = _observable(lenses, *limits, radii).reshape(len(rows), _ATTEMPTS)
        found = good.any(axis=1)
        kept = np.flatnonzero(found) * _ATTEMPTS + good.argmax(axis=1)[found]
        parts.append((lenses.take(kept), truth.take(kept)))
        rows, depth, seeing = rows[~found], depth[~found], seeing[~found]
    return Lenses.joined([part for part, _ in parts]), Truth.joined([part for _, part in parts])


def draw_uniform(
    deflectors: Deflectors,
    rows: NDArray[np.int64],
    bands: str,
    rng: np.random.Generator,
    radii: tuple[float, float],
    survey: str = "sdss",
) -> tuple[Lenses, Truth]:
    """Draw one source behind each of some deflectors, whether or not the lens could be seen.

    For the measurement of completeness: Einstein radii are uniform, sources lie where they have several
    images.

    Parameters
    ----------
    deflectors, rows, bands, rng, radii, survey
        See `draw_lenses`; the deflectors have a redshift.
    """
    lenses, truth = _propose(deflectors, rows, bands, FAINT, rng, survey)
    radius = rng.uniform(*radii, len(rows))
    lenses, truth = _with_radii(lenses, truth, radius)
    # Within the area of several images, which the axis ratio narrows.
    inward = (np.sqrt(lenses.axis_ratio) - 1)[:, None]
    return replace(
        lenses, x=lenses.x + inward * lenses.x[:, :1], y=lenses.y + inward * lenses.y[:, :1]
    ), truth


def _with_radii(lenses: Lenses, truth: Truth, radius: NDArray[np.float64]) -> tuple[Lenses, Truth]:
    """Return the lenses with other Einstein radii, and velocity dispersions and impacts to match."""
    factor = radius / np.maximum(lenses.einstein_radius, 1e-6)
    x, y = lenses.x[:, :1], lenses.y[:, :1]
    grown = (factor - 1)[:, None]
    dispersion = truth.velocity_dispersion * np.sqrt(factor)
    moved = replace(lenses, einstein_radius=radius, x=lenses.x + grown * x, y=lenses.y + grown * y)
    return moved, replace(truth, velocity_dispersion=dispersion)


def _propose(
    deflectors: Deflectors,
    rows: NDArray[np.int64],
    bands: str,
    faintest: float,
    rng: np.random.Generator,
    survey: str,
) -> tuple[Lenses, Truth]:
    n = len(rows)
    near = deflectors.redshift[rows]
    dispersion = velocity_dispersion(deflectors.magnitude[rows], near)
    dispersion *= 10 ** rng.normal(0, _SIGMA_SCATTER, n)
    magnitude = draw_magnitudes(n, faintest, rng)
    far = draw_redshifts(magnitude, rng)
    radius = einstein_radius(dispersion, near, far)
    mass_ratio = np.clip(deflectors.axis_ratio[rows] + rng.normal(0, 0.1, n), 0.35, 0.99)
    shear = np.hypot(*rng.normal(0, _SHEAR, (2, n)))
    # Of a disk that circumscribes the area with several images; those outside it are refused later.
    impact, direction = radius * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    place = impact * np.cos(direction), impact * np.sin(direction)
    lenses = Lenses(
        einstein_radius=radius,
        axis_ratio=mass_ratio,
        angle=deflectors.angle[rows] + np.radians(rng.normal(0, 10, n)),
        shear=np.minimum(shear, 0.15),
        shear_angle=rng.uniform(0, np.pi, n),
        **draw_clumps(magnitude, far, place, rng),
        flux=draw_fluxes(magnitude, far, bands, rng, survey),
    )
    return lenses, Truth(rows, near, far, dispersion, magnitude)


def _observable(
    lenses: Lenses, depth: NDArray[np.float64], seeing: NDArray[np.float64], radii: tuple[float, float]
) -> NDArray[np.bool_]:
    """Tell which lenses could be told to be lenses (Collett 2015, section 3.1, before drawing them).

    Images apart (radius^2 > source radius^2 + (seeing / 2)^2), sheared beyond the seeing (magnified source
    radius), magnified more than 3 times, with a signal of 20 sigma in one band. The magnification is that of
    a point behind an isothermal sphere, limited by the source's size.
    """
    radius, source = lenses.einstein_radius, lenses.radius[:, 0]
    impact = np.maximum(np.hypot(lenses.x[:, 0], lenses.y[:, 0]), source / 2)
    magnification = np.minimum(2 * radius / np.maximum(impact, 1e-3), _MAGNIFICATIONS[1])
    signal = (lenses.flux.sum(axis=1) * magnification[:, None] / depth).max(axis=1)
    inside = (radius >= radii[0]) & (radius <= radii[1])
    apart = (radius**2 > source**2 + (seeing / 2) ** 2) & (magnification * source > seeing)
    # The area with several images shrinks with the axis ratio (Kormann et al. 1994, section 5).
    several = np.hypot(lenses.x[:, 0], lenses.y[:, 0]) < radius * np.sqrt(lenses.axis_ratio)
    return inside & apart & several & (magnification > _MAGNIFICATIONS[0]) & (signal > _SIGNAL)
