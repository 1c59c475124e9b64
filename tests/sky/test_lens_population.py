"""Lens population: distances against astropy, colours against speclite, and what draws must satisfy."""

import numpy as np
import pytest
import speclite.filters
from astropy.cosmology import FlatLambdaCDM

from gzscale.sky.lens_population import (
    Deflectors,
    draw_lenses,
    draw_uniform,
    einstein_radius,
    passive_redshift,
    velocity_dispersion,
)
from gzscale.sky.lens_sources import template_magnitudes
from gzscale.sky.spectra import template

DEPTH = np.array([0.06, 0.1, 0.2])


def deflectors(n=40):
    rng = np.random.default_rng(3)
    redshift = rng.uniform(0.15, 0.45, n)
    return Deflectors(redshift, 16.5 + 6 * redshift, rng.uniform(0.5, 1, n), rng.uniform(0, 3, n))


def test_einstein_radius_is_that_of_astropy_distances():
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    between = 1 - cosmology.comoving_distance(0.3) / cosmology.comoving_distance(1.5)
    expected = np.degrees(4 * np.pi * (250 / 299792.458) ** 2 * float(between)) * 3600
    found = einstein_radius(np.array([250.0]), np.array([0.3]), np.array([1.5]))
    assert found[0] == pytest.approx(expected, rel=2e-3)
    assert einstein_radius(np.array([250.0]), np.array([0.5]), np.array([0.4]))[0] == 0


def test_colours_are_those_of_the_redshifted_spectrum():
    wavelength, flux = template("E")
    for bands, group, survey in (
        ("gr", "sdss2010", "sdss"),
        ("gr", "lsst2023", "rubin"),
        ("ry", "lsst2023", "rubin"),
    ):
        curves = speclite.filters.load_filters(*(f"{group}-{band}" for band in bands))
        expected = curves.get_ab_magnitudes(flux * 1e-17, wavelength * 1.3, mask_invalid=True)[0]
        found = template_magnitudes("E", np.array([0.3]), bands, survey)[0]
        assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], abs=0.02)


def test_colours_are_in_the_surveys_own_system():
    """SDSS's z magnitudes are 0.02 fainter than AB (z_AB = z + 0.02)."""
    wavelength, flux = template("E")
    curves = speclite.filters.load_filters("sdss2010-i", "sdss2010-z")
    ab = curves.get_ab_magnitudes(flux * 1e-17, wavelength * 1.2, mask_invalid=True)[0]
    found = template_magnitudes("E", np.array([0.2]), "iz")[0]
    assert (found[0] - found[1]) - (ab[0] - ab[1]) == pytest.approx(0.02, abs=0.01)


def test_passive_redshift_comes_back():
    redshift = np.array([0.1, 0.25, 0.4, 0.55])
    found = passive_redshift(template_magnitudes("E", redshift, "gri") + 18)
    np.testing.assert_allclose(found, redshift, atol=0.03)
    blue = np.array([[18.0, 18.1, 18.2], [np.nan, 18.0, 17.0]])
    assert np.isnan(passive_redshift(blue)).all()


def test_velocity_dispersion_of_a_luminous_red_galaxy():
    """M_r = -22.5 has some 210 km/s (Hyde & Bernardi 2009, figure 7)."""
    distance = FlatLambdaCDM(H0=70, Om0=0.3).distmod(0.01).value
    assert velocity_dispersion(np.array([-22.5 + distance]), np.array([0.01]))[0] == pytest.approx(
        207, rel=0.03
    )


def test_drawn_lenses_are_what_was_asked():
    given = deflectors()
    lenses, truth = draw_lenses(
        given, np.arange(40).repeat(3), "gri", np.random.default_rng(1), DEPTH, 1.2, (0.8, 3.0)
    )
    assert 20 < len(lenses) <= 120
    assert (lenses.einstein_radius >= 0.8).all()
    assert (lenses.einstein_radius <= 3.0).all()
    assert (truth.source_redshift > truth.deflector_redshift).all()
    expected = einstein_radius(truth.velocity_dispersion, truth.deflector_redshift, truth.source_redshift)
    np.testing.assert_allclose(lenses.einstein_radius, expected, rtol=1e-6)
    np.testing.assert_allclose(lenses.share.sum(axis=2), 1, atol=1e-9)
    i_flux = lenses.flux.sum(axis=1)[:, 2]
    assert np.median(np.abs(22.5 - 2.5 * np.log10(i_flux) - truth.source_magnitude)) < 0.15


def test_draws_repeat_with_their_seed():
    def draw():
        return draw_lenses(deflectors(), np.arange(40), "gri", np.random.default_rng(5), DEPTH, 1.2)

    first, second = draw(), draw()
    np.testing.assert_array_equal(first[0].x, second[0].x)
    np.testing.assert_array_equal(first[1].deflector, second[1].deflector)


def test_deflectors_without_redshift_give_no_lens():
    nobody = Deflectors(np.full(3, np.nan), np.full(3, 17.0), np.full(3, 0.8), np.zeros(3))
    lenses, truth = draw_lenses(nobody, np.arange(3), "gri", np.random.default_rng(1), DEPTH, 1.2)
    assert len(lenses) == len(truth.deflector) == 0


def test_uniform_radii_fill_their_range_with_several_images():
    lenses, truth = draw_uniform(
        deflectors(), np.arange(40).repeat(20), "gri", np.random.default_rng(2), (0.5, 4)
    )
    counts = np.histogram(lenses.einstein_radius, np.linspace(0.5, 4, 8))[0]
    assert counts.min() > 0.7 * counts.mean()
    impact = np.hypot(lenses.x[:, 0], lenses.y[:, 0])
    assert (impact <= lenses.einstein_radius * np.sqrt(lenses.axis_ratio) * (1 + 1e-9)).all()
    # With the radius, the velocity dispersion that would make it.
    expected = einstein_radius(truth.velocity_dispersion, truth.deflector_redshift, truth.source_redshift)
    known = expected > 0
    np.testing.assert_allclose(lenses.einstein_radius[known], expected[known], rtol=1e-6)
