"""Finds how far votes lie from predictions, and checks whether the stated intervals hold.

References
----------
.. [1] Czado, Gneiting & Held 2009, Biometrics 65, 1254 (the probability integral transform of counts).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from gzscale.models.votes import ANSWERS, QUESTIONS, to_conditional
from gzscale.tasks.vote_spread import LEAST, MOST, concentrations, decidedness

__all__ = ["LEVELS", "cross_fitted", "fit_spread", "inside", "interval_scores", "question_intervals"]

#: Shares of the distribution whose central intervals are checked.
LEVELS = (0.68, 0.95)
#: Questions that fewer were asked say nothing of how far votes scatter.
LEAST_VOTES = 3.0
#: Standard deviation of the prior of b, and of a around log 10: for questions that were hardly asked.
_PRIOR = 1.0
#: Counts are resolved where this many were asked and the prediction is not near 0 or 1. Elsewhere one step
#: of the distribution is so wide that the share inside is near the level whatever the spread.
_RESOLVED_VOTES, _RESOLVED_FRACTION = 10, 0.1
_EDGE = 1e-6


def fit_spread(
    predicted: NDArray[np.floating], joint: NDArray[np.floating], votes: NDArray[np.floating]
) -> list[list[float]]:
    """Find the two numbers of each question that make the votes on its answers most likely.

    Parameters
    ----------
    predicted, joint
        Predicted and observed joint fractions in the Kaggle scheme, shape (n, 37), of galaxies that the
        network had not learnt.
    votes
        How many answers to each question were counted, shape (n, 11).

    Returns
    -------
    list
        a and b of each question, see `gzscale.tasks.vote_spread`.
    """
    expected, observed = _conditional(predicted), _conditional(joint)
    found = []
    for index, question in enumerate(QUESTIONS):
        used = votes[:, index] >= LEAST_VOTES
        fractions = expected[used][:, question.answers]
        asked = votes[used, index, None].astype(np.float64)
        arrays = (fractions, observed[used][:, question.answers] * asked, asked, decidedness(fractions))
        found.append(_most_likely(*(torch.from_numpy(array) for array in arrays)))
    return found


def _most_likely(fractions: Tensor, counts: Tensor, asked: Tensor, decided: Tensor) -> list[float]:
    """Return a and b of one question; all arrays have the shape (n, answers), ``asked`` (n, 1)."""
    numbers = torch.tensor([np.log(10.0), 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")
    p = fractions.clamp(1e-4, 1 - 1e-4)

    def distance() -> Tensor:
        optimizer.zero_grad()
        logarithm = numbers[0] + numbers[1] * decided
        strength = torch.exp(logarithm.clamp(float(np.log(LEAST)), float(np.log(MOST))))
        yes, no = strength * p, strength * (1 - p)
        likely = _log_beta(counts + yes, asked - counts + no) - _log_beta(yes, no)
        prior = ((numbers[0] - np.log(10.0)) / _PRIOR) ** 2 + (numbers[1] / _PRIOR) ** 2
        total = 0.5 * prior - likely.sum()
        total.backward()
        return total

    optimizer.step(distance)
    return [round(float(number), 5) for number in numbers.detach()]


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def cross_fitted(
    predicted: NDArray[np.floating],
    joint: NDArray[np.floating],
    votes: NDArray[np.floating],
    fold: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Return the concentration of each answer by the spread of the other folds, shape (n, 37).

    Parameters
    ----------
    predicted, joint, votes
        See `fit_spread`.
    fold
        Of each galaxy, shape (n,); at least two.
    """
    expected = _conditional(predicted)
    strength = np.empty((len(expected), len(ANSWERS)))
    for number in np.unique(fold):
        known, asked = fold != number, fold == number
        spread = fit_spread(predicted[known], joint[known], votes[known])
        strength[asked] = concentrations(expected[asked], spread)
    return strength


