"""The simulated galaxies' colours against redshift beside those of SDSS's spectroscopic galaxies."""

import numpy as np
import pytest
import specz_sample as sample

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def real(real_data):
    return sample.real_galaxies(real_data / "tables" / "sdss-dr14-specz-10k.csv")


@pytest.fixture(scope="module")
def simulated():
    return sample.simulated_galaxies(100_000, seed=5)


def test_weights_give_the_real_distribution_of_redshift_and_r(real, simulated):
    weight = sample.weights(simulated, real)
    near = (real.redshift >= 0.005) & (real.redshift < 0.2) & (real.r > 13)
    # A cell without a simulated galaxy is lost; few real ones may be in such cells.
    assert weight.sum() > 0.98 * near.sum()
    assert np.average(simulated.redshift, weights=weight) == pytest.approx(
        real.redshift[near].mean(), abs=2e-3
    )
    assert np.average(simulated.r, weights=weight) == pytest.approx(real.r[near].mean(), abs=0.02)


def test_median_colours_are_within_a_tenth_of_a_magnitude_in_every_bin(real, simulated):
    weight = sample.weights(simulated, real)
    assert len(sample.bins_of(real)) == 9
    for number in sample.bins_of(real):
        ours = sample.medians(simulated, weight, number)
        theirs = sample.medians(real, np.ones(len(real)), number)
        for colour in sample.COLOURS:
            assert abs(ours[colour][0] - theirs[colour][0]) < 0.1, (number * sample.BIN, colour, ours, theirs)


def test_colours_tell_redshifts_as_well_as_real_ones_do(real, simulated):
    near = real[(real.redshift > 0.005) & (real.redshift < 0.2)]
    weight = sample.weights(simulated, near)
    ours = sample.colours_only(sample.resampled(simulated, weight, len(near), seed=2))
    theirs = sample.colours_only(near)
    assert ours[0] == pytest.approx(theirs[0], rel=0.3)


def test_the_comparison_is_drawn(real, simulated, tmp_path):
    sample.plot(real, simulated, sample.weights(simulated, real), tmp_path / "colours.png")
    assert (tmp_path / "colours.png").read_bytes().startswith(b"\x89PNG")
