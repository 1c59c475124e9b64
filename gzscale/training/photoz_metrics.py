"""How good photometric redshifts are, as the field measures it: of single numbers and of PDFs.

References
----------
.. [1] Pasquet et al. 2019, A&A 621, A26, Section 4.1 (bias, sigma_MAD, outliers, PIT, CRPS).
.. [2] Schmidt et al. 2020, MNRAS 499, 1587 (PIT with Kolmogorov-Smirnov and Cramer-von Mises statistics).
.. [3] Hersbach 2000, Weather and Forecasting 15, 559 (CRPS).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from gzscale.tasks.redshift_pdf import cumulative, cumulative_at, quantiles

__all__ = [
    "bias",
    "bootstrap",
    "coverage",
    "cramer_von_mises",
    "crps",
    "kolmogorov_smirnov",
    "outlier_fraction",
    "pit_values",
    "residuals",
    "score_pdfs",
    "sigma_mad",
]

#: A galaxy is an outlier beyond this |dz| / (1 + z) [1]_.
OUTLIER = 0.05
#: Samples with replacement that errors are taken from, and the seed of their draws.
RESAMPLED, SEED = 100, 20190106


def residuals(estimate: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (z_phot - z) / (1 + z), shape (n,)."""
    truth = np.asarray(truth, np.float64)
    return (estimate - truth) / (1 + truth)


def bias(residual: NDArray[np.floating]) -> float:
    """Return the mean of the residuals."""
    return float(np.mean(residual))


def sigma_mad(residual: NDArray[np.floating]) -> float:
    """Return 1.4826 times the median absolute deviation of the residuals from their median."""
    return float(1.4826 * np.median(np.abs(residual - np.median(residual))))


def outlier_fraction(residual: NDArray[np.floating]) -> float:
    """Return the share of galaxies whose residual is beyond 0.05."""
    return float(np.mean(np.abs(residual) > OUTLIER))


def pit_values(
    probabilities: NDArray[np.floating], edges: NDArray[np.floating], truth: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return each PDF's cumulative probability at the true redshift, shape (n,); uniform if all is right."""
    return cumulative_at(cumulative(probabilities), edges, truth)


def kolmogorov_smirnov(pit: NDArray[np.floating]) -> float:
    """Return the largest distance of the distribution of PIT values from the uniform one."""
    ordered, count = np.sort(pit), len(pit)
    ranks = np.arange(1, count + 1)
    return float(max(np.max(ranks / count - ordered), np.max(ordered - (ranks - 1) / count)))


def cramer_von_mises(pit: NDArray[np.floating]) -> float:
    """Return the root of the mean square distance between both distributions.

    It is the root of the usual statistic over n, so that it does not grow with the number of galaxies.
    """
    ordered, count = np.sort(pit), len(pit)
    middle = (2 * np.arange(1, count + 1) - 1) / (2 * count)
    return float(np.sqrt((1 / (12 * count) + np.sum((middle - ordered) ** 2)) / count))


def crps(
    probabilities: NDArray[np.floating], edges: NDArray[np.floating], truth: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the continuous ranked probability score of each PDF, in redshift, shape (n,).

    The integral of (F(z) - H(z - truth))^2 [3]_, exact for the piecewise linear F of a histogram; H is the
    unit step. For a PDF that is one redshift it is the absolute error.
    """
    total = cumulative(probabilities)
    truth = np.asarray(truth, np.float64)
    at_truth = cumulative_at(total, edges, truth)
    inside = np.clip(truth, edges[0], edges[-1])
    # Each bin is parted where the truth lies: F^2 is integrated below, (1 - F)^2 above.
    middle = np.clip(inside[:, None], edges[:-1], edges[1:])
    height = np.where(
        middle <= edges[:-1], total[:, :-1], np.where(middle >= edges[1:], total[:, 1:], at_truth[:, None])
    )
    below = _square(total[:, :-1], height) * (middle - edges[:-1])
    above = _square(1 - height, 1 - total[:, 1:]) * (edges[1:] - middle)
    outside = np.abs(truth - inside)
    return below.sum(axis=1) + above.sum(axis=1) + outside


def _square(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean square of a linear function between two values."""
    return (left**2 + left * right + right**2) / 3


def coverage(
    probabilities: NDArray[np.floating],
    edges: NDArray[np.floating],
    truth: NDArray[np.floating],
    level: float,
) -> float:
    """Return the share of true redshifts within the central interval of a level."""
    low, high = quantiles(cumulative(probabilities), edges, ((1 - level) / 2, (1 + level) / 2)).T
    return float(np.mean((truth >= low) & (truth <= high)))


def bootstrap(statistic: Callable[[NDArray[np.floating]], float], values: NDArray[np.floating]) -> float:
    """Return the standard deviation of a statistic of n values over samples with replacement."""
    draws = np.random.default_rng(SEED)
    count = len(values)
    return float(np.std([statistic(values[draws.integers(0, count, count)]) for _ in range(RESAMPLED)]))


def score_pdfs(
    probabilities: NDArray[np.floating],
    edges: NDArray[np.floating],
    truth: NDArray[np.floating],
    estimate: NDArray[np.floating] | None = None,
) -> Mapping[str, float]:
    """Return all scores of n PDFs.

    Parameters
    ----------
    probabilities
        Shape (n, bins).
    edges
        Shape (bins + 1,).
    truth
        True redshifts, shape (n,).
    estimate
        Single redshifts whose residuals are scored; the medians of the PDFs if absent.

    Returns
    -------
    dict[str, float]
        ``bias``, ``sigma_mad``, ``outliers``, ``pit_ks``, ``pit_cvm``, ``crps``, each with its bootstrap
        error under ``<name>_error``; ``inside_68``, ``inside_95``; ``galaxies``.
    """
    if estimate is None:
        estimate = quantiles(cumulative(probabilities), edges, (0.5,))[:, 0]
    residual = residuals(estimate, truth)
    pit = pit_values(probabilities, edges, truth)
    measured: dict[str, tuple[Callable[[NDArray[np.floating]], float], NDArray[np.floating]]] = {
        "bias": (bias, residual),
        "sigma_mad": (sigma_mad, residual),
        "outliers": (outlier_fraction, residual),
        "pit_ks": (kolmogorov_smirnov, pit),
        "pit_cvm": (cramer_von_mises, pit),
        "crps": (bias, crps(probabilities, edges, truth)),
    }
    scores = {"galaxies": float(len(truth))}
    for name, (statistic, values) in measured.items():
        scores[name] = statistic(values)
        scores[f"{name}_error"] = bootstrap(statistic, values)
    for level in (0.68, 0.95):
        scores[f"inside_{round(100 * level)}"] = coverage(probabilities, edges, truth, level)
    return scores
