import numpy as np
import pytest
from scipy import stats

from gzscale.models.votes import ANSWERS, QUESTIONS, to_joint
from gzscale.tasks.vote_spread import (
    concentrations,
    decidedness,
    intervals,
    joint_standard_deviations,
    standard_deviations,
)
from gzscale.training.spread import (
    cross_fitted,
    fit_spread,
    inside,
    interval_scores,
    question_intervals,
)

TRUE = [[1.5 + 0.1 * index, -0.4] for index in range(11)]


@pytest.fixture(scope="module")
def sample():
    """Galaxies whose votes on each answer are Beta-binomial around the predictions, by `TRUE`."""
    rng = np.random.default_rng(0)
    expected = np.empty((1500, 37))
    for question in QUESTIONS:
        expected[:, question.answers] = rng.dirichlet(np.full(question.stop - question.start, 0.8), 1500)
    strength = concentrations(expected, TRUE)
    votes = np.full((1500, 11), 40)
    votes[:, 7:] = 12
    seen = np.empty_like(expected)
    for index, question in enumerate(QUESTIONS):
        for answer in range(question.start, question.stop):
            p, s = expected[:, answer], strength[:, answer]
            share = rng.beta(np.maximum(s * p, 1e-9), np.maximum(s * (1 - p), 1e-9))
            seen[:, answer] = rng.binomial(votes[:, index], share) / votes[:, index]
    # What is tested takes joint fractions: each question by itself is multiplied by what led to it.
    joint = np.empty_like(seen)
    for question in QUESTIONS:
        led = np.ones(1500) if question.parent is None else joint[:, question.parent]
        joint[:, question.answers] = np.maximum(seen[:, question.answers], 1e-6) * led[:, None]
    return to_joint(expected), joint, votes


def strength_of(predicted, coefficients):
    expected = np.empty_like(predicted)
    for question in QUESTIONS:
        led = np.ones(len(predicted)) if question.parent is None else predicted[:, question.parent]
        expected[:, question.answers] = predicted[:, question.answers] / led[:, None]
    return concentrations(expected, coefficients)


def test_what_was_put_in_is_found(sample):
    found = fit_spread(*sample)
    for index in range(11):
        assert found[index] == pytest.approx(TRUE[index], abs=0.25)


def test_intervals_hold_what_they_say(sample):
    predicted, joint, votes = sample
    half = np.arange(1500) < 750
    found = fit_spread(predicted[half], joint[half], votes[half])
    rest = (predicted[~half], joint[~half], votes[~half])
    scores = interval_scores(*rest, strength_of(predicted[~half], found))
    for kind, bound in (("inside", 0.015), ("resolved", 0.02)):
        assert scores[f"{kind}_68"] == pytest.approx(0.68, abs=bound)
        assert scores[f"{kind}_95"] == pytest.approx(0.95, abs=bound)
    for question in question_intervals(*rest, strength_of(predicted[~half], found)).values():
        assert question["resolved_68"] == pytest.approx(0.68, abs=0.05)


def test_one_question_that_is_too_narrow_is_seen_though_the_pool_hides_it(sample):
    predicted, joint, votes = sample
    wrong = [list(pair) for pair in TRUE]
    wrong[10][0] += 2
    strength = strength_of(predicted, wrong)
    assert interval_scores(*sample, strength)["inside_68"] > 0.65
    questions = question_intervals(predicted, joint, votes, strength)
    assert questions[11]["resolved_68"] < 0.6
    assert questions[1]["resolved_68"] > 0.65


def test_the_spread_of_a_fold_comes_from_the_others(sample):
    predicted, joint, votes = (array[:400] for array in sample)
    fold = np.arange(400) % 2
    before = cross_fitted(predicted, joint, votes, fold)
    changed = joint.copy()
    changed[fold == 0] = changed[fold == 0][::-1]
    after = cross_fitted(predicted, changed, votes, fold)
    np.testing.assert_array_equal(before[fold == 0], after[fold == 0])
    assert not np.allclose(before[fold == 1], after[fold == 1])


