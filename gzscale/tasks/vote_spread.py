"""How far volunteers' votes may lie from the predicted fractions.

The fraction that very many volunteers would give an answer has a Beta distribution of mean p, the prediction,
and concentration s; n volunteers scatter around it, so that their counts are Beta-binomial. The
concentration follows from the prediction itself,

    log s = a + b log(4 p (1 - p)),

with two numbers a question that are found on galaxies which the network had not learnt (see
`gzscale.training.spread`). Each answer has its own s: where several answers share a question, a prediction
that is sure of one may be unsure which of the others has the rest. So the distributions are those of
each answer by itself, not of the answers of a question together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gzscale.models.votes import QUESTIONS, to_joint

__all__ = [
    "LEAST",
    "MOST",
    "concentrations",
    "decidedness",
    "intervals",
    "joint_standard_deviations",
    "standard_deviations",
]

#: Limits of the concentration: from votes that are nearly all or nothing, to those of one mind.
LEAST, MOST = 0.5, 2000.0
#: Fractions are held away from 0 and 1, where a Beta distribution has no width.
_EDGE = 1e-6


def decidedness(conditional: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log(4 p (1 - p)) of each fraction, same shape: 0 at a half, less towards 0 and 1."""
    fractions = np.asarray(conditional, np.float64)
    return np.log(np.clip(4 * fractions * (1 - fractions), 1e-4, 1))


def concentrations(
    conditional: NDArray[np.floating], coefficients: Sequence[Sequence[float]]
) -> NDArray[np.float64]:
    """Return the concentration of each answer's distribution, shape (n, 37).

    Parameters
    ----------
    conditional
        Predicted conditional fractions, shape (n, 37).
    coefficients
        a and b of each question, shape (11, 2).
    """
    lengths = [question.stop - question.start for question in QUESTIONS]
    a, b = np.repeat(np.asarray(coefficients, np.float64), lengths, axis=0).T
    return np.exp(np.clip(a + b * decidedness(conditional), np.log(LEAST), np.log(MOST)))


def standard_deviations(
    conditional: NDArray[np.floating], coefficients: Sequence[Sequence[float]]
) -> NDArray[np.float64]:
    """Return the standard deviation of each fraction as very many volunteers would give it, shape (n, 37).

    It is sqrt(p (1 - p) / (1 + s)). For n volunteers who are asked the question, multiply by
    sqrt((n + s) / n).

    Parameters
    ----------
    conditional
        Predicted conditional fractions, shape (n, 37).
    coefficients
        a and b of each question, shape (11, 2).
    """
    fractions = np.asarray(conditional, np.float64)
    strength = concentrations(fractions, coefficients)
    return np.sqrt(np.clip(fractions * (1 - fractions), 0, None) / (1 + strength))


def joint_standard_deviations(
    conditional: NDArray[np.floating], std: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the standard deviation of each joint fraction, shape (n, 37).

    A joint fraction is the product of the conditional ones that lead to it, f = p_1 ... p_k. Taken as
    independent of each other, E[f^2] is the product of p_i^2 + std_i^2, and the variance E[f^2] less the
    square of the mean (Goodman 1960, J. Am. Stat. Assoc. 55, 708).

    Parameters
    ----------
    conditional
        Predicted conditional fractions, shape (n, 37), question 6 asked of everybody.
    std
        Their standard deviations, shape (n, 37).
    """
    p, sigma = np.asarray(conditional, np.float64), np.asarray(std, np.float64)
    mean, square = to_joint(p), to_joint(np.square(p) + np.square(sigma))
    return np.sqrt(np.clip(square - np.square(mean), 0, None))


def intervals(
    fraction: NDArray[np.floating],
    std: NDArray[np.floating],
    level: float,
    votes: NDArray[np.floating] | float | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the central interval of fractions from the two columns that are released.

    Mean and standard deviation fix a Beta distribution: s = p (1 - p) / std^2 - 1. What n volunteers say has
    a Beta-binomial one.

    Parameters
    ----------
    fraction, std
        The columns ``<answer>_fraction`` and ``<answer>_std``, of one shape.
    level
        Share of the distribution, 0.68 for example.
    votes
        How many answers to the question were counted, 1 or more, for all or for each; absent: very many.

    Returns
    -------
    low, high : NDArray[np.float64]
        Of the same shape. Of so many votes the fractions are steps of one vote, so that the interval
        holds the level or somewhat more.
    """
    p = np.clip(np.asarray(fraction, np.float64), _EDGE, 1 - _EDGE)
    variance = np.square(np.maximum(np.asarray(std, np.float64), 1e-9))
    strength = np.maximum(p * (1 - p) / variance - 1, 1e-6)
    yes, no = p * strength, (1 - p) * strength
    if votes is None:
        law = stats.beta(yes, no)
        return law.ppf((1 - level) / 2), law.ppf((1 + level) / 2)
    number = np.rint(votes)
    counts = stats.betabinom(number, yes, no)
    return counts.ppf((1 - level) / 2) / number, counts.ppf((1 + level) / 2) / number
