"""Scores: how near predicted votes are to the volunteers', beside what the simplest means reach."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gzscale.models.votes import QUESTIONS, to_conditional
from gzscale.training.baseline import forest_predictions, mean_predictions

__all__ = ["clean_agreement", "compare", "error_of_rmse", "question_scores"]


def compare(
    pictures: NDArray[np.uint8],
    joint: NDArray[np.floating],
    fold: NDArray[np.integer],
    predicted: Mapping[str, NDArray[np.floating]],
) -> dict[str, float]:
    """Score predictions, the mean of the other folds' votes, and a random forest, side by side.

    Parameters
    ----------
    pictures
        uint8, shape (n, 3, side, side).
    joint
        Observed joint fractions in the Kaggle scheme, shape (n, 37).
    fold
        Of each galaxy, shape (n,).
    predicted
        Name -> joint fractions, shape (n, 37), none by what had learnt the galaxy.

    Returns
    -------
    dict[str, float]
        ``galaxies``; for ``mean``, ``pca_forest`` and each name: ``<name>_rmse`` over galaxies and answers
        (Kaggle's measure), ``<name>_rmse_error`` (its standard error) and ``<name>_smooth`` (share of
        galaxies whose most voted answer to question 1 is predicted).
    """
    every = {
        "mean": mean_predictions(joint, fold),
        "pca_forest": forest_predictions(pictures, joint, fold),
        **predicted,
    }
    scores: dict[str, float] = {"galaxies": float(len(joint))}
    for name, values in every.items():
        error, spread = error_of_rmse(values, joint)
        agreed = values[:, :3].argmax(axis=1) == joint[:, :3].argmax(axis=1)
        scores |= {
            f"{name}_rmse": round(error, 5),
            f"{name}_rmse_error": round(spread, 5),
            f"{name}_smooth": round(float(agreed.mean()), 4),
        }
    return scores


def error_of_rmse(predicted: NDArray[np.floating], joint: NDArray[np.floating]) -> tuple[float, float]:
    """Return the RMSE over galaxies and answers and its standard error, from the scatter between galaxies."""
    squares = np.square(np.asarray(predicted, np.float64) - joint).mean(axis=1)
    error = float(np.sqrt(squares.mean()))
    scatter = float(squares.std(ddof=1) / np.sqrt(len(squares)))
    return error, scatter / (2 * error) if error else 0.0


def question_scores(predicted: NDArray[np.floating], joint: NDArray[np.floating]) -> dict[int, float]:
    """Return the RMSE of each question's conditional fractions, over galaxies where half were asked it."""
    expected, observed = (
        np.nan_to_num(to_conditional(np.asarray(a, np.float64))) for a in (predicted, joint)
    )
    scores = {}
    for question in QUESTIONS:
        asked = np.ones(len(joint), bool) if question.parent is None else joint[:, question.parent] >= 0.5
        if asked.any():
            apart = expected[asked][:, question.answers] - observed[asked][:, question.answers]
            scores[question.number] = float(np.sqrt(np.square(apart).mean()))
    return scores


def clean_agreement(predicted: NDArray[np.floating], flagged: NDArray[np.bool_]) -> tuple[int, int]:
    """Count the answers of clean samples (Willett et al. 2013, Section 3.3), and how many are predicted.

    Parameters
    ----------
    predicted
        Joint fractions, shape (n, 37).
    flagged
        Of which answers' clean samples each galaxy is one, shape (n, 37).

    Returns
    -------
    answers, agreed : int
        Flags that are set; those whose answer has the most votes of its question by the prediction.
    """
    agreed = 0
    for question in QUESTIONS:
        most = predicted[:, question.answers].argmax(axis=1)
        agreed += int(flagged[:, question.answers][np.arange(len(predicted)), most].sum())
    return int(flagged.sum()), agreed