def inside(
    predicted: NDArray[np.floating],
    joint: NDArray[np.floating],
    votes: NDArray[np.floating],
    strength: NDArray[np.floating],
    level: float,
) -> NDArray[np.float64]:
    """Tell which observed vote fractions lie in their central intervals.

    Each answer's votes k of n have a Beta-binomial distribution. Counts are lumpy, so that no interval
    holds exactly a given share; each observation counts by the part of its step of the cumulative
    distribution, F(k - 1) to F(k), that lies inside [1]_, which has the level as its mean exactly.

    Parameters
    ----------
    predicted, joint
        Predicted and observed joint fractions, shape (n, 37).
    votes
        How many answers to each question were counted, shape (n, 11).
    strength
        Concentration of each answer, shape (n, 37).
    level
        0.68, for example.

    Returns
    -------
    NDArray[np.float64]
        From 0 to 1, shape (n, 37); NaN in questions of which no answer was counted.
    """
    expected, observed = np.clip(_conditional(predicted), _EDGE, 1 - _EDGE), _conditional(joint)
    low, high = (1 - level) / 2, (1 + level) / 2
    share = np.full(expected.shape, np.nan)
    for index, question in enumerate(QUESTIONS):
        asked = np.rint(votes[:, index]).astype(int)
        rows = np.flatnonzero(asked > 0)
        cells = np.ix_(rows, np.arange(question.start, question.stop))
        number, p, s = asked[rows, None], expected[cells], strength[cells]
        counts = np.rint(number * observed[cells])
        law = stats.betabinom(number, s * p, s * (1 - p))
        below, upto = law.cdf(counts - 1), law.cdf(counts)
        width = np.maximum(upto - below, 1e-12)
        share[cells] = np.clip((np.minimum(upto, high) - np.maximum(below, low)) / width, 0, 1)
    return share


def interval_scores(
    predicted: NDArray[np.floating],
    joint: NDArray[np.floating],
    votes: NDArray[np.floating],
    strength: NDArray[np.floating],
) -> dict[str, float]:
    """Return the shares of observed fractions in their intervals.

    Returns
    -------
    dict[str, float]
        ``inside_68`` and ``inside_95`` of all; ``resolved_68`` and ``resolved_95`` of those only whose
        predicted fraction is within 0.1 and 0.9 and whose question at least 10 were asked. Left out where
        there is none.
    """
    chosen = _resolved(predicted, votes)
    scores: dict[str, float] = {}
    for level in LEVELS:
        share = inside(predicted, joint, votes, strength, level)
        scores |= _means(share, chosen, level)
    return scores


def question_intervals(
    predicted: NDArray[np.floating],
    joint: NDArray[np.floating],
    votes: NDArray[np.floating],
    strength: NDArray[np.floating],
) -> dict[int, dict[str, float]]:
    """Return the same for each question by its number, and ``resolved``, how many fractions are."""
    chosen = _resolved(predicted, votes)
    scores: dict[int, dict[str, float]] = {
        question.number: {"resolved": float(chosen[:, question.answers].sum())} for question in QUESTIONS
    }
    for level in LEVELS:
        share = inside(predicted, joint, votes, strength, level)
        for question in QUESTIONS:
            of_it, usable = share[:, question.answers], chosen[:, question.answers]
            scores[question.number] |= _means(of_it, usable, level)
    return scores


def _resolved(predicted: NDArray[np.floating], votes: NDArray[np.floating]) -> NDArray[np.bool_]:
    lengths = [question.stop - question.start for question in QUESTIONS]
    expected = _conditional(predicted)
    between = (expected > _RESOLVED_FRACTION) & (expected < 1 - _RESOLVED_FRACTION)
    return between & (np.rint(np.repeat(votes, lengths, axis=1)) >= _RESOLVED_VOTES)


def _means(share: NDArray[np.float64], resolved: NDArray[np.bool_], level: float) -> dict[str, float]:
    known = ~np.isnan(share)
    parts = {"inside": share[known], "resolved": share[known & resolved]}
    return {
        f"{name}_{round(100 * level)}": round(float(part.mean()), 4)
        for name, part in parts.items()
        if len(part)
    }


def _conditional(joint: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.nan_to_num(to_conditional(np.asarray(joint, np.float64)))
