"""What a spectrum looks like through a survey's filters at any redshift: templates x filter curves.

The templates are those of Coleman, Wu & Weedman 1980 (ApJS 43, 393) as GalSim ships them, repaired
where SDSS's photometry shows them to be off, and a nebular one of emission lines alone. Filter
curves, atmosphere included, come from speclite. Band fluxes are integrated once on a grid of redshifts and
interpolated after that; between templates they add up linearly, because fluxes do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import ConfigError

try:
    import galsim
    from speclite import filters
except ImportError as error:
    raise ImportError(
        "the synthetic sky needs GalSim and speclite, which are not installed: pip install 'gzscale[sky]'"
    ) from error

__all__ = [
    "FILTERS",
    "LINES",
    "MAX_REDSHIFT",
    "SEQUENCE",
    "FilterSet",
    "Library",
    "library",
    "survey_magnitudes",
    "template",
]

#: Stellar templates from old to young: elliptical, Scd, irregular. The Sbc of the same authors is left
#: out: it is redder in i-z than the elliptical, and no galaxy of its other colours is.
SEQUENCE = ("E", "Scd", "Im")
#: Corrections to a template, magnitudes at rest wavelengths in Angstrom, interpolated between. These
#: templates are known to miss SDSS's colours by some 0.1 mag and to want such repair (Csabai et al. 2003,
#: AJ 125, 580); the numbers are set by SDSS's spectroscopic galaxies (``tests/real/test_colours_real.py``).
_REPAIRS = {
    "E": (
        (2900, 3500, 3900, 4100, 4300, 5000, 6000, 7800, 8500),
        (0.08, 0.08, 0.02, -0.11, -0.07, -0.02, 0.0, 0.0, -0.05),
    ),
    "Scd": (
        (3100, 3300, 3500, 3700, 3900, 4100, 4400, 5000, 7800, 8500),
        (-0.06, 0.0, 0.09, 0.09, 0.0, -0.11, -0.08, 0.0, 0.0, 0.02),
    ),
    "Im": ((3100, 3300, 3500, 3700, 3900, 7500, 8500), (-0.06, 0.0, 0.13, 0.13, 0.0, 0.0, 0.18)),
}
#: Emission lines of a star-forming galaxy: rest wavelength in Angstrom (air) and flux relative to H-alpha, of
#: the integrated spectra of normal spirals (Kennicutt 1992, ApJ 388, 310, table 3; H-beta by case B
#: with the median reddening there).
LINES = {
    3727.4: 0.60,
    4861.3: 0.25,
    4958.9: 0.10,
    5006.8: 0.30,
    6548.1: 0.12,
    6562.8: 1.00,
    6583.4: 0.36,
    6716.5: 0.20,
    6730.8: 0.15,
}
#: Width of a line as integrated, Angstrom (sigma): far narrower than any filter's edge.
_LINE_WIDTH = 4.0
#: The redshifts that are tabulated: as far as Rubin's galaxies are drawn, in steps of 0.002.
MAX_REDSHIFT, _REDSHIFTS = 1.6, 801
#: Dust inside a galaxy: optical depth falls as this power of the wavelength (Charlot & Fall 2000, ApJ
#: 539, 718).
_DUST_SLOPE, _DUST_PIVOT = -0.7, 5500.0
#: A template's tilt is a power of the wavelength about this one: the middle of r.
_TILT_PIVOT = 6200.0
#: Speed of light in Angstrom a second; AB zero point in erg / s / cm2 / Hz (Oke & Gunn 1983, ApJ 266, 713).
_LIGHT, _AB = 2.99792458e18, 3.631e-20


@dataclass(frozen=True, slots=True)
class FilterSet:
    """A survey's filters.

    Attributes
    ----------
    bands
        One letter a band.
    group
        The set of curves in speclite.
    extinction
        A_band / E(B-V) of Galactic dust, E(B-V) on the scale of Schlegel, Finkbeiner & Davis 1998,
        from Schlafly & Finkbeiner 2011 (ApJ 737, 103), table 6, R_V = 3.1.
    offsets
        AB magnitude minus the survey's own, by band; bands that are not named are AB.
    """

    bands: str
    group: str
    extinction: tuple[float, ...]
    offsets: Mapping[str, float]


#: Survey -> filters. SDSS's u and z are off AB, as its flux calibration page says: u_AB = u - 0.04,
#: z_AB = z + 0.02.
FILTERS: Mapping[str, FilterSet] = {
    "sdss": FilterSet("ugriz", "sdss2010", (4.239, 3.303, 2.285, 1.698, 1.263), {"u": -0.04, "z": 0.02}),
    "rubin": FilterSet("ugrizy", "lsst2023", (4.145, 3.237, 2.273, 1.684, 1.323, 1.088), {}),
}


@dataclass(frozen=True, slots=True)
class Library:
    """Band fluxes of every template at every redshift.

    Attributes
    ----------
    filters
        The survey's filters.
    redshift
        Grid, shape (nz,).
    fluxes
        Flux in each band of a source whose stellar light has rest-frame r magnitude 0 without distance,
        that is 10^(-0.4 K); shape (templates, nz, bands). The last template is the nebular one,
        normalised to an H-alpha line of 100 Angstrom equivalent width on a flat continuum of r = 0.
    pivot
        Pivot wavelengths of the bands, Angstrom, shape (bands,).
    """

    filters: FilterSet
    redshift: NDArray[np.float64]
    fluxes: NDArray[np.float64]
    pivot: NDArray[np.float64]

    def at(
        self,
        weights: NDArray[np.float64],
        redshift: NDArray[np.float64],
        attenuation: NDArray[np.float64] | float = 0.0,
        tilt: NDArray[np.float64] | float = 0.0,
    ) -> NDArray[np.float64]:
        """Return relative band fluxes of mixtures of templates.

        Parameters
        ----------
        weights
            Shares of the templates in the rest-frame r light, shape (n, templates).
        redshift
            Shape (n,), from 0 to `MAX_REDSHIFT`.
        attenuation
            Dust in the galaxy, magnitudes at 5500 Angstrom rest frame, shape (n,). It acts on a band
            at its pivot wavelength, which is good to 0.01 mag a magnitude of dust.
        tilt
            Power of the wavelength by which the spectrum departs from its template, shape (n,):
            what metallicity does to an old population to first order.

        Returns
        -------
        NDArray[np.float64]
            Shape (n, bands).

        Raises
        ------
        ConfigError
            If a redshift is outside the tabulated range.
        """
        redshift = np.asarray(redshift, float)
        if redshift.size and not (redshift.min() >= 0 and redshift.max() <= MAX_REDSHIFT):
            raise ConfigError(
                f"redshifts from {redshift.min()} to {redshift.max()}: templates are tabulated "
                f"from 0 to {MAX_REDSHIFT}"
            )
        place = redshift / self.redshift[1]
        low = np.minimum(place.astype(np.int64), len(self.redshift) - 2)
        part = (place - low)[:, None]
        flux = np.zeros((redshift.size, len(self.pivot)))
        for share, table in zip(weights.T, self.fluxes, strict=True):
            flux += share[:, None] * ((1 - part) * table[low] + part * table[low + 1])
        rest = self.pivot / (1 + redshift[:, None])
        dust = np.broadcast_to(attenuation, redshift.shape)[:, None] * (rest / _DUST_PIVOT) ** _DUST_SLOPE
        power = np.broadcast_to(tilt, redshift.shape)[:, None]
        return flux * 10 ** (-0.4 * dust) * (rest / _TILT_PIVOT) ** power

    def k_correction(self, name: str, band: str) -> NDArray[np.float64]:
        """Return a template's K correction from rest-frame r to a band on the redshift grid, magnitudes."""
        column = self.filters.bands.index(band)
        return -2.5 * np.log10(self.fluxes[SEQUENCE.index(name), :, column])


