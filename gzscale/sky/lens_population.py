"""Which lenses there are: deflectors of given light, sources behind them, and what both follow from.

Deflectors: velocity dispersion from the r luminosity; the mass is flattened as the light is, and aligned with
it. Sources: counts and redshifts by i magnitude, colours of redshifted template spectra, sizes by luminosity
and redshift. Lens and source that together make an observable lens are kept, as Collett's are.

References
----------
.. [1] Collett 2015, ApJ 811, 20 (LensPop: sections 2 and 3; what counts as observable, section 3.1).
.. [2] Hyde & Bernardi 2009, MNRAS 394, 1978 (luminosity and velocity dispersion of early types).
.. [3] LSST Science Collaborations 2009, arXiv:0912.0201, section 3.7 (counts and redshifts by i magnitude).
.. [4] Koopmans et al. 2006, ApJ 649, 599 (SLACS: isothermal masses, aligned with the light).
.. [5] Coleman, Wu & Weedman 1980, ApJS 43, 393 (template spectra, as GalSim extends them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Literal

import galsim
import numpy as np
from astropy.cosmology import FlatLambdaCDM
from numpy.typing import NDArray

from gzscale.sky.lens import CLUMPS, Lenses

__all__ = [
    "Deflectors",
    "RadiusPrior",
    "Truth",
    "draw_lenses",
    "draw_uniform",
    "passive_redshift",
    "template_magnitudes",
]

RadiusPrior = Literal["luminosity", "uniform"]

_COSMOLOGY = FlatLambdaCDM(H0=70, Om0=0.3)
#: Redshifts of the tables; beyond, a source is too faint and a deflector is not seen.
_REDSHIFTS = np.linspace(0.01, 4.0, 800)
_DISTANCES = _COSMOLOGY.comoving_distance(_REDSHIFTS).value
_MODULI = _COSMOLOGY.distmod(_REDSHIFTS).value
_KPC_PER_ARCSEC = _DISTANCES / (1 + _REDSHIFTS) * 1000 / 206264.8
#: Brightest i magnitude of sources, and slope of the logarithm of their counts (Science Book, equation 3.7).
_BRIGHTEST, _SLOPE = 19.5, 0.31
#: Faintest source where nothing has to be seen.
_FAINT = 25.0
#: Signal-to-noise ratio of an observable arc, and magnifications that images have at least and at most.
_SIGNAL, _MAGNIFICATIONS = 20.0, (3.0, 20.0)
#: Scatter of log10 of the velocity dispersion at given luminosity (Hyde & Bernardi 2009).
_SIGMA_SCATTER = 0.07
#: External shear in each of two components, one sigma, as LensPop's lines of sight have it.
_SHEAR = 0.035
#: Proposals behind a deflector at a time, and how often they are repeated before it is given up.
_ATTEMPTS, _ROUNDS = 30, 10
#: Colours of templates scatter by so many magnitudes from galaxy to galaxy.
_COLOUR_SCATTER = 0.08


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


@cache
def _template_table(template: str, bands: str) -> NDArray[np.float64]:
    """AB magnitudes of a spectrum on the grid of redshifts, against its own r at redshift 0.01."""
    spectrum = galsim.SED(f"CWW_{template}_ext.sed", wave_type="Ang", flux_type="flambda")
    filters = [galsim.Bandpass(f"LSST_{band}.dat", wave_type="nm").withZeropoint("AB") for band in bands]
    red = galsim.Bandpass("LSST_r.dat", wave_type="nm").withZeropoint("AB")
    grid = _REDSHIFTS[::10]
    table = np.array([[spectrum.atRedshift(z).calculateMagnitude(f) for f in filters] for z in grid])
    table -= spectrum.atRedshift(0.01).calculateMagnitude(red)
    return np.stack([np.interp(_REDSHIFTS, grid, column) for column in table.T], axis=1)


def template_magnitudes(template: str, redshift: NDArray[np.float64], bands: str) -> NDArray[np.float64]:
    """Return AB magnitudes of a redshifted template spectrum, up to one constant, shape (n, bands).

    Parameters
    ----------
    template
        ``E``, ``Sbc``, ``Scd`` or ``Im``.
    redshift
        Shape (n,), from 0.01 to 4.
    bands
        Letters of ugrizy; through the curves of Rubin, which differ from those of SDSS by hundredths.
    """
    place = np.rint((np.asarray(redshift) - _REDSHIFTS[0]) / (_REDSHIFTS[1] - _REDSHIFTS[0]))
    return _template_table(template, bands)[np.clip(place, 0, len(_REDSHIFTS) - 1).astype(np.int64)]


def passive_redshift(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the redshift at which an elliptical's spectrum has given colours.

    Parameters
    ----------
    magnitudes
        g, r and i, shape (n, 3).

    Returns
    -------
    NDArray[np.float64]
        Shape (n,), from 0.03 to 0.7; NaN where no redshift gives g-r and r-i within 0.25 magnitudes (rms).
    """
    grid = _REDSHIFTS[(_REDSHIFTS >= 0.03) & (_REDSHIFTS <= 0.7)]
    expected = template_magnitudes("E", grid, "gri")
    found, wanted = -np.diff(magnitudes, axis=1), -np.diff(expected, axis=1)
    apart = np.sqrt(np.square(found[:, None] - wanted[None]).mean(axis=2))
    best = np.where(np.isfinite(apart), apart, np.inf).argmin(axis=1)
    near = apart[np.arange(len(best)), best] < 0.25
    return np.where(near, grid[best], np.nan)


