"""The early try: principal components and a random forest, and the mean of all votes.

What every network has to beat, on the same galaxies and the same split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import ConfigError

__all__ = ["forest_predictions", "mean_predictions"]

#: Principal components that are kept.
COMPONENTS = 50
TREES = 200
#: Galaxies that the components are found with, and that each tree draws, at most: more take memory in
#: proportion (27,648 numbers a galaxy, and a leaf of 37 for every few) and change little.
MOST_FOR_COMPONENTS = 2048
MOST_FOR_A_TREE = 8192
#: Pictures that are projected together.
_BLOCK = 1024


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

    Of more than `MOST_FOR_COMPONENTS` galaxies, so many, evenly spread over the table, give the components;
    memory does not grow with the number of pictures.

    Parameters
    ----------
    pictures
        uint8, shape (n, 3, side, side); may lie on disk.
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
    predicted = np.empty(joint.shape)
    for number in np.unique(fold):
        known, asked = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        some = known[_spread_evenly(len(known), MOST_FOR_COMPONENTS)]
        kept = min(COMPONENTS, len(some) - 1)
        axes = PCA(kept, svd_solver="randomized", random_state=seed).fit(_flat(pictures, some))
        forest = RandomForestRegressor(
            TREES,
            min_samples_leaf=3,
            max_features=0.3,
            max_samples=min(len(known), MOST_FOR_A_TREE),
            random_state=seed,
            n_jobs=-1,
        )
        forest.fit(_project(axes, pictures, known), joint[known])
        predicted[asked] = forest.predict(_project(axes, pictures, asked))
    return predicted


def _spread_evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return at most so many positions among ``count``, at even steps."""
    return np.arange(min(count, most)) * count // min(count, most)


def _flat(pictures: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return pictures[rows].reshape(len(rows), -1).astype(np.float32)


def _project(axes: Any, pictures: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the components of some pictures, shape (k, components), a block at a time."""
    starts = range(0, len(rows), _BLOCK)
    return np.concatenate([axes.transform(_flat(pictures, rows[i : i + _BLOCK])) for i in starts])
