"""The early try: principal components and a random forest, and the mean of all votes.

What every network has to beat, on the same galaxies and the same split.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import ConfigError

__all__ = ["forest_predictions", "mean_predictions"]

#: Principal components that are kept.
COMPONENTS = 50
TREES = 200


def mean_predictions(joint: NDArray[np.floating], fold: NDArray[np.integer]) -> NDArray[np.float64]:
    """Predict for each galaxy the mean votes of the other folds, shape (n, 37)."""
    predicted = np.empty(joint.shape)
    for number in np.unique(fold):
        predicted[fold == number] = joint[fold != number].mean(axis=0)
    return predicted


def forest_predictions(
    pictures: NDArray[np.uint8], joint: NDArray[np.floating], fold: NDArray[np.integer], seed: int = 0
) -> NDArray[np.float64]:
    """Predict each galaxy by a random forest on 50 principal components, learnt on the other folds.

    Parameters
    ----------
    pictures
        uint8, shape (n, 3, side, side).
    joint
        Joint fractions, shape (n, 37).
    fold
        Of each galaxy, shape (n,).
    seed
        Of the forest.

    Returns
    -------
    NDArray[np.float64]
        Shape (n, 37).

    Raises
    ------
    ConfigError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.decomposition import PCA
        from sklearn.ensemble import RandomForestRegressor
    except ImportError as error:
        raise ConfigError("the random forest needs scikit-learn: install gzscale[train]") from error
    flat = np.asarray(pictures).reshape(len(pictures), -1).astype(np.float32)
    predicted = np.empty(joint.shape)
    for number in np.unique(fold):
        known, asked = fold != number, fold == number
        kept = min(COMPONENTS, int(known.sum()) - 1)
        axes = PCA(kept, svd_solver="randomized", random_state=seed).fit(flat[known])
        forest = RandomForestRegressor(
            TREES, min_samples_leaf=3, max_features=0.3, random_state=seed, n_jobs=-1
        )
        forest.fit(axes.transform(flat[known]), joint[known])
        predicted[asked] = forest.predict(axes.transform(flat[asked]))
    return predicted