@cache
def library(survey: str) -> Library:
    """Integrate the templates through a survey's filters.

    Parameters
    ----------
    survey
        A key of `FILTERS`.

    Raises
    ------
    ConfigError
        If there are no filters of this survey.
    """
    if survey not in FILTERS:
        raise ConfigError(f"no filters of survey {survey!r}; there are those of {', '.join(FILTERS)}")
    chosen = FILTERS[survey]
    redshift = np.linspace(0, MAX_REDSHIFT, _REDSHIFTS)
    names = (*SEQUENCE, "lines")
    spectra = [template(name) for name in names]
    fluxes = np.empty((len(names), redshift.size, len(chosen.bands)))
    pivots = []
    for column, band in enumerate(chosen.bands):
        curve = filters.load_filter(f"{chosen.group}-{band}")
        wavelength, response = np.asarray(curve.wavelength, float), np.asarray(curve.response, float)
        pivots.append(_pivot(wavelength, response))
        offset = 10 ** (0.4 * chosen.offsets.get(band, 0.0))
        for row, spectrum in enumerate(spectra):
            fluxes[row, :, column] = offset * _band_flux(*spectrum, wavelength, response, redshift)
    return Library(chosen, redshift, fluxes, np.array(pivots))


@cache
def template(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a template: wavelength in Angstrom and flux density in erg / s / cm2 / Angstrom.

    Stars are scaled to AB magnitude 0 in SDSS r at rest; ``lines`` as `Library.fluxes` says.
    """
    if name == "lines":
        return _line_spectrum()
    path = Path(galsim.meta_data.share_dir) / "SEDs" / f"CWW_{name}_ext.sed"
    wavelength, flux = np.loadtxt(path, unpack=True)
    if name in _REPAIRS:
        flux = flux * 10 ** (-0.4 * np.interp(wavelength, *_REPAIRS[name]))
    curve = filters.load_filter("sdss2010-r")
    at_rest = _band_flux(
        wavelength, flux, np.asarray(curve.wavelength, float), np.asarray(curve.response, float), np.zeros(1)
    )
    return wavelength, flux / at_rest[0]


def survey_magnitudes(
    name: str, survey: str, bands: str, redshift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a template's magnitudes in the survey's own system at any redshift, without distance.

    Parameters
    ----------
    name
        See `template`; its light is of AB magnitude 0 in SDSS r at rest.
    survey
        A key of `FILTERS`.
    bands
        Letters of the survey's bands.
    redshift
        Shape (n,).

    Returns
    -------
    NDArray[np.float64]
        Shape (n, bands).
    """
    chosen = FILTERS[survey]
    wavelength, flux = template(name)
    columns = []
    for band in bands:
        curve = filters.load_filter(f"{chosen.group}-{band}")
        through = np.asarray(curve.wavelength, float), np.asarray(curve.response, float)
        maggies = _band_flux(wavelength, flux, *through, redshift)
        columns.append(-2.5 * np.log10(maggies) - chosen.offsets.get(band, 0.0))
    return np.stack(columns, axis=1)


def _line_spectrum() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lines of Gaussian profile; H-alpha is 100 Angstrom times a continuum of AB magnitude 0 there."""
    wavelength = np.arange(3600.0, 6900.0, 1.0)
    h_alpha = 100 * _AB * _LIGHT / 6562.8**2
    flux = np.zeros_like(wavelength)
    for centre, strength in LINES.items():
        profile = np.exp(-(((wavelength - centre) / _LINE_WIDTH) ** 2) / 2)
        flux += h_alpha * strength * profile / (_LINE_WIDTH * np.sqrt(2 * np.pi))
    return wavelength, flux


def _band_flux(
    wavelength: NDArray[np.float64],
    flux: NDArray[np.float64],
    filter_wavelength: NDArray[np.float64],
    response: NDArray[np.float64],
    redshift: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return AB maggies of a redshifted spectrum in a band: Hogg et al. 2002, astro-ph/0210394, eq. 8."""
    observed = np.arange(filter_wavelength[0], filter_wavelength[-1], 2.0)
    weight = np.interp(observed, filter_wavelength, response) * observed
    zero = np.trapezoid(weight * _AB * _LIGHT / observed**2, observed)
    out = np.empty(redshift.size)
    for i, z in enumerate(redshift):
        emitted = np.interp(observed / (1 + z), wavelength, flux, left=0.0, right=0.0)
        out[i] = np.trapezoid(emitted * weight, observed) / (1 + z) / zero
    return out


def _pivot(wavelength: NDArray[np.float64], response: NDArray[np.float64]) -> float:
    """Pivot wavelength of a photon-counting response."""
    ratio = np.trapezoid(response * wavelength, wavelength) / np.trapezoid(response / wavelength, wavelength)
    return float(np.sqrt(ratio))
