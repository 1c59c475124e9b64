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

from gzscale.models.votes import QUESTIONS, to_conditional
from gzscale.tasks.vote_spread import concentrations, variety
from gzscale.training.losses import log_likelihood

__all__ = ["coverage", "fit_spread"]

#: Questions that fewer were asked say nothing of how far votes scatter.
LEAST_VOTES = 3.0
#: Standard deviation of the prior of b, and of a around log 10: for questions that were hardly asked.
_PRIOR = 1.0


def fit_spread(
    predicted: NDArray[np.floating], joint: NDArray[np.floating], votes: NDArray[np.floating]
) -> list[list[float]]:
    """Find the two numbers of each question that make the votes most likely.

    Parameters
    ----------
    predicted, joint
        Predicted and observed joint fractions in the Kaggle scheme, shape (n, 37), of galaxies that the
        network had not learnt.
    votes
        How many were asked each question, shape (n, 11).

    Returns
    -------
    list
        a and b of each question, see `gzscale.tasks.vote_spread`.
    """
    expected, observed = _conditional(predicted), _conditional(joint)
    kinds = variety(expected)
    found = []
    for index, question in enumerate(QUESTIONS):
        used = votes[:, index] >= LEAST_VOTES
        arrays = (expected[used][:, question.answers], observed[used][:, question.answers])
        fractions, seen = (torch.from_numpy(array) for array in arrays)
        counts = seen * torch.from_numpy(votes[used, index, None].astype(np.float64))
        kind = torch.from_numpy(kinds[used, index])
        numbers = torch.tensor([np.log(10.0), 0.0], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

        def distance(
            numbers: torch.Tensor = numbers,
            fractions: torch.Tensor = fractions,
            counts: torch.Tensor = counts,
            kind: torch.Tensor = kind,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> torch.Tensor:
            optimizer.zero_grad()
            concentration = torch.exp((numbers[0] + numbers[1] * kind).clamp(-0.7, 7.6))[:, None]
            prior = ((numbers[0] - np.log(10.0)) / _PRIOR) ** 2 + (numbers[1] / _PRIOR) ** 2
            total = 0.5 * prior - log_likelihood(counts, fractions, concentration).sum()
            total.backward()
            return total

        optimizer.step(distance)
        found.append([round(float(number), 5) for number in numbers.detach()])
    return found


def coverage(
    predicted: NDArray[np.floating],
    joint: NDArray[np.floating],
    votes: NDArray[np.floating],
    coefficients: list[list[float]],
    level: float,
) -> float:
    """Return the share of observed vote fractions that lie in their central intervals.

    Each answer's votes k of n have a Beta-binomial distribution. Counts are lumpy, so that no interval
    holds exactly a given share; each observation counts by the part of its step of the cumulative
    distribution, F(k - 1) to F(k), that lies inside [1]_, which has the level as its mean exactly.

    Parameters
    ----------
    predicted, joint
        Predicted and observed joint fractions, shape (n, 37).
    votes
        How many were asked each question, shape (n, 11); questions that nobody was asked are left out.
    coefficients
        See `fit_spread`.
    level
        0.68, for example.
    """
    expected, observed = _conditional(predicted), _conditional(joint)
    spread = concentrations(expected, coefficients)
    low, high = (1 - level) / 2, (1 + level) / 2
    inside, total = 0.0, 0
    for index, question in enumerate(QUESTIONS):
        asked = np.rint(votes[:, index]).astype(int)
        used = asked > 0
        number, strength = asked[used, None], spread[used, index, None]
        fractions = np.clip(expected[used][:, question.answers], 1e-6, 1 - 1e-6)
        counts = np.rint(number * observed[used][:, question.answers])
        law = stats.betabinom(number, strength * fractions, strength * (1 - fractions))
        below, upto = law.cdf(counts - 1), law.cdf(counts)
        width = np.maximum(upto - below, 1e-12)
        part = (np.minimum(upto, high) - np.maximum(below, low)) / width
        inside += float(np.clip(part, 0, 1).sum())
        total += part.size
    return inside / total


def _conditional(joint: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.nan_to_num(to_conditional(np.asarray(joint, np.float64)))