def test_a_question_without_votes_counts_nowhere(sample):
    predicted, joint, votes = (array[:50] for array in sample)
    quiet = votes.copy()
    quiet[:, 10] = 0
    strength = strength_of(predicted, TRUE)
    share = inside(predicted, joint, quiet, strength, 0.68)
    assert np.isnan(share[:, QUESTIONS[10].answers]).all()
    assert np.isfinite(share[:, : QUESTIONS[10].start]).all()
    assert question_intervals(predicted, joint, quiet, strength)[11] == {"resolved": 0.0}


def test_the_standard_deviation_is_that_of_the_beta_distribution(sample):
    conditional = sample[0][:5]
    strength = concentrations(conditional, TRUE)
    found = standard_deviations(conditional, TRUE)
    expected = stats.beta(strength * conditional, strength * (1 - conditional)).std()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_intervals_follow_from_the_released_columns(sample):
    conditional = sample[0][:20, :3]
    strength = concentrations(sample[0][:20], TRUE)[:, :3]
    low, high = intervals(conditional, standard_deviations(sample[0][:20], TRUE)[:, :3], 0.68)
    law = stats.beta(strength * conditional, strength * (1 - conditional))
    np.testing.assert_allclose(low, law.ppf(0.16), atol=1e-6)
    np.testing.assert_allclose(high, law.ppf(0.84), atol=1e-6)
    assert all(np.isfinite(end).all() for end in intervals(np.array([0.0, 1.0]), np.zeros(2), 0.95))


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_intervals_of_few_votes_hold_what_they_say(level):
    """Counts are drawn from the distribution; the interval ends on steps of one vote, and holds no less."""
    rng, draws = np.random.default_rng(2), 200_000
    for p, std, votes in ((0.3, 0.1, 20), (0.5, 0.05, 44), (0.8, 0.15, 7)):
        s = p * (1 - p) / std**2 - 1
        drawn = rng.binomial(votes, rng.beta(p * s, (1 - p) * s, draws)) / votes
        low, high = intervals(np.array(p), np.array(std), level, votes)
        held = np.mean((drawn >= low - 1e-9) & (drawn <= high + 1e-9))
        inner = np.mean((drawn > low + 1e-9) & (drawn < high - 1e-9))
        assert inner - 0.005 < level < held + 0.005
        many = intervals(np.array(p), np.array(std), level)
        assert low < many[0] + 0.5 / votes
        assert high > many[1] - 0.5 / votes
        assert high - low > many[1] - many[0]
    each = intervals(np.array([0.3, 0.3]), np.array([0.1, 0.1]), level, np.array([20, 200]))
    assert each[1][0] - each[0][0] > each[1][1] - each[0][1]


def test_joint_deviations_are_those_of_products():
    rng, draws = np.random.default_rng(3), 100_000
    conditional = np.concatenate(
        [rng.dirichlet(np.full(question.stop - question.start, 4.0)) for question in QUESTIONS]
    )[None]
    strength = concentrations(conditional, TRUE)
    # Each answer by itself, as its distribution is meant; the path to it has one answer of each question.
    drawn = rng.beta(strength * conditional, strength * (1 - conditional), (draws, 37))
    found = joint_standard_deviations(conditional, standard_deviations(conditional, TRUE))
    assert found.shape == (1, 37)
    np.testing.assert_allclose(found[0], to_joint(drawn).std(axis=0), rtol=0.04)
    nobody = conditional.copy()
    nobody[0, :3] = 1, 0, 0
    nobody[0, 3:5] = np.nan
    found = joint_standard_deviations(nobody, standard_deviations(nobody, TRUE))
    assert found[0, 3:13].tolist() == [0.0] * 10
    assert np.isfinite(found).all()


def test_decidedness_is_0_at_a_half():
    assert decidedness(np.array([0.5]))[0] == 0
    assert decidedness(np.array([0.1, 0.9])) == pytest.approx(np.log(0.36))
    assert concentrations(np.full((1, 37), 0.5), TRUE).shape == (1, len(ANSWERS))
