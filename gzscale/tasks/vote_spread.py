"""How far volunteers' votes may lie from the predicted fractions.

The votes on a question are taken to be Dirichlet-multinomial around the prediction: the fraction that
very many volunteers would give has a Beta distribution of mean p and concentration s, and n of them
scatter around it. The concentration of a question follows from the prediction itself,
log s = a + b log(1 - sum p^2), with two numbers a question that are found on galaxies which the
network had not learnt (see `gzscale.training.spread`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gzscale.models.votes import ANSWERS, QUESTIONS

__all__ = ["concentrations", "standard_deviations", "variety"]

#: Limits of the concentration: from votes that are nearly all or nothing, to those of one mind.
LEAST, MOST = 0.5, 2000.0


def variety(conditional: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log(1 - sum p^2), the chance that two disagree, of each question, shape (n, 11)."""
    fractions = np.asarray(conditional, np.float64)
    alike = [np.square(fractions[:, question.answers]).sum(axis=1) for question in QUESTIONS]
    return np.log(np.clip(1 - np.stack(alike, axis=1), 1e-4, 1))


def concentrations(
    conditional: NDArray[np.floating], coefficients: Sequence[Sequence[float]]
) -> NDArray[np.float64]:
    """Return the concentration of each question's distribution, shape (n, 11).

    Parameters
    ----------
    conditional
        Predicted conditional fractions, shape (n, 37).
    coefficients
        a and b of each question, shape (11, 2).
    """
    numbers = np.asarray(coefficients, np.float64)
    logarithm = numbers[:, 0] + numbers[:, 1] * variety(conditional)
    return np.exp(np.clip(logarithm, np.log(LEAST), np.log(MOST)))


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
    spread = np.empty((len(fractions), len(ANSWERS)))
    for index, question in enumerate(QUESTIONS):
        values = fractions[:, question.answers]
        known = concentrations(conditional, coefficients)[:, index, None]
        spread[:, question.answers] = np.sqrt(np.clip(values * (1 - values), 0, None) / (1 + known))
    return spread
