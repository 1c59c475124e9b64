"""Measures of lens finders against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from gzscale.training.lens_metrics import (
    auroc,
    binomial_interval,
    finder_scores,
    precision_at_budget,
    reliability,
    tpr_at_false_positives,
    tpr_at_rate,
)


def scores(n=300, m=4000, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(2, 1, n).round(2), rng.normal(0, 1, m).round(2)


def test_auroc_is_sklearns_with_ties():
    lenses, others = scores()
    label = np.r_[np.ones(len(lenses)), np.zeros(len(others))]
    assert auroc(lenses, others) == pytest.approx(roc_auc_score(label, np.r_[lenses, others]), abs=1e-12)


@pytest.mark.parametrize("allowed", [0, 1, 4, 10, 100])
def test_tpr_is_on_the_roc_curve(allowed):
    lenses, others = scores()
    label = np.r_[np.ones(len(lenses)), np.zeros(len(others))]
    fpr, tpr, _ = roc_curve(label, np.r_[lenses, others], drop_intermediate=False)
    expected = tpr[fpr * len(others) <= allowed + 1e-9].max()
    assert tpr_at_false_positives(lenses, others, allowed) == pytest.approx(expected)
    assert tpr_at_rate(lenses, others, allowed / len(others)) == pytest.approx(expected)


def test_a_tie_with_the_best_other_is_not_found():
    assert tpr_at_false_positives(np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0]), 0) == pytest.approx(1 / 3)
    assert tpr_at_false_positives(np.array([1.0]), np.array([2.0]), 1) == 1


@given(st.integers(0, 1000))
def test_precision_is_that_of_a_catalog_of_that_prevalence(seed):
    """Against a catalog in which every lens and other is repeated as often as the prevalence asks."""
    rng = np.random.default_rng(seed)
    lenses, others = rng.normal(1.5, 1, 3), rng.normal(0, 1, 30)
    repeated = np.repeat(others, 30)
    every = np.r_[np.repeat(lenses, 1), repeated]
    prevalence = 3 / len(every)
    order = np.argsort(-every, kind="stable")
    length = 60
    expected = (order[:length] < 3).sum() / length
    found = precision_at_budget(lenses, others, prevalence, length / len(every))
    assert found == pytest.approx(expected, abs=1e-9)


def test_precision_of_a_perfect_finder_fills_the_list():
    assert precision_at_budget(np.ones(5), np.zeros(5), 1e-3, 1e-4) == 1
    assert precision_at_budget(np.ones(5), np.zeros(5), 1e-3, 2e-3) == pytest.approx(0.5)
    assert precision_at_budget(np.zeros(5), np.ones(5), 1e-3, 1e-4) == 0


@pytest.mark.parametrize(("found", "tried"), [(0, 4), (3, 10), (245, 245), (1, 4000)])
def test_interval_is_scipys(found, tried):
    expected = binomtest(found, tried).proportion_ci(0.95, method="exact")
    assert binomial_interval(found, tried) == pytest.approx((expected.low, expected.high), rel=1e-6)


@pytest.mark.parametrize("prevalence", [None, 0.05])
def test_noise_of_a_diagram_is_the_deviation_of_honest_chances(prevalence):
    rng = np.random.default_rng(5)
    honest = [
        reliability(chance, rng.random(2000) < chance, prevalence)
        for chance in (rng.beta(0.6, 0.6 if prevalence is None else 11.4, 2000) for _ in range(60))
    ]
    deviation = np.mean([diagram.deviation for diagram in honest])
    assert np.mean([diagram.noise for diagram in honest]) == pytest.approx(deviation, rel=0.15)


def test_reliability_is_sklearns():
    rng = np.random.default_rng(2)
    probability = rng.random(5000)
    lens = rng.random(5000) < probability
    found = reliability(probability, lens)
    observed, predicted = calibration_curve(lens, probability, n_bins=10)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    assert found.weight.sum() == pytest.approx(1)
    assert found.deviation < 0.03


def test_reliability_at_another_prevalence():
    rng = np.random.default_rng(3)
    lens = np.arange(200_000) < 100_000
    logit = rng.normal(np.where(lens, 2, -2), 2)
    # Of these normals the log likelihood ratio is the value itself.
    odds = np.exp(logit) * 0.01 / 0.99
    found = reliability(odds / (1 + odds), lens, 0.01)
    assert found.deviation < 2e-3
    assert (found.weight * found.observed).sum() == pytest.approx(0.01)


def test_all_measures_of_one_finder():
    found = finder_scores(*scores())
    assert set(found) == {"auroc", "tpr0", "tpr10", "tpr_1e-3", "tpr_1e-4", "precision"}
    assert found["tpr0"] == found["tpr_1e-4"] <= found["tpr_1e-3"] <= found["tpr10"]
