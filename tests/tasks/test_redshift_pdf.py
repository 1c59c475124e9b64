import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from gzscale.tasks.redshift_pdf import (
    ODDS_WIDTH,
    cumulative,
    cumulative_at,
    densities,
    quantiles,
    recalibrate,
    summarise,
)

EDGES = np.linspace(0, 0.4, 181)
UNEVEN = np.array([0.0, 0.1, 0.15, 0.4, 1.0])
pdfs = arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)).filter(
    lambda p: (p.sum(axis=1) > 0.01).all()
)


def normal(mean, sigma):
    total = stats.norm.cdf(EDGES, np.asarray(mean)[:, None], np.asarray(sigma)[:, None])
    return np.diff(total, axis=1)


def histograms(probabilities, edges):
    return [stats.rv_histogram((row.astype(np.float64), edges), density=False) for row in probabilities]


@given(pdfs, st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3), st.floats(-0.2, 1.2))
@settings(max_examples=60, deadline=None)
def test_agrees_with_scipys_histograms(probabilities, levels, where):
    known = histograms(probabilities, UNEVEN)
    total = cumulative(probabilities)
    np.testing.assert_allclose(total, [row.cdf(UNEVEN) for row in known], atol=1e-6)
    found = cumulative_at(total, UNEVEN, np.full(3, where))
    np.testing.assert_allclose(found, [row.cdf(where) for row in known], atol=1e-6)
    # The quantile of a bin without probability is not unique: what it stands for is.
    reached = quantiles(total, UNEVEN, levels)
    back = np.stack([cumulative_at(total, UNEVEN, column) for column in reached.T], axis=1)
    np.testing.assert_allclose(back, np.broadcast_to(levels, back.shape), atol=1e-6)
    told = summarise(probabilities, UNEVEN)
    np.testing.assert_allclose(told.mean, [row.mean() for row in known], rtol=1e-5)
    np.testing.assert_allclose(told.std, [row.std() for row in known], rtol=1e-3)
    assert (densities(probabilities, UNEVEN) * np.diff(UNEVEN)).sum(axis=1) == pytest.approx(1)


def test_summaries_of_normal_distributions():
    mean, sigma = np.array([0.1, 0.2, 0.25]), np.array([0.01, 0.02, 0.03])
    told = summarise(normal(mean, sigma), EDGES)
    for found in (told.mean, told.median):
        np.testing.assert_allclose(found, mean, atol=3e-5)
    np.testing.assert_allclose(told.mode, mean, atol=0.5 * 0.4 / 180 + 1e-12)
    np.testing.assert_allclose(told.high68 - told.low68, 2 * 0.99446 * sigma, rtol=1e-2)
    np.testing.assert_allclose(told.std, sigma, rtol=5e-3)
    reach = ODDS_WIDTH * (1 + told.mode)
    expected = stats.norm.cdf((told.mode + reach - mean) / sigma) - stats.norm.cdf(
        (told.mode - reach - mean) / sigma
    )
    np.testing.assert_allclose(told.odds, expected, atol=2e-3)


def test_mode_is_of_the_density_not_of_the_share():
    assert summarise(np.array([[0.1, 0.3, 0.35, 0.25]]), UNEVEN).mode[0] == pytest.approx(0.125)


def test_recalibration_widens_and_makes_pit_uniform():
    rng = np.random.default_rng(1)
    truth = rng.normal(0.2, 0.02, 40_000)
    narrow = np.broadcast_to(normal([0.195], [0.015]), (len(truth), 180))
    pit = np.sort(cumulative_at(cumulative(narrow), EDGES, truth))
    steps = np.searchsorted(pit, np.linspace(0, 1, 401)) / len(pit)
    steps[0], steps[-1] = 0, 1
    again = recalibrate(narrow[:1], 1.0, steps)
    mended = cumulative_at(cumulative(np.broadcast_to(again, narrow.shape)), EDGES, truth)
    assert stats.kstest(pit, "uniform").statistic > 0.1
    assert stats.kstest(mended, "uniform").statistic < 0.03
    wide = summarise(recalibrate(narrow[:1], 4.0, [0, 1]), EDGES)
    assert wide.std[0] == pytest.approx(2 * 0.015, rel=0.02)
    np.testing.assert_allclose(recalibrate(narrow[:1], 1.0, [0, 0.5, 1]), narrow[:1], atol=1e-9)
