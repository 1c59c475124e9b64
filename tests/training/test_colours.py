import numpy as np
import pytest

from gzscale.training.colours import METHODS, colour_features
from gzscale.training.photoz_metrics import residuals, sigma_mad

EDGES = np.linspace(0, 0.4, 81)


def sample(count, seed):
    rng = np.random.default_rng(seed)
    redshift = rng.uniform(0.02, 0.38, count)
    features = np.stack([3 * redshift, np.sin(8 * redshift), rng.normal(0, 1, count)], 1)
    return features + rng.normal(0, 0.03, features.shape), redshift


@pytest.mark.parametrize("method", METHODS)
def test_colours_that_tell_redshifts_do(method, monkeypatch):
    monkeypatch.setattr("gzscale.training.colours.EPOCHS", 15)
    known, redshift = sample(4000, 0)
    asked, truth = sample(500, 1)
    asked[0, 0] = np.nan
    found = METHODS[method](known, redshift, asked, EDGES)
    assert found.shape == (500, 80)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    middle = found @ (EDGES[1:] + EDGES[:-1]) / 2
    assert sigma_mad(residuals(middle, truth)) < 0.012


def test_colours_are_corrected_and_bright_ones_are_pogsons():
    flux = np.array([[10.0, 40.0, 100.0], [np.nan, 40.0, 100.0], [-1.0, 40.0, 100.0]])
    ebv = np.array([0.0, 0.1, np.nan])
    found = colour_features(flux, ebv, (4.0, 3.0, 2.0), 2)
    expected = 22.5 - 2.5 * np.log10(flux[0])
    np.testing.assert_allclose(found[0], [*(expected[:-1] - expected[1:]), expected[2]], atol=5e-3)
    assert np.isnan(found[1, 0])
    np.testing.assert_allclose(found[1, 1:], [found[0, 1] - 0.1, found[0, 2] - 0.2], atol=1e-3)
    assert np.isfinite(found[2]).all()
