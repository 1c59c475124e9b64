"""Band fluxes against GalSim's own synthetic photometry, and against integrals without approximation."""

import galsim
import numpy as np
import pytest
from speclite import filters

from gzscale.errors import ConfigError
from gzscale.sky import spectra


def colours(survey, name, redshift):
    weights = np.zeros((1, len(spectra.SEQUENCE) + 1))
    weights[0, spectra.SEQUENCE.index(name)] = 1
    return 22.5 - 2.5 * np.log10(spectra.library(survey).at(weights, np.array([redshift])))[0]


def galsim_magnitudes(name, redshift, group, bands):
    wavelength, flux = spectra.template(name)
    table = galsim.LookupTable(wavelength, flux, interpolant="linear")
    sed = galsim.SED(table, wave_type="Angstrom", flux_type="flambda").atRedshift(redshift)
    out = []
    for band in bands:
        curve = filters.load_filter(f"{group}-{band}")
        response = galsim.LookupTable(np.asarray(curve.wavelength), curve.response, interpolant="linear")
        out.append(
            sed.calculateMagnitude(galsim.Bandpass(response, wave_type="Angstrom").withZeropoint("AB"))
        )
    return np.array(out)


@pytest.mark.parametrize("survey", ["sdss", "rubin"])
@pytest.mark.parametrize(("name", "redshift"), [("E", 0.0), ("E", 0.2373), ("Im", 0.1), ("Scd", 0.391)])
def test_colours_are_those_of_galsim(survey, name, redshift):
    chosen = spectra.FILTERS[survey]
    ours = colours(survey, name, redshift)
    theirs = galsim_magnitudes(name, redshift, chosen.group, chosen.bands)
    theirs = theirs - [chosen.offsets.get(band, 0.0) for band in chosen.bands]
    np.testing.assert_allclose(ours - ours[2], theirs - theirs[2], atol=0.005)


def test_a_flat_spectrum_has_its_magnitude_and_its_k_correction():
    wavelength = np.linspace(1000.0, 20000.0, 20000)
    flat = spectra._AB * spectra._LIGHT / wavelength**2
    curve = filters.load_filter("sdss2010-i")
    flux = spectra._band_flux(
        wavelength,
        flat,
        np.asarray(curve.wavelength, float),
        np.asarray(curve.response, float),
        np.array([0, 0.5]),
    )
    # Constant f_nu: f_lambda at the emitted wavelength is (1 + z)^2 higher; stretching takes one (1 + z).
    np.testing.assert_allclose(-2.5 * np.log10(flux), [0, -2.5 * np.log10(1.5)], atol=1e-4)


def test_dust_at_the_pivot_wavelength_is_near_the_integral():
    curve = filters.load_filter("sdss2010-g")
    band = np.asarray(curve.wavelength, float), np.asarray(curve.response, float)
    for name, redshift in (("E", 0.05), ("Im", 0.3)):
        wavelength, flux = spectra.template(name)
        dusty = flux * 10 ** (-0.4 * (wavelength / 5500) ** -0.7)
        at = np.array([redshift])
        exact = spectra._band_flux(wavelength, dusty, *band, at) / spectra._band_flux(
            wavelength, flux, *band, at
        )
        weights = np.zeros((1, len(spectra.SEQUENCE) + 1))
        weights[0, spectra.SEQUENCE.index(name)] = 1
        table = spectra.library("sdss")
        ratio = table.at(weights, at, 1.0) / table.at(weights, at)
        assert -2.5 * np.log10(ratio[0, 1] / exact[0]) == pytest.approx(0, abs=0.03)


def test_lines_add_what_their_equivalent_width_says():
    # 100 A of H-alpha on a flat continuum, and the other lines of r with it, against the width of the filter.
    curve = filters.load_filter("sdss2010-r")
    wavelength, response = np.asarray(curve.wavelength, float), np.asarray(curve.response, float)
    inside = {w: s * np.interp(w, wavelength, response) * w for w, s in spectra.LINES.items()}
    continuum = np.trapezoid(response * spectra._AB * spectra._LIGHT / wavelength, wavelength)
    expected = 100 * spectra._AB * spectra._LIGHT / 6562.8**2 * sum(inside.values()) / continuum
    weights = np.zeros((1, len(spectra.SEQUENCE) + 1))
    weights[0, -1] = 1
    assert spectra.library("sdss").at(weights, np.zeros(1))[0, 2] == pytest.approx(expected, rel=0.01)


def test_what_is_not_tabulated_is_refused():
    with pytest.raises(ConfigError, match=r"0 to 1\.6"):
        spectra.library("sdss").at(np.ones((1, 4)), np.array([1.7]))
    with pytest.raises(ConfigError, match="sdss, rubin"):
        spectra.library("euclid")
