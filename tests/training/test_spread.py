import numpy as np
import pytest

from gzscale.models.votes import QUESTIONS, asked, to_joint
from gzscale.tasks.vote_spread import concentrations, standard_deviations, variety
from gzscale.training.spread import coverage, fit_spread

TRUE = [[1.5 + 0.1 * index, -0.4] for index in range(11)]


@pytest.fixture(scope="module")
def sample():
    """Galaxies whose votes are Dirichlet-multinomial around the predictions, by `TRUE`."""
    rng = np.random.default_rng(0)
    expected = np.empty((1500, 37))
    for question in QUESTIONS:
        expected[:, question.answers] = rng.dirichlet(np.full(question.stop - question.start, 0.8), 1500)
    strength = concentrations(expected, TRUE)
    seen = np.zeros_like(expected)
    votes = np.zeros((1500, 11))
    counts = np.zeros_like(expected)
    for index, question in enumerate(QUESTIONS):
        number = np.full(1500, 40) if question.parent is None else counts[:, question.parent].astype(int)
        votes[:, index] = number
        for row in range(1500):
            shares = rng.dirichlet(np.maximum(strength[row, index] * expected[row, question.answers], 1e-9))
            drawn = rng.multinomial(number[row], shares / shares.sum())
            counts[row, question.answers] = drawn
            seen[row, question.answers] = drawn / max(1, number[row])
    return to_joint(expected), to_joint(seen), votes


def test_what_was_put_in_is_found(sample):
    found = fit_spread(*sample)
    for index in (0, 1, 5, 6):  # questions that many were asked
        assert found[index] == pytest.approx(TRUE[index], abs=0.25)


def test_intervals_hold_what_they_say(sample):
    predicted, joint, votes = sample
    half = np.arange(1500) < 750
    found = fit_spread(predicted[half], joint[half], votes[half])
    for level in (0.68, 0.95):
        inside = coverage(predicted[~half], joint[~half], votes[~half], found, level)
        assert inside == pytest.approx(level, abs=0.015)


def test_too_narrow_intervals_are_seen(sample):
    predicted, joint, votes = sample
    narrow = [[a + 3, b] for a, b in TRUE]
    assert coverage(predicted, joint, votes, narrow, 0.68) < 0.62


def test_the_standard_deviation_is_that_of_the_beta_distribution(sample):
    from scipy import stats

    predicted = sample[0][:5]
    conditional = np.nan_to_num(predicted)
    strength = concentrations(conditional, TRUE)
    found = standard_deviations(conditional, TRUE)
    p = conditional[:, 0]
    expected = stats.beta(strength[:, 0] * p, strength[:, 0] * (1 - p)).std()
    np.testing.assert_allclose(found[:, 0], expected)


def test_variety_is_the_chance_that_two_disagree():
    conditional = np.zeros((1, 37))
    conditional[0, [0, 1]] = 0.5
    assert np.exp(variety(conditional))[0, 0] == pytest.approx(0.5)
    assert asked(conditional).shape == (1, 11)
