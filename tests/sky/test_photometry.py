"""Measured fluxes and radii against the formula of an exponential disk, and noise against its scatter."""

import numpy as np
import pytest

from gzscale.sky import photometry

SCALE = 0.396
COLOURS = np.array([0.3, 0.7, 1.0, 1.3, 1.6])


def disk(length, size=64):
    axis = np.arange(size) - (size - 1) / 2
    image = np.exp(-np.hypot(axis[:, None], axis[None, :]) / length) / (2 * np.pi * length**2)
    return (100 * COLOURS[:, None, None] * image)[None]


def test_an_exponential_disk_has_its_petrosian_radius_and_flux():
    # r_P = 3.586 h; 99.4 % of the light lies within 2 r_P (Graham et al. 2005, AJ 130, 1535).
    found = photometry.measure(disk(4.0), np.full((1, 5), 1e-3), SCALE, "ugriz")
    assert found.radius[0] / SCALE == pytest.approx(3.586 * 4, rel=0.05)
    np.testing.assert_allclose(found.flux[0], 99.4 * COLOURS, rtol=0.01)


def test_errors_are_the_scatter_of_the_fluxes():
    rng = np.random.default_rng(1)
    noise = np.array([0.04, 0.02, 0.025, 0.04, 0.14])
    images = disk(3.0) + noise[:, None, None] * rng.standard_normal((400, 5, 64, 64))
    found = photometry.measure(images, np.tile(noise, (400, 1)), SCALE, "ugriz")
    pull = (found.flux - np.median(found.flux, axis=0)) / found.error
    # r is measured in the larger aperture and has its noise besides.
    np.testing.assert_allclose(pull[:, [0, 4]].std(axis=0), 1.0, atol=0.25)
    np.testing.assert_allclose(found.flux.mean(axis=0), 99.4 * COLOURS, rtol=0.02)


def test_a_neighbour_is_left_out():
    alone = disk(3.0)
    both = alone.copy()
    y, x = np.mgrid[:64, :64]
    both += 40 * np.exp(-((x - 44) ** 2 + (y - 40) ** 2) / 6) / (6 * np.pi)
    noise = np.full((1, 5), 0.02)
    clean = photometry.measure(alone, noise, SCALE, "ugriz").flux
    found = photometry.measure(both, noise, SCALE, "ugriz").flux
    np.testing.assert_allclose(found, clean, rtol=0.03)


def test_asinh_magnitudes_are_pogson_s_where_bright_and_finite_where_negative():
    flux = np.array([[100.0] * 5, [-3.0] * 5, [0.0] * 5])
    found = photometry.asinh_magnitude(flux, "ugriz")
    np.testing.assert_allclose(found[0], 22.5 - 5, atol=1e-3)
    # At zero flux SDSS's magnitudes are 24.63, 25.11, 24.80, 24.36, 22.83 (Stoughton et al. 2002, table 21).
    np.testing.assert_allclose(found[2], [24.63, 25.11, 24.80, 24.36, 22.83], atol=0.01)
    assert np.isfinite(found).all()
    assert (found[1] > found[2]).all()
