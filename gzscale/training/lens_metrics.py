"""How well a lens finder does, by the measures of the field, from scores of lenses and of other objects.

Lenses are rare: what counts is how many are found before false ones fill the list that people look through.

References
----------
.. [1] Metcalf et al. 2019, A&A 625, A119 (AUROC, TPR0, TPR10; section 4).
.. [2] Clopper & Pearson 1934, Biometrika 26, 404.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, rankdata

__all__ = [
    "Reliability",
    "auroc",
    "binomial_interval",
    "finder_scores",
    "precision_at_budget",
    "reliability",
    "tpr_at_false_positives",
    "tpr_at_rate",
]

#: Objects of which one is a lens, for precision, and the share of them that is looked at.
PREVALENCE, BUDGET = 1e-3, 1e-4


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram.

    Attributes
    ----------
    predicted
        Mean probability in each bin, shape (b,); bins without an object are left out.
    observed
        Share of lenses in it.
    weight
        Its share of all objects.
    error
        Standard error of ``observed``.
    count
        Objects in it that would have the same error were all of one weight.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    weight: NDArray[np.float64]
    error: NDArray[np.float64]
    count: NDArray[np.float64]

    @property
    def deviation(self) -> float:
        """The mean of |observed - predicted| over objects (expected calibration error)."""
        return float(np.sum(self.weight * np.abs(self.observed - self.predicted)))

    @property
    def noise(self) -> float:
        """What `deviation` would be of honest probabilities: its expected value from counting alone.

        The mean of the absolute value of a normal variable is sqrt(2 / pi) of its standard deviation.
        """
        honest = np.sqrt(self.predicted * (1 - self.predicted) / np.maximum(self.count, 1e-9))
        return float(np.sqrt(2 / np.pi) * np.sum(self.weight * honest))


def auroc(lenses: NDArray[np.floating], others: NDArray[np.floating]) -> float:
    """Return the chance that a lens has a higher score than another object; ties count half.

    Parameters
    ----------
    lenses, others
        Scores, shape (n,) and (m,), at least one each.
    """
    ranks = rankdata(np.concatenate([lenses, others]))
    n, m = len(lenses), len(others)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def tpr_at_false_positives(lenses: NDArray[np.floating], others: NDArray[np.floating], allowed: int) -> float:
    """Return the share of lenses found with at most so many false positives: TPR0, TPR10 [1]_.

    The threshold is the highest score of an object that would be one false positive too many; lenses with
    that very score are not found. With no more others than are allowed, all lenses are found.
    """
    if allowed >= len(others):
        return 1.0
    return float(np.mean(lenses > np.sort(others)[::-1][allowed]))


def tpr_at_rate(lenses: NDArray[np.floating], others: NDArray[np.floating], rate: float) -> float:
    """Return the share of lenses found at a rate of false positives, at most that.

    With fewer than ``1 / rate`` others it is TPR0.
    """
    return tpr_at_false_positives(lenses, others, int(np.floor(rate * len(others) * (1 + 1e-12))))


def precision_at_budget(
    lenses: NDArray[np.floating], others: NDArray[np.floating], prevalence: float, budget: float
) -> float:
    """Return which share of a review list would be lenses.

    Parameters
    ----------
    lenses, others
        Scores.
    prevalence
        Share of lenses in the catalog that the list is of: scores are weighted to it.
    budget
        Share of the catalog that is on the list. The object at its end counts with the part that fits.
    """
    scores = np.concatenate([lenses, others])
    weight = np.concatenate(
        [np.full(len(lenses), prevalence / len(lenses)), np.full(len(others), (1 - prevalence) / len(others))]
    )
    # Of equal scores the others come first: no luck is counted.
    order = np.lexsort((np.arange(len(scores)) < len(lenses), -scores))
    weight, lens = weight[order], (np.arange(len(scores)) < len(lenses))[order]
    before = np.concatenate([[0.0], np.cumsum(weight)[:-1]])
    taken = np.clip(budget - before, 0, weight)
    return float(np.sum(taken[lens]) / np.sum(taken))


def reliability(
    probability: NDArray[np.floating],
    lens: NDArray[np.bool_],
    prevalence: float | None = None,
    edges: NDArray[np.float64] | None = None,
) -> Reliability:
    """Return how often objects of a probability are lenses.

    Parameters
    ----------
    probability
        Shape (n,).
    lens
        Shape (n,).
    prevalence
        Weigh lenses and others to this share of lenses; none: as they are.
    edges
        Of the bins; ten of equal width by default.
    """
    edges = np.linspace(0, 1, 11) if edges is None else edges
    weight = np.full(len(lens), 1 / len(lens))
    if prevalence is not None:
        weight = np.where(lens, prevalence / lens.sum(), (1 - prevalence) / (~lens).sum())
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 2)
    total, mean, share, square = (
        np.bincount(place, values, len(edges) - 1).astype(np.float64)
        for values in (weight, weight * probability, weight * lens, weight**2)
    )
    filled = total > 0
    total, mean, share = total[filled], mean[filled] / total[filled], share[filled] / total[filled]
    count = total**2 / square[filled]
    return Reliability(mean, share, total, np.sqrt(share * (1 - share) / count), count)


def binomial_interval(found: int, tried: int, level: float = 0.95) -> tuple[float, float]:
    """Return the central interval of a share that is known from counts [2]_.

    Parameters
    ----------
    found, tried
        Counts, the second at least 1.
    level
        Of confidence.
    """
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, found, tried - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, tried - found)) if found < tried else 1.0
    return low, high


def finder_scores(lenses: NDArray[np.floating], others: NDArray[np.floating]) -> dict[str, float]:
    """Return all measures of one finder: name -> value."""
    return {
        "auroc": auroc(lenses, others),
        "tpr0": tpr_at_false_positives(lenses, others, 0),
        "tpr10": tpr_at_false_positives(lenses, others, 10),
        "tpr_1e-3": tpr_at_rate(lenses, others, 1e-3),
        "tpr_1e-4": tpr_at_rate(lenses, others, 1e-4),
        "precision": precision_at_budget(lenses, others, PREVALENCE, BUDGET),
    }
