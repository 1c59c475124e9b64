"""Crowds of stars: as bright, as blue and as sharp as what they are drawn from."""

import numpy as np
import pytest
from scipy.ndimage import maximum_filter
from test_inject import SEEING, SIZE, red_galaxies, write_store

from gzscale.sky.crowds import draw_crowds
from gzscale.sky.deflectors import measure_seeing
from gzscale.sky.stamps import read_stamps
from gzscale.sky.starlight import locus_fluxes, star_fluxes


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    store = write_store(tmp_path_factory.mktemp("crowds"), red_galaxies(40))
    return read_stamps([str(store)], "gri")[0]


@pytest.fixture(scope="module")
def crowds(base):
    return draw_crowds(base, "gri", np.random.default_rng(3))


def test_a_crowd_is_many_stars_all_over_the_cutout(base, crowds):
    assert crowds.shape == (len(base), 3, SIZE, SIZE)
    assert crowds.dtype == np.float32
    assert np.isfinite(crowds).all()
    assert crowds.min() > -1e-3 * crowds.max()
    bright = crowds[:, 1] > 5 * base.noise[:, 1, None, None]
    peaks = (maximum_filter(crowds[:, 1], (0, 5, 5)) == crowds[:, 1]) & bright
    number = peaks.sum(axis=(1, 2))
    assert number.min() < 15 < 60 < number.max()
    rows, columns = np.nonzero(peaks.any(axis=0))
    for places in (rows, columns):
        assert places.mean() == pytest.approx(SIZE / 2, abs=4)


def test_crowds_differ_as_clusters_do(crowds):
    """M2's cutouts have 50 to 1,400 nanomaggies in r, the hundredth brightest 3,400; g / r 0.5 to 0.9."""
    total = crowds.sum(axis=(2, 3))
    low, high = np.quantile(total[:, 1], (0.1, 0.9))
    assert low < 100
    assert 1400 < high < 10_000
    assert 0.5 < np.median(total[:, 0] / total[:, 1]) < 0.9
    assert 1.0 < np.median(total[:, 2] / total[:, 1]) < 1.7


def test_stars_of_a_crowd_are_as_wide_as_the_seeing(base, crowds):
    found = measure_seeing(crowds, "gri", base.scale, base.noise)
    np.testing.assert_allclose(found, SEEING, rtol=0.12)


def test_the_same_seed_draws_the_same_crowds(base, crowds):
    np.testing.assert_array_equal(draw_crowds(base, "gri", np.random.default_rng(3)), crowds)


@pytest.mark.parametrize("colour", [-0.25, 0.0, 0.45, 1.3])
def test_stars_of_a_colour_have_it(colour):
    rng = np.random.default_rng(1)
    magnitude = rng.uniform(14, 22, 4000)
    flux = locus_fluxes(magnitude, np.full(4000, colour), "ugriz", rng)
    g_r = -2.5 * np.log10(flux[:, 1] / flux[:, 2])
    assert g_r.mean() == pytest.approx(colour, abs=0.005)
    assert g_r.std() == pytest.approx(0.04, rel=0.1)
    np.testing.assert_allclose(22.5 - 2.5 * np.log10(flux[:, 2]), magnitude)


def test_stars_at_high_latitude_have_no_horizontal_branch():
    flux = star_fluxes(np.full(4000, 18.0), "gr", np.random.default_rng(2))
    assert (-2.5 * np.log10(flux[:, 0] / flux[:, 1])).min() > 0.25 - 0.2
