import numpy as np
import pytest

from gzscale.models.votes import QUESTIONS, to_joint
from gzscale.training import baseline
from gzscale.training.baseline import forest_predictions, mean_predictions
from gzscale.training.scores import clean_agreement, compare, error_of_rmse, question_scores


@pytest.fixture(scope="module")
def sample():
    """Bright pictures are of smooth galaxies, dark ones of disks."""
    rng = np.random.default_rng(1)
    bright = rng.random(120)
    pictures = (bright[:, None, None, None] * rng.uniform(100, 255, (120, 3, 8, 8))).astype(np.uint8)
    conditional = np.empty((120, 37))
    for question in QUESTIONS:
        conditional[:, question.answers] = rng.dirichlet(np.full(question.stop - question.start, 30.0), 120)
    conditional[:, 0], conditional[:, 1], conditional[:, 2] = 0.9 * bright, 0.9 * (1 - bright), 0.1
    return pictures, to_joint(conditional), np.arange(120) % 5


def test_the_mean_is_that_of_the_other_folds(sample):
    _, joint, fold = sample
    predicted = mean_predictions(joint, fold)
    np.testing.assert_allclose(predicted[7], joint[fold != 2].mean(axis=0))


def test_the_forest_learns_and_never_sees_what_it_is_asked(sample):
    pictures, joint, fold = sample
    predicted = forest_predictions(pictures, joint, fold)
    assert error_of_rmse(predicted, joint)[0] < 0.6 * error_of_rmse(mean_predictions(joint, fold), joint)[0]
    changed = joint.copy()
    changed[fold == 3] = joint[fold == 3][::-1]
    again = forest_predictions(pictures, changed, fold)
    np.testing.assert_allclose(again[fold == 3], predicted[fold == 3])


def test_the_forest_of_many_galaxies_takes_no_more_memory_for_their_pictures(sample, monkeypatch):
    """Beyond the limits it still learns; what it holds at a time is what the limits allow."""
    pictures, joint, fold = sample
    whole = error_of_rmse(forest_predictions(pictures, joint, fold), joint)[0]
    for name, value in (("MOST_FOR_COMPONENTS", 40), ("MOST_FOR_A_TREE", 60), ("_BLOCK", 16)):
        monkeypatch.setattr(baseline, name, value)
    shown = []
    kept = baseline._flat
    monkeypatch.setattr(baseline, "_flat", lambda *given: shown.append(len(given[1])) or kept(*given))
    some = error_of_rmse(forest_predictions(pictures, joint, fold), joint)[0]
    assert max(shown) == 40
    assert some < 0.7 * error_of_rmse(mean_predictions(joint, fold), joint)[0]
    assert some == pytest.approx(whole, rel=0.3)


def test_answers_of_clean_samples_that_are_predicted():
    predicted = np.zeros((2, 37))
    predicted[:, 0], predicted[:, 1], predicted[:, 13] = 0.6, 0.4, 0.2
    flagged = np.zeros((2, 37), bool)
    flagged[0, [0, 14]] = flagged[1, 1] = True
    assert clean_agreement(predicted, flagged) == (3, 1)
    flagged[1, 13] = True
    assert clean_agreement(predicted, flagged) == (4, 2)


def test_all_are_scored_side_by_side(sample):
    pictures, joint, fold = sample
    scores = compare(pictures, joint, fold, {"network": joint})
    assert scores["galaxies"] == 120
    assert scores["network_rmse"] == scores["network_rmse_error"] == 0
    assert scores["network_smooth"] == 1
    assert scores["pca_forest_rmse"] < scores["mean_rmse"]


def test_the_standard_error_is_the_bootstrap_s(sample):
    _, joint, fold = sample
    predicted = mean_predictions(joint, fold)
    rng = np.random.default_rng(2)
    draws = [error_of_rmse(predicted[i], joint[i])[0] for i in rng.integers(0, 120, (400, 120))]
    assert error_of_rmse(predicted, joint)[1] == pytest.approx(np.std(draws), rel=0.15)


def test_questions_are_scored_where_half_were_asked(sample):
    _, joint, _ = sample
    scores = question_scores(joint, joint)
    assert set(scores) <= set(range(1, 12))
    assert max(scores.values()) < 1e-6
