"""Distances against astropy, redshifts against the luminosity function, sizes against the paper's."""

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from scipy import integrate, stats

from gzscale.sky import luminosity, population, spectra


def test_distance_modulus_against_astropy():
    redshift = np.linspace(1e-3, 0.5, 500)
    expected = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0).distmod(redshift).value
    np.testing.assert_allclose(luminosity.distance_modulus(redshift), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "survey", "magnitude", "evolution"),
    [
        ("elliptical", "sdss", 16.5, 1.62),
        ("spiral", "sdss", 16.5, 1.62),
        ("elliptical", "rubin", 21.0, 1.2),
        ("spiral", "rubin", 22.5, 1.2),
    ],
)
def test_redshifts_follow_the_luminosity_function(kind, survey, magnitude, evolution):
    count = 20_000
    drawn = luminosity.draw_redshift(
        np.full(count, kind), np.full(count, magnitude), np.random.default_rng(1), survey
    )
    early = kind == "elliptical"
    function = luminosity._FUNCTIONS["early" if early else "disk"]
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0)
    grid = np.linspace(*luminosity.REDSHIFTS[survey], 1200)
    absolute = magnitude - cosmology.distmod(grid).value
    table = spectra.library(survey)
    absolute = absolute - np.interp(grid, table.redshift, table.k_correction(function.template, "r"))
    x = 10 ** (0.4 * (function.characteristic - evolution * grid - absolute))
    density = x ** (function.slope + 1) * np.exp(-x) * cosmology.differential_comoving_volume(grid).value
    cumulative = integrate.cumulative_trapezoid(density, grid, initial=0)
    result = stats.kstest(drawn, lambda z: np.interp(z, grid, cumulative / cumulative[-1]))
    assert result.pvalue > 1e-3


def test_the_main_sample_s_median_redshift():
    # Real counts to r = 17.77: SDSS's main sample has a median of 0.104 (Strauss et al. 2002, AJ 124, 1810).
    rng = np.random.default_rng(2)
    kind = population.draw_kinds(40_000, rng)
    magnitude = population.draw_magnitudes(40_000, rng, (14.5, 17.77), 0.6)
    redshift = luminosity.draw_redshift(kind, magnitude, rng)
    assert np.median(redshift) == pytest.approx(0.104, abs=0.015)
    bright = magnitude < 16
    assert np.median(redshift[bright]) < 0.6 * np.median(redshift[magnitude > 17])


def test_faint_galaxies_are_as_far_as_deep_surveys_find_them():
    # Spectroscopic surveys to I = 22.5 have a median of 0.6 (VVDS, zCOSMOS), which is about r = 23.
    rng = np.random.default_rng(2)
    kind = population.draw_kinds(40_000, rng)
    magnitude = population.draw_magnitudes(40_000, rng, (18.0, 23.0), 0.38)
    redshift = luminosity.draw_redshift(kind, magnitude, rng, "rubin")
    assert np.median(redshift) == pytest.approx(0.58, abs=0.08)
    assert (redshift < 1.5).all()


def test_sdss_galaxies_are_as_they_were_and_others_fade_and_grow():
    absolute, redshift = np.array([-21.0, -22.0]), np.array([0.1, 1.0])
    assert (luminosity.faded(absolute, redshift, "sdss") == absolute).all()
    assert (luminosity.shrunk(redshift, redshift, "sdss") == redshift).all()
    assert luminosity.faded(absolute, redshift, "rubin").tolist() == pytest.approx([-20.88, -20.8])
    assert luminosity.shrunk(np.ones(2), redshift, "rubin")[1] == pytest.approx(2**-0.75)


@pytest.mark.parametrize(
    ("early", "absolute", "kpc"), [(True, -22.0, 4.57), (False, -20.91, 3.47), (False, -17.0, 1.15)]
)
def test_sizes_are_those_of_the_relation(early, absolute, kpc):
    # Shen et al. 2003, equations 14 and 15 with table 1, by hand.
    n = 8001
    radius = luminosity.draw_radius(
        np.full(n, early), np.full(n, absolute), np.full(n, 0.1), np.random.default_rng(3)
    )
    scale = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0).kpc_proper_per_arcmin(0.1).value / 60
    assert np.median(radius) * scale == pytest.approx(kpc, rel=0.03)
