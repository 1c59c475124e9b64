import numpy as np
import pytest
import torch
from scipy import stats

from gzscale.models.votes import QUESTIONS, to_conditional, to_joint
from gzscale.training.losses import LOSSES, dirichlet_multinomial, log_likelihood, multinomial, squared


def fractions(count, seed=3):
    rng = np.random.default_rng(seed)
    conditional = np.empty((count, 37))
    for question in QUESTIONS:
        conditional[:, question.answers] = rng.dirichlet(np.ones(question.stop - question.start), count)
    return torch.from_numpy(to_joint(conditional))


def votes(joint, volunteers=40.0):
    parents = [joint[:, q.parent] if q.parent is not None else torch.ones(len(joint)) for q in QUESTIONS]
    return volunteers * torch.stack(parents, dim=1)


def test_squared_error_is_37_times_the_mean_square():
    predicted, joint = fractions(5), fractions(5, 4)
    expected = 37 * ((predicted - joint) ** 2).mean()
    assert squared(predicted, joint, votes(joint), torch.zeros(11)) == pytest.approx(float(expected))


def test_multinomial_is_the_likelihood_of_one_volunteer():
    predicted, joint = fractions(1), fractions(1, 4)
    conditional = to_conditional(predicted.numpy())[0]
    expected = 0.0
    for question in QUESTIONS:
        counts = joint[0, question.answers].numpy() * 1e6
        law = stats.multinomial(round(counts.sum()), conditional[question.answers])
        whole = np.rint(counts)
        whole[0] += round(counts.sum()) - whole.sum()
        ways = stats.multinomial(round(counts.sum()), np.maximum(whole, 1e-12) / whole.sum())
        expected -= (law.logpmf(whole) - ways.logpmf(whole)) / 1e6
        expected -= (whole / 1e6 * np.log(np.maximum(whole, 1) / whole.sum())).sum()
    found = multinomial(predicted, joint, votes(joint), torch.zeros(11))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_dirichlet_multinomial_is_scipy_s_but_for_the_coefficient():
    counts, expected, strength = np.array([7.0, 2.0, 1.0]), np.array([0.6, 0.3, 0.1]), 5.0
    law = stats.dirichlet_multinomial(strength * expected, 10)
    coefficient = np.log(float(np.prod(np.arange(1, 11)) / (5040 * 2 * 1)))
    found = log_likelihood(torch.tensor(counts[None]), torch.tensor(expected[None]), torch.tensor(strength))
    assert float(found[0]) == pytest.approx(law.logpmf(counts) - coefficient)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_truth_is_best(name):
    joint = fractions(20)
    asked = votes(joint)
    best = LOSSES[name](joint, joint, asked, torch.full((11,), 6.0))
    for seed in range(5):
        other = 0.8 * joint + 0.2 * fractions(20, 10 + seed)
        assert LOSSES[name](other, joint, asked, torch.full((11,), 6.0)) > best


def test_few_votes_say_less_than_many():
    predicted, joint = fractions(30), fractions(30, 4)
    strength = torch.full((11,), 2.0)
    many, few = (
        dirichlet_multinomial(predicted, joint, votes(joint, n), strength)
        - dirichlet_multinomial(joint, joint, votes(joint, n), strength)
        for n in (200.0, 2.0)
    )
    assert 200 * many > 2 * few


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_are_finite_where_a_fraction_is_zero(name):
    joint = fractions(4)
    joint[0, 0], joint[0, 15:18] = 0, 0
    predicted = fractions(4, 5).clone()
    predicted[0, 3:5] = 0
    predicted.requires_grad_()
    LOSSES[name](predicted, joint, votes(joint), torch.zeros(11, requires_grad=True)).backward()
    assert predicted.grad.isfinite().all()
