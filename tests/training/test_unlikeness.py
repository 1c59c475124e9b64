import numpy as np
import pytest

from gzscale.training.unlikeness import usual_distance


def test_the_limit_is_that_of_galaxies_that_no_member_has_learnt():
    """Members overfit: what they have learnt is nearer to them than what they have not."""
    rng = np.random.default_rng(2)
    strange = rng.gamma(4, 0.2, 6000)  # what all members have in common

    def distances(learnt):
        return (strange[None] + rng.normal(0, 0.1, (5, 6000))) * np.where(learnt, 0.7, 1.0)

    fold = np.arange(6000) % 5
    found = usual_distance(distances(fold[None] != np.arange(5)[:, None]), fold, 0.99)
    truth = np.quantile(distances(np.zeros((5, 6000), bool)).mean(axis=0), 0.99)
    assert found == pytest.approx(truth, rel=0.03)


def test_a_single_member_s_limit_would_be_too_wide():
    rng = np.random.default_rng(3)
    distance = rng.normal(1, 0.3, (5, 2000))
    fold = np.arange(2000) % 5
    single = np.quantile(distance[fold, np.arange(2000)], 0.99)
    assert usual_distance(distance, fold, 0.99) < 0.8 * single
