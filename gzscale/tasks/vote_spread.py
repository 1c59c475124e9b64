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

from gzscale.models.votes import QUESTIONS

__all__ = ["LEAST", "MOST", "concentrations", "decidedness", "intervals", "standard_deviations"]

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


def intervals(
    fraction: NDArray[np.floating], std: NDArray[np.floating], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the central interval of fractions from the two columns that are released.

    Mean and standard deviation fix a Beta distribution: s = p (1 - p) / std^2 - 1.

    Parameters
    ----------
    fraction, std
        The columns ``<answer>_fraction`` and ``<answer>_std``, of one shape.
    level
        Share of the distribution, 0.68 for example.

    Returns
    -------
    low, high : NDArray[np.float64]
        Of the same shape. They hold the fraction of very many volunteers; that of n scatters more.
    """
    p = np.clip(np.asarray(fraction, np.float64), _EDGE, 1 - _EDGE)
    variance = np.square(np.maximum(np.asarray(std, np.float64), 1e-9))
    strength = np.maximum(p * (1 - p) / variance - 1, 1e-6)
    law = stats.beta(p * strength, (1 - p) * strength)
    return law.ppf((1 - level) / 2), law.ppf((1 + level) / 2)
