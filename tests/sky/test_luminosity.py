"""Distances against astropy, redshifts against the luminosity function, sizes against the paper's."""

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from scipy import integrate, stats

from gzscale.sky import luminosity, population


def test_distance_modulus_against_astropy():
    redshift = np.linspace(1e-3, 0.5, 500)
    expected = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0).distmod(redshift).value
    np.testing.assert_allclose(luminosity.distance_modulus(redshift), expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["elliptical", "spiral"])
def test_redshifts_follow_the_luminosity_function(kind):
    magnitude, count = 16.5, 20_000
    drawn = luminosity.draw_redshift(
        np.full(count, kind), np.full(count, magnitude), np.random.default_rng(1)
    )
    early = kind == "elliptical"
    function = luminosity._FUNCTIONS["early" if early else "disk"]
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0)
    grid = np.linspace(*luminosity.REDSHIFTS["sdss"], 400)
    absolute = magnitude - cosmology.distmod(grid).value
    absolute = absolute - np.interp(grid, luminosity._GRID, luminosity._k_correction(function.template))
    x = 10 ** (0.4 * (function.characteristic - 1.62 * grid - absolute))
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