def velocity_dispersion(magnitude: NDArray[np.float64], redshift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an early type's velocity dispersion in km/s from its apparent r magnitude.

    The relation is Hyde & Bernardi's parabola in the absolute r magnitude; K corrections are those of the
    elliptical's spectrum.
    """
    modulus = np.interp(redshift, _REDSHIFTS, _MODULI)
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
    near, far = (np.interp(z, _REDSHIFTS, _DISTANCES) for z in (deflector, source))
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
    seeing: float,
    radii: tuple[float, float] = (0.5, 4.0),
    prior: RadiusPrior = "luminosity",
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
        Flux in nanomaggies that is one sigma over the area of an arc, shape (bands,): see
        `gzscale.sky.inject.arc_noise`.
    seeing
        Full width at half maximum of a star in arcsec.
    radii
        Least and largest Einstein radius in arcsec.
    prior
        Where Einstein radii come from: ``luminosity``, by the relation with the velocity dispersion; or
        ``uniform`` within ``radii``, as if groups helped, so that large ones are as frequent as small ones.

    Returns
    -------
    lenses : Lenses
    truth : Truth
        As many as rows, less those whose deflector gave none in 300 attempts.
    """
    rows = rows[np.isfinite(deflectors.redshift[rows]) & np.isfinite(deflectors.magnitude[rows])]
    parts: list[tuple[Lenses, Truth]] = []
    # Of fainter sources no images could be seen: none is proposed.
    faintest = 22.5 - 2.5 * np.log10(_SIGNAL / 2 * float(np.min(depth)) / _MAGNIFICATIONS[1])
    for turn in range(_ROUNDS):
        if not len(rows) and turn:
            break
        lenses, truth = _propose(deflectors, np.repeat(rows, _ATTEMPTS), bands, faintest, rng)
        if prior == "uniform":
            lenses, truth = _with_radii(lenses, truth, rng.uniform(*radii, len(lenses)))
        good = _observable(lenses, depth, seeing, radii).reshape(len(rows), _ATTEMPTS)
        found = good.any(axis=1)
        kept = np.flatnonzero(found) * _ATTEMPTS + good.argmax(axis=1)[found]
        parts.append((lenses.take(kept), truth.take(kept)))
        rows = rows[~found]
    return Lenses.joined([part for part, _ in parts]), Truth.joined([part for _, part in parts])


def draw_uniform(
    deflectors: Deflectors,
    rows: NDArray[np.int64],
    bands: str,
    rng: np.random.Generator,
    radii: tuple[float, float],
) -> tuple[Lenses, Truth]:
    """Draw one source behind each of some deflectors, whether or not the lens could be seen.

    For the measurement of completeness: Einstein radii are uniform, sources lie where they have several
    images.

    Parameters
    ----------
    deflectors, rows, bands, rng, radii
        See `draw_lenses`; the deflectors have a redshift.
    """
    lenses, truth = _propose(deflectors, rows, bands, _FAINT, rng)
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
    deflectors: Deflectors, rows: NDArray[np.int64], bands: str, faintest: float, rng: np.random.Generator
) -> tuple[Lenses, Truth]:
    n = len(rows)
    near = deflectors.redshift[rows]
    dispersion = velocity_dispersion(deflectors.magnitude[rows], near)
    dispersion *= 10 ** rng.normal(0, _SIGMA_SCATTER, n)
    magnitude = _source_magnitudes(n, faintest, rng)
    far = _source_redshifts(magnitude, rng)
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
        **_clumps(magnitude, far, place, rng),
        flux=_source_fluxes(magnitude, far, bands, rng),
    )
    return lenses, Truth(rows, near, far, dispersion, magnitude)


def _source_magnitudes(n: int, faintest: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw i magnitudes from N(<i) proportional to 10^(0.31 i)."""
    magnitudes: NDArray[np.float64] = (
        _BRIGHTEST + np.log10(1 + rng.random(n) * (10 ** (_SLOPE * (faintest - _BRIGHTEST)) - 1)) / _SLOPE
    )
    return magnitudes


def _source_redshifts(magnitude: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw redshifts from p(z) proportional to z^2 exp(-z / z0), z0 = 0.0417 i - 0.744 (Science Book)."""
    scale = 0.0417 * magnitude - 0.744
    return np.clip(rng.gamma(3.0, scale), _REDSHIFTS[0], _REDSHIFTS[-1])


def _source_fluxes(
    magnitude: NDArray[np.float64], redshift: NDArray[np.float64], bands: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return nanomaggies of old and young light in each band, shape (n, 2, bands).

    Old light has the spectrum of an Sbc galaxy, young that of an irregular one.
    """
    n = len(magnitude)
    young_share = rng.uniform(0.4, 0.95, n)
    scatter = rng.normal(0, _COLOUR_SCATTER, (n, 1, len(bands)))
    flux = []
    for template, share in (("Sbc", 1 - young_share), ("Im", young_share)):
        against_i = template_magnitudes(template, redshift, bands)
        against_i -= template_magnitudes(template, redshift, "i")
        flux.append(share[:, None] * 10 ** (0.4 * (22.5 - magnitude[:, None] - against_i)))
    return np.stack(flux, axis=1) * 10 ** (0.4 * scatter)


def _clumps(
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
    absolute = magnitude - np.interp(redshift, _REDSHIFTS, _MODULI)
    kpc = 10 ** (-(absolute + 18) / 4 + rng.normal(0, 0.35, n)) * ((1 + redshift) / 1.6) ** -1.2
    radius = np.clip(kpc / np.interp(redshift, _REDSHIFTS, _KPC_PER_ARCSEC), 0.08, 1.2)
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


def _observable(
    lenses: Lenses, depth: NDArray[np.float64], seeing: float, radii: tuple[float, float]
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
