import numpy as np
import pytest

from gzscale.errors import CatalogError
from gzscale.models.votes import QUESTIONS
from gzscale.tasks.debias import debias


@pytest.fixture(scope="module")
def sample():
    """Galaxies alike at all redshifts, whose features are seen the less the further they are."""
    rng = np.random.default_rng(3)
    redshift = rng.uniform(0.01, 0.2, 4000)
    features = rng.beta(2, 2, 4000)
    seen = features * (1 - 4 * (redshift - 0.01))
    conditional = np.empty((4000, 37))
    for question in QUESTIONS:
        conditional[:, question.answers] = rng.dirichlet(np.ones(question.stop - question.start), 4000)
    conditional[:, 0], conditional[:, 1], conditional[:, 2] = 0.97 - 0.97 * seen, 0.97 * seen, 0.03
    return conditional, redshift, 0.97 * features


def test_what_distance_hid_comes_back(sample):
    conditional, redshift, truth = sample
    found = debias(conditional, redshift)
    far = redshift > 0.15
    before = np.abs(conditional[far, 1] - truth[far]).mean()
    after = np.abs(found[far, 1] - truth[far]).mean()
    assert before > 0.25
    assert after < 0.06
    assert abs(np.median(found[far, 1]) - np.median(found[redshift < 0.02, 1])) < 0.05


def test_answers_still_sum_to_one_and_ranks_stay(sample):
    conditional, redshift, _ = sample
    found = debias(conditional, redshift)
    for question in QUESTIONS:
        np.testing.assert_allclose(found[:, question.answers].sum(axis=1), 1, atol=1e-9)
    narrow = (redshift > 0.1) & (redshift < 0.105)
    order = np.argsort(conditional[narrow, 1])
    assert (np.diff(found[narrow, 1][order]) > -0.02).all()


def test_galaxies_without_a_redshift_stay_as_they_are(sample):
    conditional, redshift, _ = sample
    some = redshift.copy()
    some[:100], some[100:200] = np.nan, 0
    found = debias(conditional, some)
    np.testing.assert_allclose(found[:200], conditional[:200])


def test_a_question_that_few_were_asked_stays_as_it_was(sample):
    conditional, redshift, _ = sample
    quiet = conditional.copy()
    quiet[:, 13], quiet[:, 14] = 0.05, 0.95  # nothing odd: nobody is asked what
    found = debias(quiet, redshift)
    np.testing.assert_allclose(found[:, 18:25], quiet[:, 18:25])


def test_too_few_redshifts(sample):
    conditional, redshift, _ = sample
    with pytest.raises(CatalogError, match="99 galaxies have a redshift"):
        debias(conditional[:99], redshift[:99])
