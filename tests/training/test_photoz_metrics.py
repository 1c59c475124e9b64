import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from gzscale.training.photoz_metrics import (
    bias,
    bootstrap,
    coverage,
    cramer_von_mises,
    crps,
    kolmogorov_smirnov,
    outlier_fraction,
    pit_values,
    residuals,
    score_pdfs,
    sigma_mad,
)

EDGES = np.linspace(0, 0.4, 181)


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def pdfs(mean, sigma):
    total = stats.norm.cdf(EDGES, mean[:, None], sigma)
    return np.diff(total, axis=1)


def test_point_estimates_by_their_formulas(rng):
    truth = rng.uniform(0, 0.4, 5001)
    estimate = truth + (1 + truth) * rng.normal(0.003, 0.012, 5001)
    estimate[:50] = truth[:50] + 0.2
    residual = residuals(estimate, truth)
    assert bias(residual) == pytest.approx(np.mean((estimate - truth) / (1 + truth)))
    assert sigma_mad(residual) == pytest.approx(
        stats.median_abs_deviation(residual, scale="normal"), rel=1e-4
    )
    assert sigma_mad(residual) == pytest.approx(0.012, rel=0.05)
    assert outlier_fraction(residual) == pytest.approx(50 / 5001, abs=3e-4)


def test_the_distances_from_uniform_are_scipys(rng):
    pit = rng.beta(1.2, 0.9, 3000)
    assert kolmogorov_smirnov(pit) == pytest.approx(stats.kstest(pit, "uniform").statistic)
    assert cramer_von_mises(pit) == pytest.approx(
        np.sqrt(stats.cramervonmises(pit, "uniform").statistic / 3000)
    )


def test_pit_of_right_pdfs_is_uniform_and_of_wrong_ones_is_not(rng):
    mean = rng.uniform(0.1, 0.3, 20_000)
    truth = rng.normal(mean, 0.015)
    assert kolmogorov_smirnov(pit_values(pdfs(mean, 0.015), EDGES, truth)) < 0.015
    assert kolmogorov_smirnov(pit_values(pdfs(mean, 0.03), EDGES, truth)) > 0.1
    for level in (0.68, 0.95):
        assert coverage(pdfs(mean, 0.015), EDGES, truth, level) == pytest.approx(level, abs=0.012)


def test_crps_is_the_integral(rng):
    probabilities = rng.dirichlet(np.full(180, 0.1), 6)
    truth = np.array([0.0, 0.1, 0.1234, 0.399, 0.4, 0.55])
    found = crps(probabilities, EDGES, truth)
    for row, z, score in zip(probabilities, truth, found, strict=True):
        total = np.concatenate([[0], np.cumsum(row)])

        def gap(x, total=total, z=z):
            return (np.interp(x, EDGES, total) - (x >= z)) ** 2

        parts = np.unique(np.concatenate([EDGES, [z]]))
        expected = sum(
            integrate.fixed_quad(gap, a + 1e-13, b - 1e-13, n=4)[0] for a, b in itertools.pairwise(parts)
        )
        assert score == pytest.approx(expected, abs=1e-7)


def test_crps_of_a_normal_distribution_and_of_a_spike(rng):
    truth = np.array([0.2, 0.21])
    z = (truth - 0.2) / 0.02
    expected = 0.02 * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(crps(pdfs(np.full(2, 0.2), 0.02), EDGES, truth), expected, rtol=3e-3)
    spike = np.zeros((1, 180))
    spike[0, 90] = 1
    assert crps(spike, EDGES, np.array([0.3]))[0] == pytest.approx(0.1, abs=0.0015)


def test_bootstrap_of_a_mean_is_its_standard_error(rng):
    values = rng.normal(0, 2, 4000)
    assert bootstrap(bias, values) == pytest.approx(2 / np.sqrt(4000), rel=0.25)


def test_all_scores_together(rng):
    mean = rng.uniform(0.1, 0.3, 4000)
    truth = rng.normal(mean, 0.015)
    scores = score_pdfs(pdfs(mean, 0.015), EDGES, truth)
    assert scores["sigma_mad"] == pytest.approx(0.015 / 1.2, rel=0.06)
    assert abs(scores["bias"]) < 4 * scores["bias_error"] + 1e-4
    assert scores["crps"] == pytest.approx(0.015 / np.sqrt(np.pi), rel=0.05)
    assert scores["inside_68"] == pytest.approx(0.68, abs=0.03)
    assert score_pdfs(pdfs(mean, 0.015), EDGES, truth, truth)["sigma_mad"] == 0
